"""MobileNetV2, a student alone."""

_base_ = [
    'mmpretrain::_base_/models/mobilenet_v2_1x.py',
    '../_base_/imagenet.py',
]
