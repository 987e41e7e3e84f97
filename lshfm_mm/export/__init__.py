"""The student as a plain model."""

from .student import export_student

__all__ = ['export_student']
