"""ShuffleNetV2 alone."""

_base_ = '../_base_/cifar100.py'
custom_imports = dict(
    imports=['lshfm_mm.backbones'], allow_failed_imports=False
)

model = dict(
    backbone=dict(type='CIFARShuffleNetV2'),
    head=dict(in_channels=1024, init_cfg=None),
)
optim_wrapper = dict(optimizer=dict(lr=0.01))
