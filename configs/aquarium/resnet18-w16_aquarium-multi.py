"""The small classifier of several labels alone, from random weights."""

_base_ = '../_base_/aquarium_multi.py'

model = dict(
    type='ImageClassifier',
    backbone=dict(type='ResNet', depth=18, stem_channels=16, base_channels=16),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='MultiLabelLinearClsHead',
        num_classes=7,
        in_channels=128,
        # The mean over classes, as in the paper.
        loss=dict(
            type='CrossEntropyLoss', use_sigmoid=True, loss_weight=1 / 7
        ),
    ),
)
optim_wrapper = dict(optimizer=dict(lr=0.001))
