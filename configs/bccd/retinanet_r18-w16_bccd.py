"""The small dense detector alone, from random weights, on blood cells."""

_base_ = ['../_base_/retinanet_r18-w16.py', '../_base_/bccd.py']

model = dict(bbox_head=dict(num_classes=3))
