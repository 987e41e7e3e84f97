"""CARAFE, content-aware upsampling, https://arxiv.org/abs/1905.02188.

B, C, H, W: features; G: groups of channels; k: size of the kernel; s: factor
of the size. Each pixel of the output, (B, C, s * H, s * W), is a weighted sum
of k * k features around its place; masks, (B, G * k * k, s * H, s * W), are
the weights. mmcv's fast and naive kernels are one and the same here.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from ._shared import widen


def carafe_naive_forward(
    features: Tensor,
    masks: Tensor,
    output: Tensor,
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> None:
    """Write the upsampled features to ``output``, (B, C, s * H, s * W)."""
    (wide,) = widen(masks)
    shape = _split(output.shape, group_size, scale_factor)
    total = wide.new_zeros(shape)
    for part, weights, _ in _taps(
        features, wide, kernel_size, group_size, scale_factor
    ):
        total.addcmul_(part, weights)
    output.copy_(total.view(output.shape))


def carafe_naive_backward(
    top_grad: Tensor,
    features: Tensor,
    masks: Tensor,
    bottom_grad: Tensor,
    mask_grad: Tensor,
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> None:
    """Write the gradients of features and masks, each like these."""
    grad, wide = widen(top_grad, masks)
    grad = grad.reshape(_split(grad.shape, group_size, scale_factor))
    batch, channels, height, width = features.shape
    pad = kernel_size // 2
    grad_features = F.pad(wide.new_zeros(features.shape), (pad,) * 4)
    grad_masks = torch.zeros_like(wide)
    for part, weights, (tap, row, column) in _taps(
        features, wide, kernel_size, group_size, scale_factor
    ):
        near = grad_features[:, :, row : row + height, column : column + width]
        near += (grad * weights).sum((4, 6)).view(features.shape)
        to_tap = grad_masks.unflatten(1, (group_size, -1))[:, :, tap]
        to_tap.copy_((grad * part).sum(2).flatten(4).flatten(2, 3))
    stop = (pad + height, pad + width)
    bottom_grad.copy_(grad_features[:, :, pad : stop[0], pad : stop[1]])
    mask_grad.copy_(grad_masks)


def carafe_forward(
    features: Tensor,
    masks: Tensor,
    rfeatures: Tensor,
    routput: Tensor,
    rmasks: Tensor,
    output: Tensor,
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> None:
    """Write the upsampled features to ``output``, (B, C, s * H, s * W).

    ``rfeatures`` gets the features, since it is what the backward pass has.
    """
    rfeatures.copy_(features)
    carafe_naive_forward(
        features, masks, output, kernel_size, group_size, scale_factor
    )


def carafe_backward(
    top_grad: Tensor,
    rfeatures: Tensor,
    masks: Tensor,
    rtop_grad: Tensor,
    rbottom_grad_hs: Tensor,
    rbottom_grad: Tensor,
    rmask_grad: Tensor,
    bottom_grad: Tensor,
    mask_grad: Tensor,
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> None:
    """Write the gradients of features and masks, each like these."""
    carafe_naive_backward(
        top_grad,
        rfeatures,
        masks,
        bottom_grad,
        mask_grad,
        kernel_size,
        group_size,
        scale_factor,
    )


def _split(shape: torch.Size, groups: int, scale: int) -> tuple[int, ...]:
    """(B, C, s * H, s * W) as (B, G, C / G, H, s, W, s)."""
    batch, channels, height, width = shape
    return (
        *(batch, groups, channels // groups),
        *(height // scale, scale, width // scale, scale),
    )


def _taps(
    features: Tensor, masks: Tensor, kernel: int, groups: int, scale: int
) -> Iterator[tuple[Tensor, Tensor, tuple[int, int, int]]]:
    """For each of the k * k places: its features and their weights.

    Yields:
        tuple: Features, (B, G, C / G, H, 1, W, 1); weights, (B, G, 1, H, s,
        W, s); number, row and column of the place.
    """
    batch, channels, height, width = features.shape
    pad = kernel // 2
    padded = F.pad(features.to(masks.dtype), (pad,) * 4)
    weights = masks.view(
        *(batch, groups, kernel * kernel, 1),
        *(height, scale, width, scale),
    )
    for tap in range(kernel * kernel):
        row, column = divmod(tap, kernel)
        part = padded[:, :, row : row + height, column : column + width]
        part = part.unflatten(1, (groups, -1))[:, :, :, :, None, :, None]
        yield part, weights[:, :, tap], (tap, row, column)
