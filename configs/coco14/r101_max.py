"""ResNet-101 with max pooling, the teacher."""

_base_ = 'r101.py'

model = dict(neck=dict(type='GlobalMaxPooling'))
