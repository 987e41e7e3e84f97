"""CWD on the FPN, into an inherited head: best for dense heads so far."""

_base_ = 'lshl2_cls_retinanet_r101_retinanet_r50_1x_coco.py'

model = dict(
    inherit=True,
    distiller=dict(
        active=['fpn'],
        taps=dict(fpn=dict(layer='neck', record='output')),
        losses=dict(fpn=[dict(type='ChannelWiseDivergence', loss_weight=160)]),
    ),
)
# CWD of this weight has blown up without.
optim_wrapper = dict(clip_grad=dict(max_norm=35))
