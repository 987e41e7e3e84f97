"""ResNet-34, the teacher."""

_base_ = 'resnet50_voc07.py'

model = dict(
    backbone=dict(
        depth=34,
        init_cfg=dict(
            checkpoint='https://download.openmmlab.com/mmclassification/v0/resnet/resnet34_8xb32_in1k_20210831-f257d4e6.pth'  # noqa: E501
        ),
    ),
    head=dict(in_channels=512),
)
