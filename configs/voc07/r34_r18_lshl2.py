"""LSHL2 in one stage: r34 -> r18."""

_base_ = 'r34_r18_lshfm.py'

load_from = None
