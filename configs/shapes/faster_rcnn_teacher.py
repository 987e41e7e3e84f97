"""The big detector: the student with a wider and deeper backbone."""

_base_ = 'faster_rcnn_student.py'

model = dict(
    backbone=dict(depth=34, base_channels=32),
    neck=dict(in_channels=[32, 64, 128, 256]),
)
