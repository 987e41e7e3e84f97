"""ResNet32 alone."""

_base_ = 'resnet20.py'

model = dict(backbone=dict(depth=32))
