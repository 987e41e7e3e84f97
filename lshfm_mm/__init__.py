"""Distilling knowledge by mimicking features, on the OpenMMLab stack.

Importing this package registers all its components, so that a config needs
``custom_imports = dict(imports=['lshfm_mm'])`` and nothing else.
"""

import sys
from importlib.util import find_spec

from .version import __version__

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


if not _is_set_up():
    for _module in ('mmengine', 'mmcv', 'mmdet'):
        if find_spec(_module) is None:
            raise ImportError(
                f'{_module} is not installed; lshfm_mm needs one of its '
                f'extras, [openmmlab] or [onedl], and an mmcv: "python -m '
                f'lshfm_mm doctor" names the commands',
                name=__name__,
            )

    from .compat import mmengine, mmrazor

    mmrazor.patch_mmrazor()
    mmengine.patch_checkpoints()
    mmengine.patch_loaders()
    mmengine.patch_device()
    mmengine.patch_config_names()

    from . import (
        algorithms,
        backbones,
        connectors,
        distillers,
        hooks,
        losses,
    )
    from .training import amp, audit_loop

__all__ = [
    '__version__',
    'algorithms',
    'amp',
    'audit_loop',
    'backbones',
    'connectors',
    'distillers',
    'hooks',
    'losses',
]
