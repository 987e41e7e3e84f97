"""ResNet20 alone."""

_base_ = '../_base_/cifar100.py'
custom_imports = dict(
    imports=['lshfm_mm.backbones'], allow_failed_imports=False
)

model = dict(
    backbone=dict(type='CIFARResNet', depth=20),
    head=dict(in_channels=64, init_cfg=None),
)
