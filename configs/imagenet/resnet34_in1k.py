"""ResNet-34, the teacher."""

_base_ = [
    'mmpretrain::_base_/models/resnet34.py',
    '../_base_/imagenet.py',
]
