"""The small detector alone, its backbone taught first, without labels."""

_base_ = 'faster-rcnn_r18-w16_aquarium.py'

model = dict(
    backbone=dict(
        init_cfg=dict(
            _delete_=True,
            type='Pretrained',
            checkpoint='data/resnet18-w16_taught.pth',
            prefix='backbone.',
        )
    )
)
