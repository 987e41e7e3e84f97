"""The small detector alone: what distillation must beat."""

_base_ = ['../_base_/faster-rcnn_r18-w16.py', '../_base_/easy_shapes.py']

model = dict(
    backbone=dict(base_channels=12),
    neck=dict(in_channels=[12, 24, 48, 96]),
    roi_head=dict(bbox_head=dict(num_classes=6)),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=64)), rpn_proposal=dict(nms_pre=200)
    ),
    test_cfg=dict(rpn=dict(nms_pre=200)),
)
