"""bfloat16 autocast where MMEngine's ``AmpOptimWrapper`` does not run."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.optim import OptimWrapper
from mmrazor.registry import OPTIM_WRAPPERS
from torch import nn

from ..compat.operators import (
    instead_of_compiled,
    layers_with_compiled_operators,
)
from ..errors import ConfigError


@OPTIM_WRAPPERS.register_module()
class BFloat16OptimWrapper(OptimWrapper):
    """Optimiser wrapper that runs the model under bfloat16 autocast.

    On any device that autocast knows, the CPU among them. bfloat16 has the
    range of float32, so that no loss needs to be scaled. The model is put
    into channels-last format, which makes bfloat16 convolutions on a CPU
    without instructions for them three times faster; a teacher has
    ``teacher_channels_last`` for that.

    Args:
        kwargs: Arguments of MMEngine's ``OptimWrapper``.

    Raises:
        ConfigError: At the first step of a model with operators of a
            compiled mmcv; on a CPU, where a padded convolution trains on a
            map that is narrower than its stride, for which oneDNN's bfloat16
            gradients may hold uninitialised memory.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._is_channels_last = False

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Autocast the forward pass of a step."""
        if not self._is_channels_last:
            for name, module in layers_with_compiled_operators(model):
                raise ConfigError(
                    f'optim_wrapper.type: BFloat16OptimWrapper cannot train '
                    f'{name}, a {type(module).__name__}: operators of a '
                    f'compiled mmcv know no bfloat16, and no channels-last '
                    f'maps; use OptimWrapper, or those on torchvision: '
                    f'{instead_of_compiled()}'
                )
            for module in model.modules():
                if isinstance(module, nn.Conv2d) and module.stride[1] > 1:
                    module.register_forward_pre_hook(_refuse_narrow_maps)
            model.to(memory_format=torch.channels_last)
            self._is_channels_last = True
        device = next(model.parameters()).device.type
        with super().optim_context(model):
            with torch.autocast(device, dtype=torch.bfloat16):
                yield


def _refuse_narrow_maps(
    module: nn.Conv2d, inputs: tuple[torch.Tensor]
) -> None:
    (x,) = inputs
    is_trained = torch.is_grad_enabled() and module.weight.requires_grad
    is_half = x.device.type == 'cpu' and torch.is_autocast_enabled('cpu')
    is_padded = module.padding not in ('valid', (0, 0))
    is_narrow = x.shape[-1] < module.stride[1]
    if is_trained and is_half and is_padded and is_narrow:
        raise ConfigError(
            f'optim_wrapper.type: BFloat16OptimWrapper cannot train {module} '
            f'on a map of {tuple(x.shape[-2:])} pixels: its gradients may be '
            f'wrong on a CPU; use larger images, or OptimWrapper'
        )
