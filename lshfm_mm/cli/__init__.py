"""What the command-line tools share."""

from .training import (
    audit_options,
    evaluate_teacher,
    prepare_training,
    start_processes,
)
from .upstream import named, own_flags, run, upstream_tool

__all__ = [
    'audit_options',
    'evaluate_teacher',
    'named',
    'own_flags',
    'prepare_training',
    'run',
    'start_processes',
    'upstream_tool',
]
