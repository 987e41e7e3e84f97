"""ResNet-18, a student alone."""

_base_ = 'resnet50_voc07.py'

model = dict(
    backbone=dict(
        depth=18,
        init_cfg=dict(
            checkpoint='https://download.openmmlab.com/mmclassification/v0/resnet/resnet18_8xb32_in1k_20210831-fbbb1da6.pth'  # noqa: E501
        ),
    ),
    head=dict(in_channels=512),
)
