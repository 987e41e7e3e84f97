"""LSHL2 on all samples: wrn_40_2 -> shufflenetv1."""

_base_ = 'wrn_40_2_shufflenetv1_lshfm.py'

model = dict(distiller=dict(taps=dict(pooled=dict(weights='uniform'))))
