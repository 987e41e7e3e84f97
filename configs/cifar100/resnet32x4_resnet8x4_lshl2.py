"""LSHL2 on all samples: resnet32x4 -> resnet8x4."""

_base_ = 'resnet32x4_resnet8x4_lshfm.py'

model = dict(distiller=dict(taps=dict(pooled=dict(weights='uniform'))))
