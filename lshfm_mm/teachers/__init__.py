"""The teacher: built, run and kept out of the student."""

from .loading import build_teacher

__all__ = ['build_teacher']
