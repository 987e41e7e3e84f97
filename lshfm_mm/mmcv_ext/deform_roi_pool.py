"""Deformable RoI pooling, https://arxiv.org/abs/1703.06211.

B, C, H, W: maps; R: RoIs as (index of the image, x1, y1, x2, y2), in pixels
of the image; PH, PW: bins of a RoI; S = R * PH * PW. Each bin moves on its
own, so that it is a RoI of one bin to torchvision's RoIAlign.
"""

import torch
from torch import Tensor

from ._shared import OPS, allow_nondeterministic, widen
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
    pooled = OPS.roi_align(maps, bins, 1.0, 1, 1, sampling_ratio, True)
    pooled = pooled.view(len(rois), pooled_height, pooled_width, maps.shape[1])
    output.copy_(pooled.permute(0, 3, 1, 2))


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
    grad = grad.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])  # (S, C)
    grad_maps = OPS._roi_align_backward(
        grad[:, :, None, None],
        bins,
        1.0,
        1,
        1,
        *maps.shape,
        sampling_ratio,
        True,
    )
    grad_input.copy_(grad_maps)
    if not offset.numel():
        return
    shift = _grad_of_positions(grad, maps, bins, sampling_ratio)
    _, size = edges(rois, spatial_scale, True)
    shift = shift.view(len(rois), pooled_height, pooled_width, 2)
    shift = shift * (gamma * size)[:, None, None]
    grad_offset.copy_(shift.permute(0, 3, 1, 2).reshape(grad_offset.shape))


def _bins(
    rois: Tensor,
    offset: Tensor,
    height: int,
    width: int,
    spatial_scale: float,
    gamma: float,
) -> Tensor:
    """A RoI for each bin, in pixels of the map, (S, 5)."""
    start, size = edges(rois, spatial_scale, True)
    bins = torch.tensor([width, height], dtype=size.dtype, device=size.device)
    step = size / bins
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
    return torch.cat([image, start + 0.5, end + 0.5], -1).view(-1, 5)


def _grad_of_positions(
    grad: Tensor, maps: Tensor, bins: Tensor, sampling_ratio: int
) -> Tensor:
    """Gradient of the places of bins, (S, 2) as x, y; grad is (S, C)."""
    total = grad.new_zeros(len(bins), 2)
    height, width = maps.shape[2:]
    start, size = edges(bins, 1.0, True)
    for which, rows, columns in samples_a_bin(size, 1, 1, sampling_ratio):
        ys, xs = sample_positions(start[which], size[which], rows, columns)
        images, part = bins[which, 0].long(), grad[which]
        for y in ys.unbind(1):
            for x in xs.unbind(1):
                inside = (y >= -1) & (y <= height) & (x >= -1) & (x <= width)
                y0 = y.clamp(0, height - 1).long()
                x0 = x.clamp(0, width - 1).long()
                y1 = (y0 + 1).clamp(max=height - 1)
                x1 = (x0 + 1).clamp(max=width - 1)
                a, b = maps[images, :, y0, x0], maps[images, :, y0, x1]
                c, d = maps[images, :, y1, x0], maps[images, :, y1, x1]
                # Not those of the interpolation where it is clamped, but
                # those that mmcv's kernel takes there.
                low_y, high_y = (y - y0)[:, None], (y1 - y)[:, None]
                low_x, high_x = (x - x0)[:, None], (x1 - x)[:, None]
                along_x = (b - a) * high_y + (d - c) * low_y
                along_y = (c - a) * high_x + (d - b) * low_x
                slope = torch.stack([along_x, along_y], 1)  # (S', 2, C)
                slope = (part[:, None] * slope).sum(-1) / (rows * columns)
                total[which] += torch.where(inside[:, None], slope, 0)
    return total
