"""LSHL2 on all samples: vgg13 -> mobilenetv2."""

_base_ = 'vgg13_mobilenetv2_lshfm.py'

model = dict(distiller=dict(taps=dict(pooled=dict(weights='uniform'))))
