"""VGG8 alone."""

_base_ = '../_base_/cifar100.py'
custom_imports = dict(
    imports=['lshfm_mm.backbones'], allow_failed_imports=False
)

model = dict(
    backbone=dict(type='CIFARVGG', depth=8), head=dict(in_channels=512)
)
