"""LSHL2 in one stage: r101 -> mobilenetv2, max pooling."""

_base_ = 'r101_mobilenetv2_max_lshfm.py'

load_from = None
