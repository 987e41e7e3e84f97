"""LSHL2 in one stage: r101 -> r50."""

_base_ = 'r101_r50_lshfm.py'

load_from = None
