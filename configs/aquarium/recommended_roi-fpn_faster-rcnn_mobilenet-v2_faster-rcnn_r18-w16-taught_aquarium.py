"""The recommended recipe, for a student whose backbone was taught first."""

_base_ = [
    'recommended_roi-fpn_faster-rcnn_mobilenet-v2_faster-rcnn_r18-w16_'
    'aquarium.py'
]

model = dict(
    architecture=dict(
        backbone=dict(
            init_cfg=dict(
                _delete_=True,
                type='Pretrained',
                checkpoint='data/resnet18-w16_taught.pth',
                prefix='backbone.',
            )
        )
    )
)
