"""Connectors: layers that map a student's feature to the teacher's width.

Those of MMRazor (``TorchNNConnector`` and its kin) work as well.
"""

from .conv_connector import ConvConnector
from .linear_connector import LinearConnector

__all__ = ['ConvConnector', 'LinearConnector']
