"""MobileNetV2, a student alone."""

_base_ = 'resnet50_coco14.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='MobileNetV2',
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://download.openmmlab.com/mmclassification/v0/mobilenet_v2/mobilenet_v2_batch256_imagenet_20200708-3b2dc3af.pth',  # noqa: E501
            prefix='backbone',
        ),
    ),
    head=dict(in_channels=1280),
)
