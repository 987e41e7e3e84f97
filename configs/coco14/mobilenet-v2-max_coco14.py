"""MobileNetV2 with max pooling, a student alone."""

_base_ = 'mobilenet-v2_coco14.py'

model = dict(neck=dict(type='GlobalMaxPooling'))
