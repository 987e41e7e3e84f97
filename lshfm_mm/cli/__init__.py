"""What the command-line tools share."""

import sys

from ..compat import stacks

if error := stacks.lack():
    sys.exit(f'error: {error}')

from .training import (
    audit_options,
    evaluate_teacher,
    prepare_training,
    start_processes,
)
from .upstream import fit_machine, parse_names, run_main, upstream_tool

__all__ = [
    'audit_options',
    'evaluate_teacher',
    'fit_machine',
    'parse_names',
    'prepare_training',
    'run_main',
    'start_processes',
    'upstream_tool',
]
