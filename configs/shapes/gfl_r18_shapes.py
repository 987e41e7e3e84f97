"""The small GFL alone, as the study trains it."""

_base_ = ['../_base_/gfl_r18-w16.py', '../_base_/dense_shapes.py']

model = dict(
    backbone=dict(base_channels=12),
    neck=dict(in_channels=[12, 24, 48, 96]),
    bbox_head=dict(num_classes=6),
)
