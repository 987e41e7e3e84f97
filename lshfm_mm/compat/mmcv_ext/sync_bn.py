"""Steps of a batch normalisation over several processes.

B, C, S: samples, channels and pixels of one process. Statistics are (C,), in
float32; between the steps mmcv's Python averages them over the processes.
"""

import torch
from torch import Tensor


def sync_bn_forward_mean(input: Tensor, mean: Tensor) -> None:
    """Write the means of (B, C, S) to ``mean``, (C,)."""
    mean.copy_(input.float().mean((0, 2)))


def sync_bn_forward_var(input: Tensor, mean: Tensor, var: Tensor) -> None:
    """Write the variances around ``mean``, (C,), to ``var``, (C,)."""
    var.copy_((input.float() - mean[:, None]).square().mean((0, 2)))


def sync_bn_forward_output(
    input: Tensor,
    mean: Tensor,
    var: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    norm: Tensor,
    std: Tensor,
    output: Tensor,
    eps: float,
    momentum: float | Tensor,
    group_size: int,
) -> None:
    """Normalise (B, C, S) into ``norm``, scale that into ``output``.

    ``std``, (C,), gets the deviations. The running statistics, (C,), move by
    ``momentum``, with the unbiased variance of ``group_size`` processes.
    """
    std.copy_((var + eps).sqrt())
    norm.copy_((input.float() - mean[:, None]) / std[:, None])
    if weight is None or bias is None:
        output.copy_(norm)
    else:
        output.copy_(norm * weight[:, None] + bias[:, None])
    if running_mean is not None and running_var is not None:
        count = input.shape[0] * input.shape[2] * group_size
        unbiased = var * count / (count - 1) if count > 1 else var
        running_mean.copy_(torch.lerp(running_mean, mean, momentum))
        running_var.copy_(torch.lerp(running_var, unbiased, momentum))


def sync_bn_backward_param(
    grad_output: Tensor, norm: Tensor, grad_weight: Tensor, grad_bias: Tensor
) -> None:
    """Write the gradients of weight and bias, each (C,)."""
    grad = grad_output.float()
    grad_weight.copy_((grad * norm).sum((0, 2)))
    grad_bias.copy_(grad.sum((0, 2)))


def sync_bn_backward_data(
    grad_output: Tensor,
    weight: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    norm: Tensor,
    std: Tensor,
    grad_input: Tensor,
) -> None:
    """Write the gradient of the input, (B, C, S), to ``grad_input``."""
    count = norm.shape[0] * norm.shape[2]
    shared = grad_weight[:, None] * norm + grad_bias[:, None]
    grad = grad_output.float() - shared / count
    grad_input.copy_(weight[:, None] * grad / std[:, None])
