"""LSHL2 on all samples: resnet50 -> vgg8."""

_base_ = 'resnet50_vgg8_lshfm.py'

model = dict(distiller=dict(taps=dict(pooled=dict(weights='uniform'))))
