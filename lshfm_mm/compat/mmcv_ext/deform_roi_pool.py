"""Deformable RoI pooling, https://arxiv.org/abs/1703.06211.

B, C, H, W: maps; R: RoIs as (index of the image, x1, y1, x2, y2), in pixels
of the image; PH, PW: bins of a RoI; S: bins, R * PH * PW. Each moves on its
own, so that it is a RoI to torchvision's RoIAlign; how many samples it has
depends on its RoI, which float32 knows better than where the bin ends.
"""

import math

import torch
from torch import Tensor

from ._shared import OPS, allow_nondeterministic, outside, widen
from .roi_align import edges, sample_positions, samples_a_bin


def deform_roi_pool_forward(
    input: Tensor,
    rois: Tensor,
    offset: Tensor,
    output: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    gamma: float,
) -> None:
    """Pool RoIs, (R, 5), of maps, (B, C, H, W), into (R, C, PH, PW).

    ``offset``, (R, 2, PH, PW) as x, y or empty, moves bins by so many times
    ``gamma`` times the size of their RoI.
    """
    maps, rois, offset = widen(input, rois, offset)
    bins = _bins(
        rois, offset, pooled_height, pooled_width, spatial_scale, gamma
    )
    output.zero_()  # of bins without samples
    _, size = edges(rois, spatial_scale, True)
    for which, rows, columns in samples_a_bin(
        size, pooled_height, pooled_width, sampling_ratio
    ):
        each, *parts = _parts(rows, columns)
        part = bins[which]
        pooled = OPS.roi_align(
            maps, part.flatten(0, 1), 1.0, *parts, each, True
        )
        pooled = pooled.mean((2, 3)).view(
            len(part), pooled_height, pooled_width, maps.shape[1]
        )
        output[which] = pooled.permute(0, 3, 1, 2).to(output.dtype)


@allow_nondeterministic
def deform_roi_pool_backward(
    grad_output: Tensor,
    input: Tensor,
    rois: Tensor,
    offset: Tensor,
    grad_input: Tensor,
    grad_offset: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    gamma: float,
) -> None:
    """Write the gradients of the maps and of the offsets, each like these."""
    grad, maps, rois, offset = widen(grad_output, input, rois, offset)
    bins = _bins(
        rois, offset, pooled_height, pooled_width, spatial_scale, gamma
    )
    grad = grad.permute(0, 2, 3, 1).flatten(1, 2)  # (R, PH * PW, C)
    _, size = edges(rois, spatial_scale, True)
    grad_maps, shift = (
        torch.zeros_like(maps),
        grad.new_zeros(*bins.shape[:2], 2),
    )
    for which, rows, columns in samples_a_bin(
        size, pooled_height, pooled_width, sampling_ratio
    ):
        each, *parts = _parts(rows, columns)
        part, grad_part = bins[which].flatten(0, 1), grad[which].flatten(0, 1)
        shared = grad_part[:, :, None, None] / math.prod(parts)
        grad_maps += OPS._roi_align_backward(
            shared.expand(-1, -1, *parts),
            part,
            1.0,
            *parts,
            *maps.shape,
            each,
            True,
        )
        if offset.numel():
            slope = _grad_of_positions(grad_part, maps, part, rows, columns)
            shift[which] = slope.view(-1, *shift.shape[1:])
    grad_input.copy_(grad_maps)
    if offset.numel():
        shift = shift * (gamma * size)[:, None]
        grad_offset.copy_(shift.transpose(1, 2).reshape(grad_offset.shape))


def _parts(rows: int, columns: int) -> tuple[int, int, int]:
    """How RoIAlign takes so many samples, as it knows squares of them only.

    Args:
        rows (int): Rows of samples of a bin.
        columns (int): Columns of samples.

    Returns:
        tuple[int, int, int]: Rows of samples of a square, and how many
        squares the bin has along y and x.
    """
    each = math.gcd(rows, columns)
    return each, rows // each, columns // each


def _bins(
    rois: Tensor,
    offset: Tensor,
    height: int,
    width: int,
    spatial_scale: float,
    gamma: float,
) -> Tensor:
    """A RoI for each bin, in pixels of the map, (R, PH * PW, 5)."""
    start, size = edges(rois, spatial_scale, True)
    counts = torch.tensor(
        [width, height], dtype=size.dtype, device=size.device
    )
    step = size / counts
    y, x = torch.meshgrid(
        torch.arange(height, device=rois.device),
        torch.arange(width, device=rois.device),
        indexing='ij',
    )
    start = (
        start[:, None, None] + torch.stack([x, y], -1) * step[:, None, None]
    )
    if offset.numel():
        move = offset.view(-1, 2, height, width).permute(0, 2, 3, 1)
        start = start + gamma * size[:, None, None] * move
    end = start + step[:, None, None]
    image = rois[:, 0, None, None, None].expand(-1, height, width, 1)
    # RoIAlign takes these halves off again.
    bins = torch.cat([image, start + 0.5, end + 0.5], -1)
    return outside(bins).flatten(1, 2)


def _grad_of_positions(
    grad: Tensor, maps: Tensor, bins: Tensor, rows: int, columns: int
) -> Tensor:
    """Gradient of the places of bins, (S, 2) as x, y; grad is (S, C)."""
    total = grad.new_zeros(len(bins), 2)
    height, width = maps.shape[2:]
    start, size = edges(bins, 1.0, True)
    ys, xs = sample_positions(start, size, rows, columns)
    images = bins[:, 0].long()
    for y in ys.unbind(1):
        for x in xs.unbind(1):
            inside = (y >= -1) & (y <= height) & (x >= -1) & (x <= width)
            y0 = y.clamp(0, height - 1).long()
            x0 = x.clamp(0, width - 1).long()
            y1 = (y0 + 1).clamp(max=height - 1)
            x1 = (x0 + 1).clamp(max=width - 1)
            a, b = maps[images, :, y0, x0], maps[images, :, y0, x1]
            c, d = maps[images, :, y1, x0], maps[images, :, y1, x1]
            # Not those of the interpolation where it is clamped, but those
            # that mmcv's kernel takes there.
            low_y, high_y = (y - y0)[:, None], (y1 - y)[:, None]
            low_x, high_x = (x - x0)[:, None], (x1 - x)[:, None]
            along_x = (b - a) * high_y + (d - c) * low_y
            along_y = (c - a) * high_x + (d - b) * low_x
            slope = torch.stack([along_x, along_y], 1)  # (S, 2, C)
            slope = (grad[:, None] * slope).sum(-1) / (rows * columns)
            total += torch.where(inside[:, None], slope, 0)
    return total
