"""The student of one shape to an image: ResNet-18 with 4 channels."""

_base_ = '../_base_/shapes_single.py'

model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='ResNet_CIFAR', depth=18, stem_channels=4, base_channels=4
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=6,
        in_channels=32,
        loss=dict(type='CrossEntropyLoss'),
    ),
)
