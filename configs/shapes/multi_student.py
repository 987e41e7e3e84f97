"""The student of several shapes to an image, from that of one."""

_base_ = 'multi_teacher.py'

model = dict(
    backbone=dict(
        stem_channels=4,
        base_channels=4,
        init_cfg=dict(checkpoint='work_dirs/shapes/single_student.pth'),
    ),
    head=dict(in_channels=32),
)
