"""ResNet-50 with max pooling, a student alone."""

_base_ = 'resnet50_coco14.py'

model = dict(neck=dict(type='GlobalMaxPooling'))
