"""Makes MMRazor import on today's torch."""

import importlib
import logging
import sys
from types import ModuleType

import mmcv
import torch
from mmengine.utils import digit_version

from . import stacks

# The newest that MMRazor lets itself be imported with. Of OneDL's mmcv, which
# is newer, all that it uses is there.
NEWEST_MMCV = '2.1.0'
# MMRazor's quantization uses private names that torch 2.0 removed, and
# importing any part of MMRazor's models imports it. Distillation needs none.
QUANTIZATION = (
    'mmrazor.structures.quantization',
    'mmrazor.models.quantizers',
    'mmrazor.models.observers',
    'mmrazor.models.fake_quants',
    'mmrazor.models.algorithms.quantization',
    'mmrazor.engine.runner.quantization_loops',
)
logger = logging.getLogger(__name__)


class _Absent(ModuleType):
    """Stands for a module of MMRazor's quantization.

    Its names can be imported, as MMRazor's own packages do, but not used.
    """

    __path__: list[str] = []
    __all__: list[str] = []

    def __getattr__(self, name: str) -> type:
        if name.startswith('__'):
            raise AttributeError(name)
        return type(name, (_Unusable,), {'__module__': self.__name__})


class _Unusable:
    """A class of MMRazor's quantization that cannot be used."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        version = stacks.version('mmrazor')
        raise ImportError(
            f'{type(self).__name__}: MMRazor {version} cannot quantize with '
            f'torch {torch.__version__}; use torch<2.0 for quantization'
        )


def patch_mmrazor() -> bool:
    """Make MMRazor importable; return whether quantization needs stubs."""
    _import_mmrazor()
    try:
        importlib.import_module(QUANTIZATION[0])
        return False
    except ImportError as error:
        sys.modules.update({name: _Absent(name) for name in QUANTIZATION})
        logger.debug(
            'MMRazor quantization cannot be imported (%s); its modules %s '
            'were replaced by stubs',
            error,
            ', '.join(QUANTIZATION),
        )
        return True


def _import_mmrazor() -> None:
    """Import MMRazor, and let it see no newer mmcv than it knows."""
    version = mmcv.__version__
    if digit_version(version) > digit_version(NEWEST_MMCV):
        mmcv.__version__ = NEWEST_MMCV
        logger.debug('MMRazor was told mmcv %s, not %s', NEWEST_MMCV, version)
    try:
        importlib.import_module('mmrazor')
    finally:
        mmcv.__version__ = version
