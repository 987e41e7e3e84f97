"""Losses that make one feature mimic another."""

from .functional import l2_loss, lsh_loss
from .l2 import FeatureL2Loss, RelativeL2Loss
from .lsh import LSHLoss

__all__ = [
    'FeatureL2Loss',
    'LSHLoss',
    'RelativeL2Loss',
    'l2_loss',
    'lsh_loss',
]
