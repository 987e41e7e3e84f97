"""Wide ResNet 40-2 alone."""

_base_ = 'wrn-16-2_cifar100.py'

model = dict(backbone=dict(depth=40))
