"""bfloat16 autocast where MMEngine's ``AmpOptimWrapper`` does not run."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.optim import OptimWrapper
from mmrazor.registry import OPTIM_WRAPPERS
from torch import nn


@OPTIM_WRAPPERS.register_module()
class BFloat16OptimWrapper(OptimWrapper):
    """Optimiser wrapper that runs the model under bfloat16 autocast.

    On any device that autocast knows, the CPU among them. bfloat16 has the
    range of float32, so that no loss needs to be scaled.

    Args:
        kwargs: Arguments of MMEngine's ``OptimWrapper``.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Autocast the forward pass of a step.

        Args:
            model (nn.Module): The model; it stands on one kind of device.
        """
        device = next(model.parameters()).device.type
        with super().optim_context(model):
            with torch.autocast(device, dtype=torch.bfloat16):
                yield
