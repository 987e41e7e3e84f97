"""What MMEngine is told at our import, and how our tools patch it.

Importing lshfm_mm declares and registers only. What replaces parts of
MMEngine is called by our tools, and by :mod:`lshfm_mm.compat.patched_mmengine`
for a config that wants it with another tool.
"""

from functools import cache
from types import ModuleType
from typing import Any

import torch
from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.device import utils
from mmengine.logging import print_log
from mmengine.runner import checkpoint

from ..utils.checkpoints import REMOTE, find_weights, load
from ..utils.shipped import shipped


def _load(filename: str, map_location: Any = None, *_: Any, **__: Any) -> Any:
    """Stand for MMEngine's loaders of files and of URLs.

    MMEngine looks for weights under 'state_dict' and nowhere else.
    """
    _say_once()
    content = load('checkpoint', filename, map_location)
    if isinstance(content, dict) and 'state_dict' not in content:
        content['state_dict'] = find_weights(content)
    return content


@cache
def _say_once() -> None:
    print_log(
        "lshfm_mm loads weights in MMEngine's place: code in them never runs",
        'current',
    )


class _SafeTorch(ModuleType):
    """Stands for torch where MMEngine loads checkpoints: it runs no code."""

    @staticmethod
    def load(file: Any, map_location: Any = None, **kwargs: Any) -> Any:
        if isinstance(file, str):
            return _load(file, map_location)
        _say_once()
        return torch.load(file, map_location, weights_only=True)

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


def patch_loaders() -> None:
    """Let MMEngine read files and URLs without running what they hold.

    It loads ``init_cfg``, ``load_from`` and what is resumed, with torch's
    default, which ``TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD`` turns round, and URLs
    with ``weights_only=False`` and without a look at their hash; on OneDL's
    stack it runs what torch has refused. The first file that is read so is
    said to be, in the log.
    """
    schemes = checkpoint.CheckpointLoader
    schemes.register_scheme('', _load, force=True)
    schemes.register_scheme(REMOTE, _load, force=True)
    # Those of torchvision:// and open-mmlab:// call it by its name.
    checkpoint.load_from_http = _load
    # Those of buckets, and of names that stand for a file.
    checkpoint.torch = _SafeTorch('torch')
    # OneDL's way to load: it declares getattr safe, and what we have declared
    # it withdraws.
    if hasattr(checkpoint, '_safe_torch_load'):
        checkpoint._safe_torch_load = checkpoint.torch.load


def patch_device() -> None:
    """Let MMEngine compute on the CPU of a Mac, not on its GPU (MPS).

    MPS has no float64, which sums of mimicking are made in.
    """
    if utils.DEVICE == 'mps':
        utils.DEVICE = 'cpu'
        print_log(
            'lshfm_mm lets MMEngine compute on the CPU: MPS has no float64',
            'current',
        )


def register_config_names() -> None:
    """Let ``'lshfm_mm::path'`` name our configs, as ``'mmdet::path'`` does.

    MMEngine knows its own packages only. A module of its folder stands for the
    package: of an editable installation MMEngine would look for the configs
    where the metadata are; a module it finds by import. What a base of ours
    holds belongs to the config's default scope, mmdet or mmpretrain, as in a
    base file.
    """
    MODULE2PACKAGE['lshfm_mm'] = 'lshfm_mm.version'
    find = Config._get_cfg_path

    def find_ours(cfg_path: str, filename: str) -> tuple[str, str | None]:
        package, _, name = cfg_path.rpartition('::')
        if package == 'lshfm_mm':
            return str(shipped('configs') / name), None
        return find(cfg_path, filename)

    Config._get_cfg_path = staticmethod(find_ours)
