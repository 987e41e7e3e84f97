"""The small detector alone, from random weights, on blood cells."""

_base_ = ['../_base_/faster-rcnn_r18-w16.py', '../_base_/bccd.py']

model = dict(roi_head=dict(bbox_head=dict(num_classes=3)))
