"""ResNet-18, a student alone."""

_base_ = [
    'mmpretrain::_base_/models/resnet18.py',
    '../_base_/imagenet.py',
]
