"""The small GFL alone, from random weights."""

_base_ = ['../_base_/gfl_r18-w16.py', '../_base_/aquarium.py']

model = dict(bbox_head=dict(num_classes=7))
