"""A GPU that is not there, for tests: tensors with shapes and no values.

Torch's fake tensors compute what an operation on a GPU gives, its shape,
dtype and device, and raise where a tensor of the CPU meets one of the GPU.
Autograd asks the driver, so that only forward passes run.
"""

from typing import Any

import torch
from torch import nn
from torch._subclasses import FakeTensorMode

CUDA = torch.device('cuda')


def to_fake_cuda(value: Any, mode: FakeTensorMode) -> Any:
    """Move tensors, also in lists and tuples, to the GPU that is not there."""
    if isinstance(value, torch.Tensor):
        fake = mode.from_tensor(value.detach())
        with mode:
            return fake.to(CUDA).requires_grad_(value.requires_grad)
    if isinstance(value, list | tuple):
        return type(value)(to_fake_cuda(x, mode) for x in value)
    return value


def move_model(model: nn.Module, mode: FakeTensorMode) -> nn.Module:
    """Move a model of MMEngine, and with it what moves with it."""
    model._apply(lambda x: to_fake_cuda(x, mode))
    model._set_device(CUDA)
    return model
