"""What the command-line tools share.

Importing it takes some milliseconds, and the stack seconds: a tool parses its
arguments first, then calls :func:`load_stack`, and imports the rest after it.
"""

import sys

from ..compat import stacks

if error := stacks.lack():
    sys.exit(f'error: {error}')

from .arguments import check_files, parse_names, parse_upstream
from .start import load_stack, run_main

__all__ = [
    'check_files',
    'load_stack',
    'parse_names',
    'parse_upstream',
    'run_main',
]
