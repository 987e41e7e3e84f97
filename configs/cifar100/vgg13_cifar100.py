"""VGG13 alone."""

_base_ = 'vgg8_cifar100.py'

model = dict(backbone=dict(depth=13))
