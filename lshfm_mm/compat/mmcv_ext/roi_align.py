"""RoIAlign.

B, C, H, W: maps; R: RoIs as (index of the image, x1, y1, x2, y2), in pixels
of the image; PH, PW: bins of a RoI, each the mean or the maximum of
``sampling_ratio`` ** 2 samples, or as many as it has pixels where that is 0.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from ._shared import OPS, allow_nondeterministic, widen


def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Pool RoIs, (R, 5), of maps, (B, C, H, W), into (R, C, PH, PW).

    ``pool_mode`` 0 takes the maximum and writes where it is, in pixels of the
    map, to ``argmax_y`` and ``argmax_x``, (R, C, PH, PW); 1 takes the mean.
    """
    maps, rois = widen(input, rois)
    rois, wrong = _finite(rois.to(maps.dtype))
    if pool_mode == 1:
        pooled = OPS.roi_align(
            maps,
            rois,
            spatial_scale,
            aligned_height,
            aligned_width,
            sampling_ratio,
            aligned,
        )
        output.copy_(pooled.masked_fill_(wrong, torch.nan))
        return
    # Of bins without samples: no gradient, and not the -10000 of mmcv.
    output.zero_()
    argmax_y.fill_(-1)
    argmax_x.fill_(-1)
    bins_y = torch.arange(aligned_height, device=maps.device)[:, None]
    bins_x = torch.arange(aligned_width, device=maps.device)
    start, size = edges(rois, spatial_scale, aligned)
    for which, rows, columns in samples_a_bin(
        size, aligned_height, aligned_width, sampling_ratio
    ):
        # A bin a sample, and then the maximum over the samples of a bin.
        height, width = aligned_height * rows, aligned_width * columns
        samples = OPS.roi_align(
            maps, rois[which], spatial_scale, height, width, 1, aligned
        )
        samples = samples.unflatten(3, (aligned_width, columns))
        samples = samples.unflatten(2, (aligned_height, rows))
        best, at = samples.transpose(3, 4).flatten(4).max(-1)
        output[which] = best.to(output.dtype)
        y, x = sample_positions(start[which], size[which], height, width)
        roi = torch.arange(len(at), device=maps.device)[:, None, None, None]
        y = y[roi, bins_y * rows + at // columns]
        x = x[roi, bins_x * columns + at % columns]
        argmax_y[which] = y.to(argmax_y.dtype)
        argmax_x[which] = x.to(argmax_x.dtype)
    output.masked_fill_(wrong, torch.nan)


@allow_nondeterministic
def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Write the gradient of the maps, (B, C, H, W), to ``grad_input``."""
    grad, rois = widen(grad_output, rois)
    rois, wrong = _finite(rois.to(grad.dtype))
    grad = grad.masked_fill(wrong, 0)
    if pool_mode == 1:
        grad_maps = OPS._roi_align_backward(
            grad,
            rois,
            spatial_scale,
            aligned_height,
            aligned_width,
            *grad_input.shape,
            sampling_ratio,
            aligned,
        )
        grad_input.copy_(grad_maps)
        return
    _, channels, height, width = grad_input.shape
    y, x = argmax_y.to(grad.dtype), argmax_x.to(grad.dtype)
    inside = (y > -1) & (y <= height) & (x > -1) & (x <= width)
    grad = torch.where(inside, grad, 0)
    first = rois[:, :1].long() * channels
    first = first + torch.arange(channels, device=rois.device)
    first = first[:, :, None, None] * (height * width)
    total = grad.new_zeros(grad_input.numel())
    for row, weight_y in _neighbours(y, height):
        for column, weight_x in _neighbours(x, width):
            at = first + row * width + column
            total.index_add_(
                0, at.flatten(), (grad * weight_y * weight_x).flatten()
            )
    grad_input.copy_(total.view(grad_input.shape))


def _finite(rois: Tensor) -> tuple[Tensor, Tensor]:
    """RoIs without NaN and infinity, and which had some, (R, 1, 1, 1).

    The kernels would read memory at NaN. Pooled, these are NaN.
    """
    wrong = ~rois.isfinite().all(1, keepdim=True)
    return rois.masked_fill(wrong, 0), wrong[:, :, None, None]


def edges(
    rois: Tensor, spatial_scale: float, aligned: bool
) -> tuple[Tensor, Tensor]:
    """Corner and size of RoIs in pixels of the map, each (R, 2) as x, y.

    Args:
        rois (Tensor): RoIs, (R, 5).
        spatial_scale (float): Pixels of the map per pixel of the image.
        aligned (bool): Whether the middle of the first pixel is at 0.

    Returns:
        tuple[Tensor, Tensor]: The corners and the sizes.
    """
    shift = 0.5 if aligned else 0.0
    start = rois[:, 1:3] * spatial_scale - shift
    size = rois[:, 3:5] * spatial_scale - shift - start
    return start, size if aligned else size.clamp(min=1)


def samples_a_bin(
    size: Tensor, height: int, width: int, sampling_ratio: int
) -> Iterator[tuple[Tensor | slice, int, int]]:
    """RoIs that have the same number of samples a bin.

    Args:
        size (Tensor): Sizes of the RoIs in pixels of the map, (R, 2) as x, y.
        height (int): Bins of a RoI.
        width (int): Bins of a RoI.
        sampling_ratio (int): Rows of samples of a bin, 0 for one a pixel.

    Yields:
        tuple: Which RoIs, and rows and columns of samples of their bins.
    """
    if sampling_ratio > 0:
        yield slice(None), sampling_ratio, sampling_ratio
        return
    bins = torch.tensor([width, height], dtype=size.dtype, device=size.device)
    grid = (size / bins).ceil().long()
    groups, group = grid.unique(dim=0, return_inverse=True)
    for index, (columns, rows) in enumerate(groups.tolist()):
        if columns > 0 and rows > 0:
            yield (group == index).nonzero()[:, 0], rows, columns


def sample_positions(
    start: Tensor, size: Tensor, height: int, width: int
) -> tuple[Tensor, Tensor]:
    """Where the samples of RoIs are, in pixels of the map.

    Args:
        start (Tensor): Corners of the RoIs, (R, 2) as x, y.
        size (Tensor): Their sizes, (R, 2).
        height (int): Rows of samples of a RoI.
        width (int): Columns of samples.

    Returns:
        tuple[Tensor, Tensor]: Their y, (R, height), and x, (R, width).
    """
    rows = torch.arange(height, device=size.device) + 0.5
    columns = torch.arange(width, device=size.device) + 0.5
    y = start[:, 1:] + rows * (size[:, 1:] / height)
    return y, start[:, :1] + columns * (size[:, :1] / width)


def _neighbours(at: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The two pixels between which a position lies, and their weights."""
    at = at.clamp(0, size - 1)
    low = at.floor()
    yield low.long(), 1 - (at - low)
    yield (low + 1).clamp(max=size - 1).long(), at - low
