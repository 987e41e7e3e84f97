"""LSHL2 on all samples: resnet32x4 -> shufflenetv1."""

_base_ = 'resnet32x4_shufflenetv1_lshfm.py'

model = dict(distiller=dict(taps=dict(pooled=dict(weights='uniform'))))
