"""LSHL2 in one stage: r101 -> mobilenetv2."""

_base_ = 'r101_mobilenetv2_lshfm.py'

load_from = None
