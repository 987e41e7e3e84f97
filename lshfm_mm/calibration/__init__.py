"""The bias of hash functions, from what the teacher sees."""

from .calibrate import calibrate

__all__ = [
    'calibrate',
]
