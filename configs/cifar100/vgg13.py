"""VGG13 alone."""

_base_ = 'vgg8.py'

model = dict(backbone=dict(depth=13))
