"""The teacher: built, loaded strictly, frozen, and kept a guest.

A guest is in no state dict, checkpoint, optimizer or EMA copy, and not among
the parameters that DDP walks; it only moves where the algorithm moves.
"""

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmcv.ops import MaskedConv2d
from mmengine.config import Config, ConfigDict
from mmengine.logging import print_log
from mmengine.model import BaseModel
from mmengine.registry import MODELS as ROOT
from mmrazor.registry import MODELS
from torch import Tensor, nn

from .checkpoints import load
from .errors import ConfigError

SCOPES = ('mmrazor', 'mmdet', 'mmpretrain')
NAMED_KEYS = 5


class Guest:
    """Holds a module that belongs to nobody's module tree.

    Args:
        model (nn.Module): The module; it is frozen and set to eval mode.
        origin (str): Where its weights come from, in words.
        owned (bool): Whether the module moves with the holder's host.

    Attributes:
        unneeded (list[nn.Conv2d], optional): Layers that need not run; None
            where they have not been looked for.
    """

    unneeded: list[nn.Conv2d] | None = None

    def __init__(
        self, model: nn.Module, origin: str, owned: bool = True
    ) -> None:
        self.model = model.requires_grad_(False).eval()
        self.origin = origin
        self.owned = owned

    def __deepcopy__(self, memo: dict[int, Any]) -> 'Guest':
        """Share the module: a copy of the host (EMA) needs no second one."""
        return Guest(self.model, self.origin, owned=False)


@contextmanager
def forked_rng() -> Iterator[None]:
    """Give back all random states on leaving, as if nothing were drawn."""
    states = random.getstate(), np.random.get_state()
    cuda = torch.cuda.is_available()
    devices = [torch.cuda.current_device()] if cuda else []
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])


def model_config(field: str, model: Mapping[str, Any]) -> dict[str, Any]:
    """Complete the config of a model so that any scope can build it.

    Args:
        field (str): Where the config stands, for messages.
        model (dict): A model config, or ``dict(cfg_path=...)`` with a config
            file or a ``'package::path'`` of an OpenMMLab package.

    Returns:
        dict: A model config with its ``_scope_``.

    Raises:
        ConfigError: If the file is not there or the type is not known.
    """
    model = dict(model)
    if 'cfg_path' in model and 'type' not in model:
        return model_config(field, _model_of_file(field, model))
    if 'type' not in model:
        raise ConfigError(
            f'{field}: needs type or cfg_path, but got {sorted(model)}'
        )
    if isinstance(model['type'], str) and '_scope_' not in model:
        scope = _scope_of(model['type'])
        if scope is None:
            raise ConfigError(
                f'{field}.type: {model["type"]!r} is in none of the '
                f'registries {SCOPES}; install its package or write its '
                f'scope, as in mmdet.FasterRCNN'
            )
        model['_scope_'] = scope
    return model


def read_config(field: str, path: str) -> Config:
    """Read a config with a model, of a file or an installed package.

    Args:
        field (str): Which setting names it, for messages.
        path (str): File, or ``'package::path'``.

    Returns:
        Config: The config.

    Raises:
        ConfigError: If there is none, or it has no model.
    """
    absent = (
        f'{field}: no such file: {path}; give a config file or '
        f"'mmdet::path/in/its/configs.py'"
    )
    if '::' in path:
        try:
            config = Config.fromfile(Config._get_cfg_path(path, '')[0])
        except (FileNotFoundError, ValueError) as error:
            raise ConfigError(absent) from error
    elif Path(path).is_file():
        try:
            config = Config.fromfile(path)
        except (OSError, SyntaxError, KeyError) as error:
            reason = ' '.join(str(error).split())
            raise ConfigError(
                f'{field}: {path} cannot be read ({reason}); mend it; a base '
                f"of mmdet is 'mmdet::path/in/its/configs.py'"
            ) from error
    else:
        raise ConfigError(absent)
    if 'model' not in config:
        raise ConfigError(
            f'{field}: {path} has no model; give the config of one'
        )
    return config


def build_teacher(
    teacher: Mapping[str, Any] | BaseModel,
    checkpoint: str | None,
    strict: bool = True,
) -> Guest:
    """Build a teacher and load its weights.

    Args:
        teacher (dict | BaseModel): See :func:`model_config`; or a model that
            already has its weights.
        checkpoint (str, optional): File or URL of its weights.
        strict (bool): Whether missing or misshapen keys are an error.

    Returns:
        Guest: The teacher.

    Raises:
        ConfigError: If no weights are given, the file is absent or no
            checkpoint, or its keys do not fit.
    """
    origin = 'a model with the weights that it has'
    if isinstance(teacher, BaseModel):
        model = teacher
    else:
        cfg = model_config('teacher', teacher)
        if checkpoint is None:
            raise ConfigError(
                'teacher_ckpt: is None, the teacher would be random; give '
                'the file or URL of its weights'
            )
        with forked_rng():
            model = MODELS.build(cfg)
    if checkpoint is not None:
        origin = load_teacher(model, checkpoint, strict)
        print_log(f'teacher: {origin}', 'current')
    unmask(model)
    return Guest(model, origin)


def unmask(model: nn.Module) -> None:
    """Have guided anchoring's convolutions see all pixels of all images.

    In eval mode they skip pixels to save time, and take one image at a time.

    Args:
        model (nn.Module): Any model; changed in place.
    """
    for layer in model.modules():
        if isinstance(layer, MaskedConv2d):
            layer.register_forward_pre_hook(_without_mask, with_kwargs=True)


def _without_mask(
    layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return args[:1], {}


def load_teacher(
    model: nn.Module, checkpoint: str, strict: bool = True
) -> str:
    """Load a teacher's weights.

    Args:
        model (nn.Module): The teacher.
        checkpoint (str): File or URL.
        strict (bool): Whether missing or misshapen keys are an error, or a
            warning. That none fits is always an error.

    Returns:
        str: How many keys of which file were loaded.

    Raises:
        ConfigError: If the file is absent, no checkpoint, does not fit, or
            has a weight that is no finite number.
    """
    state = read_state_dict('teacher_ckpt', checkpoint)
    check_finite('teacher_ckpt', checkpoint, state)
    own = model.state_dict()
    missing = [key for key in own if key not in state]
    misshapen = [
        f'{key} {tuple(state[key].shape)} for {tuple(own[key].shape)}'
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    if missing or misshapen:
        message = _misfit(checkpoint, len(own), missing, misshapen, state)
        if strict or len(missing) + len(misshapen) == len(own):
            raise ConfigError(message)
        print_log(message, 'current', level=30)
    fits = {
        key: value
        for key, value in state.items()
        if key in own and value.shape == own[key].shape
    }
    model.load_state_dict(fits, strict=False)
    left = len(state) - len(fits)
    return f'loaded {len(fits)} of {len(own)} keys from {checkpoint}' + (
        f', {left} keys of the file not used' if left else ''
    )


def read_state_dict(field: str, checkpoint: str) -> dict[str, Tensor]:
    """Read the weights in a checkpoint file, never running code of it.

    Args:
        field (str): Which setting names the file, for messages.
        checkpoint (str): File or URL.

    Returns:
        dict[str, Tensor]: The state dict, on the CPU.

    Raises:
        ConfigError: If there is no such file or it is no checkpoint.
    """
    content = read_checkpoint(field, checkpoint)
    state = content.get('state_dict', content)
    if not isinstance(state, Mapping):
        state = {}
    weights = {k: v for k, v in state.items() if isinstance(v, Tensor)}
    if not weights:
        raise ConfigError(
            f'{field}: {checkpoint} holds no weights; its keys are '
            f'{list(content)[:NAMED_KEYS]}; give a .pth file saved by '
            f'MMEngine or torch.save'
        )
    return weights


def read_checkpoint(field: str, checkpoint: str) -> dict[str, Any]:
    """Read a checkpoint file, never running code of it.

    Args:
        field (str): Which setting names the file, for messages.
        checkpoint (str): File or URL.

    Returns:
        dict: What the file holds.

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

    Args:
        field (str): Which setting names the file, for messages.
        checkpoint (str): The file.
        state (dict[str, Tensor]): Its weights.

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


def inherit_weights(student: nn.Module, teacher: nn.Module) -> list[str]:
    """Start all of the student but its backbone from the teacher's weights.

    Taken are the layers that agree in name and shape. Why: a head that
    already reads the teacher's features gives mimicking them a meaning from
    the first iteration on.

    Args:
        student (nn.Module): The student; changed in place.
        teacher (nn.Module): The teacher.

    Returns:
        list[str]: Keys of the state dict that were taken.

    Raises:
        ConfigError: If nothing agrees.
    """
    taken, left = inheritable(student, teacher)
    if not taken:
        raise ConfigError(
            'inherit: student and teacher share no weight outside the '
            'backbone; set inherit=False'
        )
    other = teacher.state_dict()
    student.load_state_dict({k: other[k] for k in taken}, strict=False)
    print_log(
        f'inherit: the student starts with {len(taken)} of its '
        f'{len(taken) + len(left)} tensors outside the backbone from the '
        f'teacher: {", ".join(taken)}; its own stay: '
        f'{", ".join(left) or "none"}',
        'current',
    )
    return taken


def inheritable(
    student: nn.Module, teacher: nn.Module
) -> tuple[list[str], list[str]]:
    """Keys outside the student's backbone, by what a teacher can give.

    Args:
        student (nn.Module): The student.
        teacher (nn.Module): The teacher.

    Returns:
        tuple[list[str], list[str]]: Keys of the layers all of whose tensors
        agree in name and shape, and all others.
    """
    own, other = student.state_dict(), teacher.state_dict()
    own = {k: v for k, v in own.items() if not k.startswith('backbone.')}
    unlike = {  # layers: a bias is nothing without its weight
        key.rpartition('.')[0]
        for key, value in own.items()
        if key not in other or other[key].shape != value.shape
    }
    taken = [k for k in own if k.rpartition('.')[0] not in unlike]
    return taken, [k for k in own if k.rpartition('.')[0] in unlike]


def _model_of_file(field: str, cfg: dict[str, Any]) -> dict[str, Any]:
    path = cfg.pop('cfg_path')
    if cfg.pop('pretrained', False):
        raise ConfigError(
            f'{field}.pretrained: is True; name the weights in teacher_ckpt '
            f"or the student's init_cfg instead"
        )
    if set(cfg) - {'_scope_'}:
        raise ConfigError(
            f'{field}: beside cfg_path it has {sorted(cfg)}; write these into '
            f'the config file'
        )
    config = read_config(f'{field}.cfg_path', path)
    model = ConfigDict(config.model)
    if 'data_preprocessor' in config:  # where mmpretrain keeps it
        model.setdefault('data_preprocessor', config.data_preprocessor)
    if 'default_scope' in config:
        model.setdefault('_scope_', config.default_scope)
    return model


def _scope_of(type_name: str) -> str | None:
    """The scope that a model type names, or the first that knows it."""
    if '.' in type_name:
        return type_name.split('.')[0]
    for scope in SCOPES:
        with ROOT.switch_scope_and_registry(scope) as registry:
            if registry.scope == scope and registry.get(type_name):
                return scope
    return None


def _misfit(
    checkpoint: str,
    total: int,
    missing: list[str],
    misshapen: list[str],
    state: Mapping[str, Tensor],
) -> str:
    parts = []
    if missing:
        parts.append(f'{len(missing)} missing: {few(missing)}')
    if misshapen:
        parts.append(f'{len(misshapen)} misshapen: {few(misshapen)}')
    fix = 'give the checkpoint of this very teacher config'
    if any(key.startswith('architecture.') for key in state):
        fix = 'it is a distillation checkpoint, export its student first'
    return (
        f'teacher_ckpt: {checkpoint} does not fit the teacher, of {total} '
        f'keys {"; ".join(parts)}; {fix}'
    )


def few(names: list[str]) -> str:
    """Some names, for a message."""
    more = ', ...' if len(names) > NAMED_KEYS else ''
    return ', '.join(names[:NAMED_KEYS]) + more
