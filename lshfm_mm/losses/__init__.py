"""Losses that make one feature mimic another."""

from ..compat import stacks
from .functional import l2_loss, lsh_loss

__all__ = ['l2_loss', 'lsh_loss']

if stacks.is_begun():  # what is registered; else there is the maths
    from .l2 import FeatureL2Loss, RelativeL2Loss
    from .lsh import LSHLoss

    __all__ += ['FeatureL2Loss', 'LSHLoss', 'RelativeL2Loss']
