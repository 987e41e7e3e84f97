"""Shapes: small generated images, to detect and to classify shapes in."""

from .scene import CLASSES
from .write import generate

__all__ = [
    'CLASSES',
    'generate',
]
