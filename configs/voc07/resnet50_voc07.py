"""ResNet-50, a student alone."""

_base_ = [
    'mmpretrain::_base_/models/resnet50.py',
    '../_base_/voc07_multilabel.py',
]

model = dict(
    backbone=dict(
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://download.openmmlab.com/mmclassification/v0/resnet/resnet50_8xb32_in1k_20210831-ea4938fc.pth',  # noqa: E501
            prefix='backbone',
        )
    ),
    head=dict(
        _delete_=True,
        type='MultiLabelLinearClsHead',
        num_classes=20,
        in_channels=2048,
        loss=dict(
            # BCE, which mmpretrain sums over classes; the paper's is the mean.
            type='CrossEntropyLoss',
            use_sigmoid=True,
            loss_weight=1 / 20,
        ),
    ),
)
