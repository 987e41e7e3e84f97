"""Distilling knowledge by mimicking features, on the OpenMMLab stack.

Importing this package registers all its components, so that a config needs
``custom_imports = dict(imports=['lshfm_mm'])`` and nothing else.
"""

import sys

from .version import __version__

# ``python -m lshfm_mm.doctor`` and ``python -m lshfm_mm install_mmcv`` must
# run where the rest cannot be imported.
if not {'lshfm_mm.doctor', 'install_mmcv'}.intersection(sys.orig_argv):
    from . import compat

    compat.patch_mmrazor()
    compat.patch_checkpoints()
    compat.patch_loaders()
    compat.patch_config_names()

    from . import (
        algorithms,
        amp,
        backbones,
        distillers,
        hooks,
        losses,
        necks,
    )

__all__ = [
    '__version__',
    'algorithms',
    'amp',
    'backbones',
    'compat',
    'distillers',
    'hooks',
    'losses',
    'necks',
]
