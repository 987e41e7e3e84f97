"""LSHL2 on all samples: wrn_40_2 -> wrn_40_1."""

_base_ = 'wrn_40_2_wrn_40_1_lshfm.py'

model = dict(distiller=dict(taps=dict(pooled=dict(weights='uniform'))))
