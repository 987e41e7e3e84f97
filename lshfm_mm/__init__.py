"""Distilling knowledge by mimicking features, on the OpenMMLab stack.

Importing this package registers all its components, so that a config needs
``custom_imports = dict(imports=['lshfm_mm'])`` and nothing else. Where torch
is, but no package of the stack, ``lshfm_mm.losses.functional`` works alone.
"""

import sys
from pathlib import Path

from .compat import stacks
from .utils.shipped import shipped
from .version import __version__

__all__ = ['__version__']

# pip knows what we need, a clone does not. An error with a name is told in one
# line by python -m.
if sys.version_info < (3, 10):  # noqa: UP036
    raise ImportError(
        f'this is Python {sys.version_info[0]}.{sys.version_info[1]}, '
        f'lshfm_mm needs 3.10 or later; name another one, for example '
        f'"make env PYTHON=python3.11"',
        name=__name__,
    )


def _starts_a_tool() -> bool:
    """Whether a tool of ours is what runs.

    It imports ``components`` itself, once its arguments are right, for that
    takes seconds; the doctor and the installer must run where it fails. While
    Python locates the module of ``-m NAME``, ``sys.argv[0]`` is ``-m``, and
    NAME stands before the arguments, alone or in one word with the option.
    """
    if sys.argv[:1] == ['-m']:
        name = sys.orig_argv[-len(sys.argv)]
        if name.startswith('-'):
            name = name.partition('m')[2]
        return name in ('lshfm_mm', 'lshfm_mm.doctor')
    main = sys.modules['__main__']
    if main.__name__ != '__main__' or not getattr(main, '__file__', None):
        return False  # a worker of a tool registers at once
    tools = shipped('tools').resolve()
    return Path(str(main.__file__)).resolve().parent == tools


# With no part of the stack there is the maths; with some of it the rest has
# been forgotten.
if stacks.is_begun() and not _starts_a_tool():
    if error := stacks.lack():
        raise ImportError(error, name=__name__)

    from . import components

    __all__ += ['components']
