"""What the operators share."""

import functools
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torchvision  # noqa: F401  registers torch.ops.torchvision
from torch import Tensor

OPS = torch.ops.torchvision
FAR = 2.0**20  # pixels; no map is so large
Function = TypeVar('Function', bound=Callable[..., Any])


def widen(*tensors: Tensor) -> list[Tensor]:
    """Tensors in float32 or better, since kernels lack half or bfloat16.

    Args:
        tensors (Tensor): Tensors of any shape.

    Returns:
        list[Tensor]: The same, or copies in float32.
    """
    return [t.to(torch.promote_types(t.dtype, torch.float32)) for t in tensors]


def outside(positions: Tensor) -> Tensor:
    """Move what is no finite position out of all maps, where samples are 0.

    The kernels would read memory at NaN.

    Args:
        positions (Tensor): In pixels, of any shape.

    Returns:
        Tensor: The same, finite.
    """
    return torch.nan_to_num(positions, FAR, FAR, -FAR)


def allow_nondeterministic(function: Function) -> Function:
    """Let a function run under ``torch.use_deterministic_algorithms(True)``.

    There a GPU refuses the backward passes of torchvision and of
    ``grid_sample``. mmcv's own kernels add atomically too and never refuse,
    so that mmdet's users train in this mode. Here a warning says it, once.

    Args:
        function (Callable): A backward pass.

    Returns:
        Callable: The same, with the mode switched off while it runs on a
        GPU.
    """

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        # The mode is no part of a graph, and cannot be set while tracing.
        if torch.compiler.is_compiling():
            return function(*args, **kwargs)
        mode = torch.get_deterministic_debug_mode()
        if not mode or not args[0].is_cuda:
            return function(*args, **kwargs)
        _warn()
        torch.set_deterministic_debug_mode(0)
        try:
            return function(*args, **kwargs)
        finally:
            torch.set_deterministic_debug_mode(mode)

    return run  # type: ignore[return-value]


@functools.cache
def _warn() -> None:
    warnings.warn(
        'use_deterministic_algorithms: gradients of RoI pooling, deformable '
        'convolutions and deformable attention are not deterministic on a '
        'GPU; they are computed all the same',
        stacklevel=3,
    )
