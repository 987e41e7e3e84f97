"""CWD on the FPN, into an inherited head: best for dense heads so far."""

_base_ = 'lshl2_cls_retinanet_r34_retinanet_r18_shapes.py'

model = dict(
    inherit=True,
    distiller=dict(
        active=['fpn'],
        taps=dict(fpn=dict(layer='neck', record='output')),
        losses=dict(fpn=[dict(type='ChannelWiseDivergence', loss_weight=160)]),
    ),
)
