"""LSHL2 on all samples: resnet50 -> mobilenetv2."""

_base_ = 'resnet50_mobilenetv2_lshfm.py'

model = dict(distiller=dict(taps=dict(pooled=dict(weights='uniform'))))
