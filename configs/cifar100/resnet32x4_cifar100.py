"""ResNet32 of four times the width alone."""

_base_ = 'resnet8x4_cifar100.py'

model = dict(backbone=dict(depth=32))
