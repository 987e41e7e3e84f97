"""LSHL2 on the RoIs of Faster R-CNN with mmdet's 2x schedule."""

_base_ = 'faster_rcnn_lshfm.py'

train_cfg = dict(max_epochs=24)
param_scheduler = _base_.param_scheduler
param_scheduler[1].end = 24
param_scheduler[1].milestones = [16, 22]
