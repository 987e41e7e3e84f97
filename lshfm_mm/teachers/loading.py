"""The teacher: built, loaded strictly, frozen, and kept out of the student."""

import copy
from collections.abc import Mapping
from typing import Any

from mmcv.ops import MaskedConv2d
from mmengine.logging import print_log
from mmengine.model import BaseModel
from mmrazor.registry import MODELS
from torch import Tensor, nn

from ..errors import ConfigError, few
from ..utils.checkpoints import (
    check_finite,
    prefix_of,
    read_state_dict,
    weights_below,
)
from ..utils.configs import model_config
from ..utils.rng import forked_rng


class FrozenTeacher:
    """Holds a module that belongs to nobody's module tree.

    Args:
        model (BaseModel): The module; it is frozen and set to eval mode.
        origin (str): Where its weights come from, in words.

    Attributes:
        owned (bool): Whether the module moves with the holder's host.
        unneeded (list[nn.Conv2d], optional): Layers that need not run; None
            where they have not been looked for.
    """

    owned = True
    unneeded: list[nn.Conv2d] | None = None

    def __init__(self, model: BaseModel, origin: str) -> None:
        self.model = model.requires_grad_(False).eval()
        self.data_preprocessor = model.data_preprocessor
        self.origin = origin

    def __deepcopy__(self, memo: dict[int, Any]) -> 'FrozenTeacher':
        """Share the module: a copy of the host (EMA) needs no second one."""
        shared = copy.copy(self)
        shared.owned = False
        return shared

    def eval(self) -> None:
        """Undo what others do to a teacher in training and validation.

        MMRazor's loop of validation gives it the student's preprocessor.
        """
        self.model.eval()
        self.model.data_preprocessor = self.data_preprocessor


def build_teacher(
    teacher: Mapping[str, Any] | str | BaseModel,
    checkpoint: str | None,
    strict: bool = True,
) -> FrozenTeacher:
    """Build a teacher and load its weights.

    Args:
        teacher (dict | BaseModel): See :func:`model_config`; or a model that
            already has its weights.
        checkpoint (str, optional): File or URL of its weights.
        strict (bool): Whether missing or misshapen keys are an error.

    Returns:
        FrozenTeacher: The teacher.

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
    return FrozenTeacher(model, origin)


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
    model: nn.Module, checkpoint: str, strict: bool = True
) -> str:
    """Load a teacher's weights; say how many keys of which file.

    Where it is not strict, missing or misshapen keys are but a warning. That
    none fits is always an error.

    Raises:
        ConfigError: If the file is absent, no checkpoint, does not fit, or
            has a weight that is no finite number.
    """
    state = read_state_dict('teacher_ckpt', checkpoint)
    own = model.state_dict()
    prefix = prefix_of(own, state)
    state = weights_below(prefix, state)
    if prefix:
        checkpoint = f'{prefix}* of {checkpoint}'
    if not own.keys() & state.keys():  # of a part, as timm's of a backbone
        part = prefix_of(state, own)
        state = {f'{part}{key}': value for key, value in state.items()}
    check_finite('teacher_ckpt', checkpoint, state)
    fits = {
        key: value
        for key, value in state.items()
        if key in own and value.shape == own[key].shape
    }
    if len(fits) < len(own):
        message = _misfit(checkpoint, own, state)
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
        f'teacher_ckpt: {checkpoint} does not fit the teacher, of {len(own)} '
        f'keys {"; ".join(parts)}; give the checkpoint of this very teacher '
        f'config'
    )
