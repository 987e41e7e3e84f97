"""LSH and relative L2 on the class tower, into an inherited head."""

_base_ = 'lshl2_cls_retinanet_r34_retinanet_r18_shapes.py'

model = dict(
    inherit=True,
    distiller=dict(
        active=['cls'],
        taps=dict(cls='bbox_head.retina_cls'),
        losses=dict(
            cls=[
                dict(type='LSHLoss', num_hashes=1024, loss_weight=1),
                dict(type='RelativeL2Loss', loss_weight=1),
            ]
        ),
    ),
)
