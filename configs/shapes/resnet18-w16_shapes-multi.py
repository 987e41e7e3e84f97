"""The teacher of several shapes to an image, from that of one."""

_base_ = 'resnet18-w4_shapes-multi.py'

model = dict(
    backbone=dict(
        stem_channels=16,
        base_channels=16,
        init_cfg=dict(checkpoint='work_dirs/shapes/single_teacher.pth'),
    ),
    head=dict(in_channels=128),
)
