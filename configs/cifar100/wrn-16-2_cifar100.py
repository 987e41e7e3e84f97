"""Wide ResNet 16-2 alone."""

_base_ = '../_base_/cifar100.py'
custom_imports = dict(
    imports=['lshfm_mm.backbones'], allow_failed_imports=False
)

model = dict(
    backbone=dict(type='CIFARWideResNet', depth=16, widen_factor=2),
    head=dict(in_channels=128, init_cfg=None),
)
