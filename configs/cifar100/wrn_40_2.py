"""Wide ResNet 40-2 alone."""

_base_ = 'wrn_16_2.py'

model = dict(backbone=dict(depth=40))
