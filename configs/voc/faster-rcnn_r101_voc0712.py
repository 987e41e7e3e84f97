"""Faster R-CNN R101, the teacher."""

_base_ = 'faster-rcnn_r50_voc0712.py'

model = dict(
    backbone=dict(
        depth=101, init_cfg=dict(checkpoint='torchvision://resnet101')
    )
)
