"""The student of one shape to an image: ResNet-18, 4 channels."""

_base_ = 'single_teacher.py'

model = dict(
    backbone=dict(stem_channels=4, base_channels=4),
    head=dict(in_channels=32),
)
