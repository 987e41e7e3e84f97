"""Shapes: small generated images, to detect and to classify shapes in."""

from .forms import CLASSES
from .write import generate

__all__ = ['CLASSES', 'generate']
