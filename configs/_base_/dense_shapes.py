"""Shapes, and a schedule for dense heads.

Their focal loss needs more steps than the RoI head of Faster R-CNN.
"""

_base_ = 'shapes.py'

train_dataloader = dict(batch_size=4)
max_epochs = 12
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
param_scheduler = _base_.param_scheduler
param_scheduler[1].end = max_epochs
