"""LSHL2 on all samples: resnet110 -> resnet20."""

_base_ = 'resnet110_resnet20_lshfm.py'

model = dict(distiller=dict(taps=dict(pooled=dict(weights='uniform'))))
