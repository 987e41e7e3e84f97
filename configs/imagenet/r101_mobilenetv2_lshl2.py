"""LSHL2 on all images: r101 -> mobilenetv2."""

_base_ = 'r101_mobilenetv2_lshfm.py'

model = dict(distiller=dict(taps=dict(pooled='head.fc')))
