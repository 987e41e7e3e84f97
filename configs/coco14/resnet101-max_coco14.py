"""ResNet-101 with max pooling, the teacher."""

_base_ = 'resnet101_coco14.py'

model = dict(neck=dict(type='GlobalMaxPooling'))
