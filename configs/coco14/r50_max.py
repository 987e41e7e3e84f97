"""ResNet-50 with max pooling, a student alone."""

_base_ = 'r50.py'

model = dict(neck=dict(type='GlobalMaxPooling'))
