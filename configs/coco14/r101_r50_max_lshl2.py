"""LSHL2 in one stage: r101 -> r50, max pooling."""

_base_ = 'r101_r50_max_lshfm.py'

load_from = None
