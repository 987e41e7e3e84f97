"""Which parts of a student are trained."""

from collections.abc import Sequence
from typing import Any

import torch
from mmengine import dist
from torch import Tensor, nn

from ..errors import ConfigError, nearest


def check_parts(
    field: str, parts: bool | Sequence[str], model: nn.Module
) -> list[str]:
    """Names of parts of a model; True stands for all of it."""
    if parts is True:
        return ['']
    if isinstance(parts, str) or not isinstance(parts, Sequence) or not parts:
        raise ConfigError(
            f"{field}: must be True or a list of parts such as ['neck'], but "
            f'got {parts!r}'
        )
    layers = dict(model.named_modules())
    for part in parts:
        if part not in layers:
            raise ConfigError(
                f'{field}: the student has no {part!r}{nearest(part, layers)}'
            )
    return list(parts)


def is_under(name: str, parts: Sequence[str]) -> bool:
    """Whether a parameter or module is a part of a model, or lies in one."""
    return any(not x or f'{name}.'.startswith(f'{x}.') for x in parts)


def in_step(model: nn.Module, losses: dict[str, Any]) -> dict[str, Any]:
    """Give layers that did not run a gradient, of zeros, with the losses.

    The other ranks wait for it: DDP knows no rank that leaves one out.
    """
    if dist.is_distributed():
        trained = [x.sum() for x in model.parameters() if x.requires_grad]
        nothing = torch.stack(trained).sum() * 0
        name = next(x for x in losses if 'loss' in x)
        value = losses[name]
        losses[name] = (
            value + nothing if isinstance(value, Tensor) else [*value, nothing]
        )
    return losses
