"""The teacher: built, loaded strictly, frozen, and kept out of the student."""

from collections.abc import Mapping
from typing import Any

from mmcv.ops import MaskedConv2d
from mmengine.logging import print_log
from mmengine.model import BaseModel
from mmrazor.registry import MODELS
from torch import Tensor, nn

from ..errors import ConfigError, check_bools, few
from ..utils.checkpoints import (
    check_finite,
    prefix_of,
    read_state_dict,
    weights_below,
)
from ..utils.configs import model_config
from ..utils.rng import forked_rng
from .execution import TeacherExecution
from .frozen import FrozenTeacher
from .settings import TeacherSettings


def build_teacher(settings: TeacherSettings) -> FrozenTeacher:
    """Build a teacher and load its weights.

    Args:
        settings (TeacherSettings): Its model, see :func:`model_config`, may
            be one that already has its weights, and needs no ckpt then.

    Returns:
        FrozenTeacher: The teacher.

    Raises:
        ConfigError: If no weights are given, the file is absent or no
            checkpoint, its keys do not fit, or a setting is not known.
    """
    model, field = settings.model, settings.field('ckpt')
    check_bools({settings.field('strict'): settings.strict})
    execution = TeacherExecution(settings)
    origin = 'a model with the weights that it has'
    if not isinstance(model, BaseModel):
        cfg = model_config(settings.field('model'), model)
        if settings.ckpt is None:
            raise ConfigError(
                f'{field}: is None, the teacher would be random; give '
                f'the file or URL of its weights'
            )
        with forked_rng():
            model = MODELS.build(cfg)
    if settings.ckpt is not None:
        origin = load_teacher(model, settings.ckpt, settings.strict, field)
        print_log(f'{settings.label}: {origin}', 'current')
    unmask(model)
    return FrozenTeacher(model, origin, execution)


def unmask(model: nn.Module) -> None:
    """Have guided anchoring's convolutions see all pixels of all images.

    In eval mode they skip pixels to save time, and take one image at a time.
    """
    for layer in model.modules():
        if isinstance(layer, MaskedConv2d):
            layer.register_forward_pre_hook(_without_mask, with_kwargs=True)


def _without_mask(
    layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return args[:1], {}


def load_teacher(
    model: nn.Module,
    checkpoint: str,
    strict: bool = True,
    field: str = 'teacher_ckpt',
) -> str:
    """Load a teacher's weights; say how many keys of which file.

    Where it is not strict, missing or misshapen keys are but a warning. That
    none fits is always an error.

    Raises:
        ConfigError: If the file is absent, no checkpoint, does not fit, or
            has a weight that is no finite number.
    """
    state = read_state_dict(field, checkpoint)
    own = model.state_dict()
    prefix = prefix_of(own, state)
    state = weights_below(prefix, state)
    if prefix:
        checkpoint = f'{prefix}* of {checkpoint}'
    if not own.keys() & state.keys():  # of a part, as timm's of a backbone
        part = prefix_of(state, own)
        state = {f'{part}{key}': value for key, value in state.items()}
    check_finite(field, checkpoint, state)
    fits = {
        key: value
        for key, value in state.items()
        if key in own and value.shape == own[key].shape
    }
    if len(fits) < len(own):
        message = f'{field}: {_misfit(checkpoint, own, state)}'
        if strict or not fits:
            raise ConfigError(message)
        print_log(message, 'current', level=30)
    model.load_state_dict(fits, strict=False)
    left = len(state) - len(fits)
    return f'loaded {len(fits)} of {len(own)} keys from {checkpoint}' + (
        f', {left} keys of the file not used' if left else ''
    )


def _misfit(
    checkpoint: str, own: Mapping[str, Tensor], state: Mapping[str, Tensor]
) -> str:
    """How a file differs from a model, and what may mend it."""
    missing = [key for key in own if key not in state]
    misshapen = [
        f'{key} {tuple(state[key].shape)} for {tuple(value.shape)}'
        for key, value in own.items()
        if key in state and state[key].shape != value.shape
    ]
    faults = {'missing': missing, 'misshapen': misshapen}
    if missing:
        others = [key for key in state if key not in own]
        faults['others in their place'] = others
    parts = [f'{len(x)} {kind}: {few(x)}' for kind, x in faults.items() if x]
    return (
        f'{checkpoint} does not fit the teacher, of {len(own)} keys '
        f'{"; ".join(parts)}; give the checkpoint of this very teacher '
        f'config'
    )
