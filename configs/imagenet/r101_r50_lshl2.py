"""LSHL2 on all images: r101 -> r50."""

_base_ = 'r101_r50_lshfm.py'

model = dict(distiller=dict(taps=dict(pooled='head.fc')))
