"""RoIPool: the maximum over the pixels of each bin.

B, C, H, W: maps; R: RoIs as (index of the image, x1, y1, x2, y2), in pixels
of the image; PH, PW: bins of a RoI. torchvision's operator rounds RoIs to
whole pixels, mmcv's rounds bins outwards: other numbers, so it is no help.
"""

import torch
from torch import Tensor

from ._shared import allow_nondeterministic, widen


def roi_pool_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Pool RoIs, (R, 5), of maps, (B, C, H, W), into (R, C, PH, PW).

    ``argmax``, int32 like the output, gets the pixel of each maximum, as
    row * W + column, or -1 where a bin is empty and its value 0. All of it
    stays on the device of the maps, which is asked for sizes of bins only.
    """
    channels, height, width = input.shape[1:]
    rois = rois.float()
    top, bottom = _bins(rois[:, [2, 4]], pooled_height, height, spatial_scale)
    left, right = _bins(rois[:, [1, 3]], pooled_width, width, spatial_scale)
    heights, widths = (bottom - top)[:, :, None], (right - left)[:, None]
    first = top[:, :, None] * width + left[:, None]  # of a bin: (R, PH, PW)
    image = rois[:, 0].long()[:, None, None].expand_as(first).flatten()
    pixels = input.permute(0, 2, 3, 1).reshape(-1, channels)
    best = pixels.new_full((first.numel(), channels), -torch.inf)
    at = torch.full_like(best, -1, dtype=torch.int32)
    largest = [int(x.max()) if x.numel() else 0 for x in (heights, widths)]
    for row in range(largest[0]):
        for column in range(largest[1]):
            has_pixel = (heights > row) & (widths > column)
            bins = has_pixel.flatten().nonzero()[:, 0]
            pixel = first.flatten()[bins] + row * width + column
            value = pixels[image[bins] * (height * width) + pixel]
            greater = value > best[bins]  # the first of equal ones stays
            best[bins] = torch.where(greater, value, best[bins])
            at[bins] = torch.where(greater, pixel[:, None].int(), at[bins])
    best = torch.where(at >= 0, best, 0)
    shape = (len(rois), pooled_height, pooled_width, channels)
    output.copy_(best.view(shape).permute(0, 3, 1, 2))
    argmax.copy_(at.view(shape).permute(0, 3, 1, 2))


@allow_nondeterministic
def roi_pool_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax: Tensor,
    grad_input: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Write the gradient of the maps, (B, C, H, W), to ``grad_input``."""
    _, channels, height, width = grad_input.shape
    first = rois[:, :1].long() * channels
    first = first + torch.arange(channels, device=rois.device)
    at = first[:, :, None, None] * (height * width) + argmax.clamp(min=0)
    (grad,) = widen(grad_output)
    value = torch.where(argmax >= 0, grad, 0)
    total = grad.new_zeros(grad_input.numel())
    total.index_add_(0, at.flatten(), value.flatten())
    grad_input.copy_(total.view(grad_input.shape))


def _bins(
    ends: Tensor, count: int, size: int, scale: float
) -> tuple[Tensor, Tensor]:
    """First pixel of bins and the one after the last, each (R, count).

    Args:
        ends (Tensor): Where RoIs begin and end along one side, (R, 2).
        count (int): Bins.
        size (int): Pixels of the map along this side.
        scale (float): Pixels of the map per pixel of the image.
    """
    start = ends[:, :1] * scale
    length = (ends[:, 1:] + 1) * scale - start
    steps = torch.arange(count + 1, device=ends.device)
    borders = steps * (length / count) + start
    first = borders[:, :-1].floor().clamp(0, size).long()
    after = borders[:, 1:].ceil().clamp(0, size).long()
    # A RoI without an area has no pixels.
    return first, torch.where(length > 0, after, first)
