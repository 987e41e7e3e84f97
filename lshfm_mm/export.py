"""The student alone, as a plain checkpoint of its own package.

The file holds tensors and plain Python only: unmodified mmdet or mmpretrain
loads it with the student's own config, with ``weights_only=True`` and without
this package.
"""

import copy
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from torch import Tensor

from .errors import ConfigError
from .teacher import model_config, read_checkpoint
from .version import __version__

STUDENT = 'architecture.'


def student_state_dict(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Take the student out of the state dict of a distillation.

    Args:
        state (dict[str, Tensor]): State dict of an algorithm; or of a plain
            model, which is its own student.

    Returns:
        dict[str, Tensor]: State dict of the student.
    """
    student = {
        key.removeprefix(STUDENT): value
        for key, value in state.items()
        if key.startswith(STUDENT)
    }
    return student or dict(state)


def student_config(cfg: Config) -> Config:
    """Put the student in the place of the algorithm in a config.

    Args:
        cfg (Config): Config of a distillation, or of a plain model.

    Returns:
        Config: A copy with the student as its model; a plain config is
        returned as it is.
    """
    if 'architecture' not in cfg.model:
        return cfg
    cfg = copy.deepcopy(cfg)
    cfg.model = model_config('architecture', cfg.model.architecture)
    return cfg


def export_student(checkpoint: str, out: str, force: bool = False) -> None:
    """Write the student of a training checkpoint as a plain checkpoint.

    Args:
        checkpoint (str): File or URL of a training checkpoint.
        out (str): The file to write; it is written whole or not at all.
        force (bool): Whether ``out`` may be overwritten. Defaults to False.

    Raises:
        ConfigError: If the checkpoint cannot be read or has no weights, or
            ``out`` exists and ``force`` is False.
    """
    target = Path(out)
    if target.exists() and not force:
        raise ConfigError(
            f'out: {out} exists; give another name or --force to overwrite'
        )
    content = read_checkpoint('checkpoint', checkpoint)
    state = content.get('state_dict')
    if not isinstance(state, Mapping) or not state:
        raise ConfigError(
            f'checkpoint: {checkpoint} has no state_dict; give a checkpoint '
            f'that MMEngine saved'
        )
    student = {
        key: value.detach().cpu().clone()
        for key, value in student_state_dict(state).items()
    }
    meta = content.get('meta') or {}
    plain = {
        'dataset_meta': _plain(meta.get('dataset_meta') or {}),
        'epoch': meta.get('epoch'),
        'iter': meta.get('iter'),
        'lshfm_mm_version': __version__,
    }
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + '.partial')
    try:
        torch.save({'meta': plain, 'state_dict': student}, partial)
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def _plain(value: Any) -> Any:
    """Rebuild a value from builtin types, so that no class is needed."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value.item() if hasattr(value, 'item') else value
