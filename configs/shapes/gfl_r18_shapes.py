"""The small GFL alone, as the study trains it."""

_base_ = ['../_base_/gfl_r18-w16.py', '../_base_/shapes.py']

model = dict(
    backbone=dict(base_channels=12),
    neck=dict(in_channels=[12, 24, 48, 96]),
    bbox_head=dict(num_classes=6),
)

train_dataloader = dict(batch_size=4)
max_epochs = 12
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
param_scheduler = _base_.param_scheduler
param_scheduler[1].end = max_epochs
