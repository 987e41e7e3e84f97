"""The small dense detector alone: what distillation must beat."""

_base_ = ['mmdet::_base_/models/retinanet_r50_fpn.py', '../_base_/shapes.py']

model = dict(
    backbone=dict(
        depth=18,
        base_channels=12,
        frozen_stages=-1,
        norm_eval=False,
        init_cfg=None,
    ),
    neck=dict(in_channels=[12, 24, 48, 96], out_channels=64, num_outs=4),
    bbox_head=dict(
        num_classes=6,
        in_channels=64,
        feat_channels=64,
        stacked_convs=2,
        anchor_generator=dict(octave_base_scale=2, strides=[8, 16, 32, 64]),
    ),
)

# Focal loss needs more steps than the RoI head of Faster R-CNN.
train_dataloader = dict(batch_size=4)
max_epochs = 12
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
param_scheduler = _base_.param_scheduler
param_scheduler[1].end = max_epochs
