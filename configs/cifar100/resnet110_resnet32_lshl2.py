"""LSHL2 on all samples: resnet110 -> resnet32."""

_base_ = 'resnet110_resnet32_lshfm.py'

model = dict(distiller=dict(taps=dict(pooled=dict(weights='uniform'))))
