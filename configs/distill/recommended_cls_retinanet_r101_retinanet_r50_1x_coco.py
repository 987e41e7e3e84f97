"""LSH and relative L2 on the class tower, into an inherited head."""

_base_ = 'lshl2_cls_retinanet_r101_retinanet_r50_1x_coco.py'

model = dict(
    inherit=True,
    distiller=dict(
        active=['cls'],
        taps=dict(cls='bbox_head.retina_cls'),
        losses=dict(
            cls=[
                dict(type='LSHLoss', num_hashes=4096, loss_weight=1),
                dict(type='RelativeL2Loss', loss_weight=1),
            ]
        ),
    ),
)
