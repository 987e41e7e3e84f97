"""Photographs under free licences, from their public sources."""

from .get import get_photographs
from .sources import SOURCES

__all__ = ['SOURCES', 'get_photographs']
