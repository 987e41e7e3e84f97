"""LSHL2 on all samples: resnet32x4 -> shufflenetv2."""

_base_ = 'resnet32x4_shufflenetv2_lshfm.py'

model = dict(distiller=dict(taps=dict(pooled=dict(weights='uniform'))))
