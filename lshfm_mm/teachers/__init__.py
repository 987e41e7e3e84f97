"""The teacher: built, run and kept out of the student."""

from .guest import build_teacher

__all__ = [
    'build_teacher',
]
