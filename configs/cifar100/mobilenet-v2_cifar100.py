"""MobileNetV2 of half the width alone."""

_base_ = '../_base_/cifar100.py'
custom_imports = dict(
    imports=['lshfm_mm.backbones'], allow_failed_imports=False
)

model = dict(
    backbone=dict(type='CIFARMobileNetV2', widen_factor=0.5),
    head=dict(in_channels=1280),
)
optim_wrapper = dict(optimizer=dict(lr=0.01))
