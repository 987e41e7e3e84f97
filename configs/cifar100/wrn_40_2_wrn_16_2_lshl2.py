"""LSHL2 on all samples: wrn_40_2 -> wrn_16_2."""

_base_ = 'wrn_40_2_wrn_16_2_lshfm.py'

model = dict(distiller=dict(taps=dict(pooled=dict(weights='uniform'))))
