"""Makes MMRazor import, and MMEngine's checkpoints load, on today's torch.

Nothing is touched where nothing is broken; MMEngine's loaders are, for they
run what is in a file from a URL, and it learns where our configs are. What
was done is logged at debug level.
"""

import importlib
import logging
import pickle
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import mmcv
import numpy as np
import torch
from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.device import utils
from mmengine.logging import HistoryBuffer
from mmengine.runner import checkpoint
from mmengine.utils import digit_version

from . import stacks
from .checkpoints import REMOTE, load_from_http, load_from_local
from .shipped import shipped

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
    """Make MMRazor and its models importable.

    Returns:
        bool: Whether stubs for quantization were needed.
    """
    _import_mmrazor()
    try:
        importlib.import_module(QUANTIZATION[0])
    except ImportError as error:
        for name in QUANTIZATION:
            sys.modules[name] = _Absent(name)
        logger.debug(
            'MMRazor quantization cannot be imported (%s); its modules %s '
            'were replaced by stubs',
            error,
            ', '.join(QUANTIZATION),
        )
        return True
    return False


def _import_mmrazor() -> None:
    """Import MMRazor, and let it see no newer mmcv than it knows."""
    found = mmcv.__version__
    if digit_version(found) > digit_version(NEWEST_MMCV):
        mmcv.__version__ = NEWEST_MMCV
        logger.debug('MMRazor was told mmcv %s, not %s', NEWEST_MMCV, found)
    try:
        importlib.import_module('mmrazor')
    finally:
        mmcv.__version__ = found


def patch_checkpoints() -> None:
    """Let ``torch.load(weights_only=True)`` read MMEngine's checkpoints.

    Exactly the classes that MMEngine writes are declared safe.
    """
    arrays = importlib.import_module(
        'numpy._core.multiarray'
        if hasattr(np, '_core')
        else 'numpy.core.multiarray'
    )
    safe: list[Any] = [HistoryBuffer, np.ndarray, np.dtype]
    safe += {type(np.dtype(code)) for code in '?bhilqBHILQefd'}
    safe.append((_history_method, 'builtins.getattr'))
    for name in ('scalar', '_reconstruct'):
        function = getattr(arrays, name)
        # numpy 1 and 2 write different names for the same function.
        safe += [
            (function, f'numpy.core.multiarray.{name}'),
            (function, f'numpy._core.multiarray.{name}'),
        ]
    torch.serialization.add_safe_globals(safe)
    logger.debug('declared safe for torch.load: %s', safe)


class _SafeTorch(ModuleType):
    """Stands for torch where MMEngine loads checkpoints: it runs no code."""

    @staticmethod
    def load(file: Any, map_location: Any = None, **kwargs: Any) -> Any:
        if isinstance(file, str):
            return load_from_local(file, map_location)
        return torch.load(file, map_location, weights_only=True)

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


def patch_loaders() -> None:
    """Let MMEngine read files and URLs without running what they hold.

    It loads ``init_cfg``, ``load_from`` and what is resumed, with torch's
    default, which ``TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD`` turns round, and URLs
    with ``weights_only=False`` and without a look at their hash; on OneDL's
    stack it runs what torch has refused.
    """
    schemes = checkpoint.CheckpointLoader
    schemes.register_scheme('', load_from_local, force=True)
    schemes.register_scheme(REMOTE, load_from_http, force=True)
    # Those of torchvision:// and open-mmlab:// call it by its name.
    checkpoint.load_from_http = load_from_http
    # Those of buckets, and of names that stand for a file.
    checkpoint.torch = _SafeTorch('torch')
    # OneDL's way to load: it declares getattr safe, and what we have declared
    # it withdraws.
    if hasattr(checkpoint, '_safe_torch_load'):
        checkpoint._safe_torch_load = checkpoint.torch.load
    logger.debug('MMEngine loads files and URLs with weights_only=True')


def patch_device() -> None:
    """Let MMEngine compute on the CPU of a Mac, not on its GPU (MPS).

    MPS has no float64, which sums of mimicking are made in.
    """
    if utils.DEVICE == 'mps':
        utils.DEVICE = 'cpu'
        logger.debug('MMEngine computes on the CPU, for MPS has no float64')


def patch_config_names() -> None:
    """Let ``'lshfm_mm::path'`` name our configs, as ``'mmdet::path'`` does.

    MMEngine knows its own packages only. A module stands for the package:
    of an editable installation MMEngine would look for the configs where the
    metadata are; a module it finds by import. What a base of ours holds
    belongs to the config's default scope, mmdet or mmpretrain, as in a base
    file.
    """
    MODULE2PACKAGE['lshfm_mm'] = __name__
    find = Config._get_cfg_path

    def find_ours(cfg_path: str, filename: str) -> tuple[str, str | None]:
        package, _, name = cfg_path.rpartition('::')
        if package == 'lshfm_mm':
            return str(shipped('configs') / name), None
        return find(cfg_path, filename)

    Config._get_cfg_path = staticmethod(find_ours)


def _history_method(owner: type, name: str) -> Callable[..., Any]:
    """Stand for ``getattr`` in a checkpoint, with one use left.

    A pickled HistoryBuffer names its statistics as attributes of its class.
    """
    if owner is not HistoryBuffer or name.startswith('_'):
        raise pickle.UnpicklingError(
            f'a checkpoint may not read the attribute {name!r} of {owner!r}'
        )
    return getattr(owner, name)
