"""Wide ResNet 40-1 alone."""

_base_ = 'wrn-40-2_cifar100.py'

model = dict(backbone=dict(widen_factor=1), head=dict(in_channels=64))
