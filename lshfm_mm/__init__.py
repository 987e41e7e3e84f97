"""Distilling knowledge by mimicking features, on the OpenMMLab stack.

Importing this package registers all its components, so that a config needs
``custom_imports = dict(imports=['lshfm_mm'])`` and nothing else. Where torch
is, but no package of the stack, ``lshfm_mm.losses.functional`` works alone.
"""

import sys

from .compat import stacks
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


def _is_set_up() -> bool:
    """Whether ``python -m`` is about to run the doctor or the installer.

    They must run where the rest cannot be imported. While Python locates the
    module of ``-m NAME``, ``sys.argv[0]`` is ``-m``, and NAME stands before
    the arguments, alone or in one word with the option.
    """
    if sys.argv[:1] != ['-m']:
        return False
    name = sys.orig_argv[-len(sys.argv)]
    if name.startswith('-'):
        name = name.partition('m')[2]
    package, _, tool = name.partition('.')
    tool = tool or ''.join(sys.argv[1:2])
    return package == 'lshfm_mm' and tool in ('doctor', 'install_mmcv')


# With no part of the stack there is the maths; with some of it the rest has
# been forgotten.
if not _is_set_up() and stacks.is_begun():
    if error := stacks.lack():
        raise ImportError(error, name=__name__)

    from .compat import mmengine, mmrazor
    from .utils.safe_classes import declare_safe_classes

    mmrazor.patch_mmrazor()
    declare_safe_classes()
    mmengine.register_config_names()

    from . import (
        algorithms,
        backbones,
        connectors,
        distillers,
        hooks,
        losses,
    )
    from .training import amp, audit_loop

    __all__ += [
        'algorithms',
        'amp',
        'audit_loop',
        'backbones',
        'connectors',
        'distillers',
        'hooks',
        'losses',
    ]
