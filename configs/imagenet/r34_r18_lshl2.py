"""LSHL2 on all images: r34 -> r18."""

_base_ = 'r34_r18_lshfm.py'

model = dict(distiller=dict(taps=dict(pooled='head.fc')))
