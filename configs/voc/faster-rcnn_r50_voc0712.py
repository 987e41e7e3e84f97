"""Faster R-CNN R50 alone: the student of R101."""

_base_ = ['mmdet::_base_/models/faster-rcnn_r50_fpn.py', '../_base_/voc.py']

model = dict(
    roi_head=dict(bbox_head=dict(num_classes=20)),
    train_cfg=dict(rpn_proposal=dict(nms_pre=4000)),
)
