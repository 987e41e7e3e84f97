"""Focal losses, https://arxiv.org/abs/1708.02002.

N: samples; C: classes; targets, (N,), are classes. To the sigmoid loss C or
more is the background, to the softmax loss an error: there the background is
a class, and mmcv's kernel reads beyond its row without one.
``weight``, (C,) or empty, weighs samples by the class of their target.
"""

import torch
from torch import Tensor

from ._shared import widen

TINY = torch.finfo(torch.float32).tiny


def sigmoid_focal_loss_forward(
    input: Tensor,
    target: Tensor,
    weight: Tensor,
    output: Tensor,
    gamma: float,
    alpha: float,
) -> None:
    """Write the losses of logits, (N, C), to ``output``, (N, C)."""
    p, is_target = _probabilities(input, target)
    positive = alpha * (1 - p).pow(gamma) * _log(p)
    negative = (1 - alpha) * p.pow(gamma) * _log(1 - p)
    loss = -torch.where(is_target, positive, negative)
    output.copy_(_weighted(loss, weight, target))


def sigmoid_focal_loss_backward(
    input: Tensor,
    target: Tensor,
    weight: Tensor,
    grad_input: Tensor,
    gamma: float,
    alpha: float,
) -> None:
    """Write the gradients of logits, (N, C), to ``grad_input``, (N, C)."""
    p, is_target = _probabilities(input, target)
    q = 1 - p
    positive = alpha * q.pow(gamma) * (q - gamma * p * _log(p))
    negative = (1 - alpha) * p.pow(gamma) * (gamma * q * _log(q) - p)
    grad = -torch.where(is_target, positive, negative)
    grad_input.copy_(_weighted(grad, weight, target))


def softmax_focal_loss_forward(
    input: Tensor,
    target: Tensor,
    weight: Tensor,
    output: Tensor,
    gamma: float,
    alpha: float,
) -> None:
    """Write the losses of probabilities, (N, C), to ``output``, (N,).

    A negative target has the loss 0.
    """
    (softmax,) = widen(input)
    p = softmax.gather(1, target.clamp(min=0)[:, None])[:, 0]
    loss = -alpha * (1 - p).pow(gamma) * _log(p)
    loss = torch.where(target >= 0, loss, 0)
    output.copy_(_weighted(loss, weight, target))


def softmax_focal_loss_backward(
    input: Tensor,
    target: Tensor,
    weight: Tensor,
    buff: Tensor,
    grad_input: Tensor,
    gamma: float,
    alpha: float,
) -> None:
    """Write the gradients of the logits to ``grad_input``, (N, C).

    ``input`` are probabilities, (N, C); ``buff``, (N,), gets the factor that
    the gradients of a sample share.
    """
    (softmax,) = widen(input)
    at = target.clamp(min=0)[:, None]
    p = softmax.gather(1, at)[:, 0]
    factor = gamma * (1 - p).pow(gamma - 1) * p * _log(p) - (1 - p).pow(gamma)
    factor = torch.where(target >= 0, alpha * factor, 0)
    factor = _weighted(factor, weight, target)
    buff.copy_(factor)
    is_target = torch.zeros_like(softmax).scatter_(1, at, 1)
    grad_input.copy_(factor[:, None] * (is_target - softmax))


def _log(p: Tensor) -> Tensor:
    return p.clamp(min=TINY).log()


def _probabilities(input: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    (logits,) = widen(input)
    classes = torch.arange(logits.shape[1], device=logits.device)
    return logits.sigmoid(), target[:, None] == classes


def _weighted(values: Tensor, weight: Tensor, target: Tensor) -> Tensor:
    if not weight.numel():
        return values
    # For the background mmcv reads beyond the weights; here it weighs 0.
    has_weight = (target >= 0) & (target < len(weight))
    chosen = weight[target.clamp(0, len(weight) - 1)]
    chosen = torch.where(has_weight, chosen, 0)
    return values * chosen.view(-1, *[1] * (values.dim() - 1))
