"""LSHL2 on all samples: vgg13 -> vgg8."""

_base_ = 'vgg13_vgg8_lshfm.py'

model = dict(distiller=dict(taps=dict(pooled=dict(weights='uniform'))))
