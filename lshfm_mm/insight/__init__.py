"""What students have learnt of their teacher, measured and shown."""

from .analysis import analyze
from .report import write_report

__all__ = ['analyze', 'write_report']
