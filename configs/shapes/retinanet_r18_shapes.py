"""The small dense detector alone: what distillation must beat."""

_base_ = ['../_base_/retinanet_r18-w16.py', '../_base_/dense_shapes.py']

model = dict(
    backbone=dict(base_channels=12),
    neck=dict(in_channels=[12, 24, 48, 96]),
    bbox_head=dict(num_classes=6),
)
