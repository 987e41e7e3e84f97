"""The recommended recipe for GFL with mmdet's 2x schedule."""

_base_ = 'recommended_fpn_gfl_r101_gfl_r50_1x_coco.py'

train_cfg = dict(max_epochs=24)
param_scheduler = _base_.param_scheduler
param_scheduler[1].end = 24
param_scheduler[1].milestones = [16, 22]
