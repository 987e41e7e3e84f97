"""Connectors: what is done to features before the losses compare them.

Those of MMRazor (``TorchNNConnector`` and its kin) work as well.
"""

from .conv_connector import ConvConnector
from .linear_connector import LinearConnector
from .resample_connector import ResampleConnector
from .tokens_to_map import TokensToMap

__all__ = [
    'ConvConnector',
    'LinearConnector',
    'ResampleConnector',
    'TokensToMap',
]
