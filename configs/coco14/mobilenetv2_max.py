"""MobileNetV2 with max pooling, a student alone."""

_base_ = 'mobilenetv2.py'

model = dict(neck=dict(type='GlobalMaxPooling'))
