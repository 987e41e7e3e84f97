"""The teacher: built, run and kept out of the student."""

from .loading import build_teacher
from .settings import TeacherSettings

__all__ = ['TeacherSettings', 'build_teacher']
