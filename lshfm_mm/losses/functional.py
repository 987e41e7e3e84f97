"""Losses that make one feature mimic another, as pure functions."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from ..errors import ConfigError, check_choice
from .hashing import (
    full_float32,
    in_blocks,
    project,
    project_back,
    window_of,
)

MODES = ('bce', 'l1', 'l2')
PRECISIONS = ('float32', 'tf32', 'bfloat16')
SILENT = 1e-12  # mean square of a feature below which it has no scale


class _LSH(Function):
    """The loss, walking the hash functions in blocks.

    The gradient is taken on the way, so that of all projections only those
    of one block exist at a time, and what is kept has the size of the
    student's features.
    """

    @staticmethod
    def forward(
        ctx: Any,
        s_feature: Tensor,
        t_feature: Tensor,
        weight: Tensor,
        bias: Tensor,
        mode: str,
        share: Tensor,
        product_dtype: torch.dtype,
    ) -> Tensor:
        """Sum over samples and hashes of the losses times ``share``.

        Products of features and weights are of ``product_dtype``.
        """
        total = s_feature.new_zeros(())
        wanted = ctx.needs_input_grad[0]
        gradient = torch.zeros_like(s_feature)
        walked = (
            s_feature.to(product_dtype),
            t_feature.to(product_dtype),
            share,
            gradient,
        )
        weight = weight.to(product_dtype)
        for s, t, part, grad, w, b in in_blocks(walked, weight, bias):
            losses, slopes = _compare(
                _sides(s, w, b),
                _sides(t, w, b),
                mode,
                wanted,
            )
            total += losses.mul_(part).sum()
            if wanted:
                slopes = slopes.mul_(part).to(product_dtype)
                grad += project_back(slopes, w, s.shape)
            del losses, slopes  # before the next block needs the memory
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Scale the gradient that the forward pass has taken."""
        (gradient,) = ctx.saved_tensors
        return (grad * gradient, *[None] * 6)


def _sides(feature: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Projections in the dtype of the bias, whatever that of the product."""
    if feature.dtype == bias.dtype:
        return project(feature, weight, bias)
    sides = project(feature, weight, None).to(bias)
    return sides.add_(bias.view(-1, *[1] * (feature.dim() - 2)))


def _compare(
    s_side: Tensor, t_side: Tensor, mode: str, wanted: bool
) -> tuple[Tensor, Tensor]:
    """Losses of projections, and if ``wanted`` their slopes."""
    if mode == 'bce':
        codes = (t_side > 0).to(s_side)
        losses = F.binary_cross_entropy_with_logits(
            s_side, codes, reduction='none'
        )
        return losses, s_side.sigmoid().sub_(codes) if wanted else losses
    distance = s_side - t_side
    if mode == 'l1':
        return distance.abs(), distance.sign()
    return distance.square(), 2 * distance


def lsh_loss(
    s_feature: Tensor,
    t_feature: Tensor,
    weight: Tensor,
    bias: Tensor,
    mode: str = 'bce',
    sample_weight: Tensor | None = None,
    precision: str = 'float32',
) -> Tensor:
    """Locality-sensitive-hashing loss (paper, section 3.2).

    ``bce`` asks the student's projections for the teacher's hash codes: it
    pulls the direction of the student's feature and leaves its magnitude
    free. ``l1`` and ``l2`` compare the projections themselves.

    In a map every location is a sample. Its feature is the k x k window
    around it, zero-padded: what a k x k class layer sees of it (paper,
    section 3.5). Memory beside the features stays at a few blocks of
    projections, and on a GPU a block of windows; (N, K) never exists.
    Computed in float32 or better, but for what ``precision`` says.

    Args:
        s_feature (Tensor): The student's features, (N, D), or maps,
            (N, C, H, W).
        t_feature (Tensor): The teacher's features, same shape. They, weight
            and bias get no gradient.
        weight (Tensor): Weights of the hash functions, (K, D); for maps
            D = C * k * k.
        bias (Tensor): Biases of the hash functions, (K,).
        mode (str): 'bce', 'l1' or 'l2'. Defaults to 'bce'.
        sample_weight (Tensor, optional): Weights of the samples, >= 0, (N,),
            for maps (N, H, W). The mean over samples becomes the mean under
            these weights.
        precision (str): Of products of features and weights: 'float32';
            'tf32' of GPUs, for what is multiplied; 'bfloat16', for what is
            multiplied and for the product. Bias, losses and the sum over
            hash functions stay as above. Defaults to 'float32'.

    Returns:
        Tensor: The mean over samples and hash functions, in nats for 'bce',
        (). Without samples, or with weights that are all 0, it is 0 and has
        a gradient (of zeros).

    Raises:
        ConfigError: If mode or precision is unknown or shapes do not agree.

    Example:
        >>> import torch
        >>> feature, weight = torch.ones(3, 2), torch.eye(2)
        >>> loss = lsh_loss(0 * feature, feature, weight, torch.zeros(2))
        >>> round(float(loss), 4)  # log(2): no code is known yet
        0.6931
    """
    check_choice('mode', mode, MODES)
    check_choice('precision', precision, PRECISIONS)
    _check_shapes(s_feature, t_feature, sample_weight)
    window_of(s_feature, weight)
    if bias.shape != weight.shape[:1]:
        raise ConfigError(
            f'bias: must be {tuple(weight.shape[:1])}, one for each hash '
            f'function, but got {tuple(bias.shape)}'
        )
    dtype = torch.promote_types(s_feature.dtype, torch.float32)
    share = _shares(s_feature, sample_weight, dtype) / len(weight)
    product_dtype = torch.bfloat16 if precision == 'bfloat16' else dtype
    with full_float32(s_feature.device, tf32=precision == 'tf32'):
        return _LSH.apply(
            s_feature.to(dtype),
            t_feature.detach().to(dtype),
            weight.to(dtype),
            bias.to(dtype),
            mode,
            share.unsqueeze(1),
            product_dtype,
        )


def l2_loss(
    s_feature: Tensor,
    t_feature: Tensor,
    sample_weight: Tensor | None = None,
    window: int = 1,
    relative: bool = False,
) -> Tensor:
    """Mean squared error over samples and channels, in float32 or better.

    Args:
        s_feature (Tensor): The student's features, (N, D) or (N, C, H, W).
        t_feature (Tensor): The teacher's, same shape. They get no gradient.
        sample_weight (Tensor, optional): Weights of the samples, >= 0, (N,),
            for maps (N, H, W).
        window (int): In a map, the feature of a location is the zero-padded
            window of this side around it. Defaults to 1.
        relative (bool): Whether the error is in units of the teacher's mean
            squared feature, so that one loss weight serves every teacher: it
            is 1 for a student that is 0 everywhere. Defaults to False.

    Returns:
        Tensor: The loss, (). Without samples, or with weights that are all
        0, it is 0 with a gradient. A teacher whose mean square is below
        1e-12 has no scale: then the relative loss is the plain one.
    """
    _check_shapes(s_feature, t_feature, sample_weight)
    dtype = torch.promote_types(s_feature.dtype, torch.float32)
    s_feature, t_feature = s_feature.to(dtype), t_feature.detach().to(dtype)
    share = _shares(s_feature, sample_weight, dtype)

    def mean(square: Tensor) -> Tensor:
        per_sample = square.mean(dim=1)
        if window > 1:  # the mean over a window, without unfolding it
            maps = per_sample.unsqueeze(1)
            maps = F.avg_pool2d(maps, window, 1, window // 2)
            per_sample = maps.squeeze(1)
        return (per_sample * share).sum()

    loss = mean((s_feature - t_feature).square())
    if not relative:
        return loss
    return loss / scale_or_one(mean(t_feature.square()))


def scale_or_one(square: Tensor) -> Tensor:
    """The mean square of a feature, (); 1 where it is below 1e-12."""
    return torch.where(square >= SILENT, square, 1)


def _shares(
    feature: Tensor, sample_weight: Tensor | None, dtype: torch.dtype
) -> Tensor:
    """Weights of the samples that sum to one, or to 0 if all are 0."""
    if sample_weight is None:
        sample_weight = feature.new_ones(feature.shape[:1] + feature.shape[2:])
    total = sample_weight.to(dtype).sum()
    return sample_weight.to(dtype) / torch.where(total > 0, total, 1)


def _check_shapes(
    s_feature: Tensor, t_feature: Tensor, sample_weight: Tensor | None
) -> None:
    if s_feature.dim() not in (2, 4) or s_feature.shape != t_feature.shape:
        raise ConfigError(
            f'features: must both be (N, D) or (N, C, H, W), but the student '
            f'has {tuple(s_feature.shape)} and the teacher '
            f'{tuple(t_feature.shape)}; where the widths differ add a '
            f'connector to the tap'
        )
    for feature in (s_feature, t_feature):
        if not feature.is_floating_point():
            raise ConfigError(
                f'features: must be of floating point, but got '
                f'{feature.dtype}; tap another layer'
            )
    samples = s_feature.shape[:1] + s_feature.shape[2:]
    if sample_weight is not None and sample_weight.shape != samples:
        raise ConfigError(
            f'sample_weight: must be {tuple(samples)}, but got '
            f'{tuple(sample_weight.shape)}'
        )
