"""LSHL2 on all samples: resnet56 -> resnet20."""

_base_ = 'resnet56_resnet20_lshfm.py'

model = dict(distiller=dict(taps=dict(pooled=dict(weights='uniform'))))
