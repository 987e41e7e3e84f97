"""Files of weights: fetched, read without running them, looked through.

``field`` is everywhere the setting that names a file, for messages, and
``checkpoint`` a file or URL.
"""

import re
from collections import Counter
from collections.abc import Mapping
from http.client import HTTPException
from importlib import import_module
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from urllib.parse import urlparse

import torch
from filelock import FileLock
from torch import Tensor
from torch.hub import download_url_to_file, get_dir
from torch.serialization import get_unsafe_globals_in_checkpoint

from ..errors import NAMED_KEYS, ConfigError, few
from .files import local_file
from .safe_classes import declare_safe_classes

REMOTE = ('http://', 'https://')
# The first digits of the SHA-256; not a date.
HASH = re.compile(r'-(?!20\d{6}\.)([a-f0-9]{8,})\.')
# Where files keep their weights, the first first: as MMEngine has it, as Swin,
# DeiT, ConvNeXt and DETR, as DINO, as timm and others.
WRAPPERS = (
    *('state_dict', 'model', 'model_state_dict', 'teacher', 'student'),
    *('ema', 'model_ema', 'state_dict_ema', 'module', 'net', 'params'),
)
# What DDP and torch.compile put into names.
WRAPPED = re.compile(r'^(?:module\.)+|_orig_mod\.')


def load(field: str, checkpoint: str, map_location: Any = 'cpu') -> Any:
    """Read a file of weights, never running code of it.

    Whatever ``TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD`` says.

    Raises:
        ConfigError: If there is no such file, it cannot be read, or it holds
            what would run.
    """
    remote = checkpoint.startswith(REMOTE)
    path = (download if remote else local_file)(field, checkpoint)
    try:
        if path.suffix == '.safetensors':
            return import_module('safetensors.torch').load_file(path)
        declare_safe_classes()  # OneDL's loader withdraws them
        return torch.load(path, map_location, weights_only=True)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f'{field}: {checkpoint} needs a package that is not installed; '
            f'pip install safetensors, or give a .pth file'
        ) from error
    except Exception as error:  # torch raises many kinds for a broken file
        code = code_in(path)
        if code:
            raise ConfigError(
                f'{field}: {checkpoint} holds {few(code)}, which would run '
                f'when loaded, and has not; if you trust it, let the tool '
                f'that made it save its state_dict alone, as plain tensors'
            ) from error
        reason = _first_line(error)
        if isinstance(error, UnpicklingError):  # torch's advice is to run it
            reason = 'not without running code in it'
        again = f'delete {path} to fetch it again, or ' if remote else ''
        raise ConfigError(
            f'{field}: {checkpoint} is not a readable checkpoint '
            f'({reason}); {again}give a .pth file saved by MMEngine or '
            f'torch.save'
        ) from error


def _first_line(error: Exception) -> str:
    """What of an error fits into a message."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:120]


def download(field: str, url: str) -> Path:
    """Download a file into the cache of torch and MMEngine, once.

    It is there whole or not at all, and only if it has the hash in its name.
    Of several processes of a machine one downloads, and the others wait.

    Raises:
        ConfigError: If it cannot be downloaded, or has another hash.
    """
    path = Path(get_dir(), 'checkpoints', Path(urlparse(url).path).name)
    if path.is_file():  # the cache may be read-only
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    digits = HASH.search(path.name)
    with FileLock(f'{path}.lock'):
        if path.is_file():
            return path
        try:
            download_url_to_file(url, str(path), digits and digits[1])
        except (OSError, HTTPException) as error:
            raise ConfigError(
                f'{field}: {url} could not be downloaded ({error}); fetch it '
                f'elsewhere and give its path'
            ) from error
        except RuntimeError as error:  # of the hash
            raise ConfigError(
                f'{field}: {url} is not the file that its name tells '
                f'({error}); try again, or fetch it elsewhere and give its '
                f'path'
            ) from error
    return path


def code_in(path: Path) -> list[str]:
    """Name what a file of ``torch.save`` would call or build when loaded.

    Returns:
        list[str]: Functions and classes, as ``module.name``, but for those
        that torch takes for safe; none of a file in the format before torch
        1.6, or in another one.
    """
    try:
        return sorted(get_unsafe_globals_in_checkpoint(path))
    except Exception:  # torch raises many kinds for a broken file
        return []


def read_state_dict(field: str, checkpoint: str) -> dict[str, Tensor]:
    """Read the weights in a checkpoint, on the CPU, running no code of it.

    Raises:
        ConfigError: If there is no such file or it is no checkpoint.
    """
    content = read_checkpoint(field, checkpoint)
    weights = weights_in(content)
    if not weights:
        raise ConfigError(
            f'{field}: {checkpoint} holds no weights; its keys are '
            f'{list(content)[:NAMED_KEYS]}; give a .pth file saved by '
            f'MMEngine or torch.save'
        )
    return weights


def weights_in(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """Find the weights in what a file holds, named as in their model."""
    found = find_weights(content)
    return {WRAPPED.sub('', key): value for key, value in found.items()}


def find_weights(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """Find the weights in what a file holds, as they are named there."""
    for part in map(content.get, WRAPPERS):
        if isinstance(part, Mapping) and (weights := find_weights(part)):
            return weights
    return {str(k): v for k, v in content.items() if isinstance(v, Tensor)}


def weights_below(
    prefix: str, state: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The weights of a state dict whose names have a prefix, without it."""
    return {
        key.removeprefix(prefix): value
        for key, value in state.items()
        if key.startswith(prefix)
    }


def prefix_of(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str:
    """What stands before most of a model's own names in a state dict.

    Of a distillation it is 'architecture.'; of what has a teacher and a
    student, as of semi-supervised training, 'teacher.'.
    """
    counts = Counter({'': 0})
    for key, value in state.items():
        parts = key.split('.')
        for start in range(len(parts)):
            name = '.'.join(parts[start:])
            if name in own and own[name].shape == value.shape:
                counts[key.removesuffix(name)] += 1
    return min(counts, key=lambda x: (-counts[x], 'student' in x, x))


def read_checkpoint(field: str, checkpoint: str) -> dict[str, Any]:
    """Read a checkpoint, on the CPU, never running code of it.

    Raises:
        ConfigError: If there is no such file or it is no checkpoint.
    """
    content = load(field, checkpoint)
    if not isinstance(content, Mapping):
        raise ConfigError(
            f'{field}: {checkpoint} holds a {type(content).__name__}, not a '
            f'checkpoint; give a .pth file with a state dict'
        )
    return dict(content)


def check_finite(
    field: str, checkpoint: str, state: Mapping[str, Any]
) -> None:
    """Raise where weights are not finite, as a diverged training leaves them.

    Raises:
        ConfigError: With the first tensor that has such a value.
    """
    for key, value in state.items():
        if isinstance(value, Tensor) and not value.isfinite().all():
            count = int((~value.isfinite()).sum())
            raise ConfigError(
                f'{field}: {checkpoint} has NaN or infinity in {count} of '
                f'{value.numel()} values of {key}; its training diverged, '
                f'take an earlier checkpoint'
            )


def save(content: Any, path: Path) -> None:
    """Save with ``torch.save``, inside :func:`atomic_write`.

    Raises:
        ConfigError: If the disk is full or cannot be written.
    """
    try:
        torch.save(content, path)
    except (OSError, RuntimeError) as error:  # of torch's own writer
        raise ConfigError(
            f'out: nothing can be written to {path.parent} '
            f'({_first_line(error)}); look for free space, or give another '
            f'folder'
        ) from error
