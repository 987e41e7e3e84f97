"""The student of several shapes to an image, from that of one."""

_base_ = '../_base_/shapes_multi.py'

model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='ResNet_CIFAR',
        depth=18,
        stem_channels=4,
        base_channels=4,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/shapes/single_student.pth',
            prefix='backbone',
        ),
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='MultiLabelLinearClsHead',
        num_classes=6,
        in_channels=32,
        # The mean over classes, as in the paper.
        loss=dict(
            type='CrossEntropyLoss', use_sigmoid=True, loss_weight=1 / 6
        ),
    ),
)
