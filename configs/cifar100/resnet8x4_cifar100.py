"""ResNet8 of four times the width alone."""

_base_ = '../_base_/cifar100.py'
custom_imports = dict(
    imports=['lshfm_mm.backbones'], allow_failed_imports=False
)

model = dict(
    backbone=dict(type='CIFARResNet', depth=8, widths=(32, 64, 128, 256)),
    head=dict(in_channels=256, init_cfg=None),
)
