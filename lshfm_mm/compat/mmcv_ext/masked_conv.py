"""Convolution at chosen pixels only, for guided anchoring.

C, H, W: the one map of the batch; M: chosen pixels, as rows and columns of
the output.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def masked_im2col_forward(
    im: Tensor,
    mask_h_idx: Tensor,
    mask_w_idx: Tensor,
    col: Tensor,
    kernel_h: int,
    kernel_w: int,
    pad_h: int,
    pad_w: int,
) -> None:
    """Write what the kernel sees at each pixel to ``col``, (C * KH * KW, M).

    ``im`` is the map, (1, C, H, W).
    """
    padded = F.pad(im[0], (pad_w, pad_w, pad_h, pad_h))
    rows = torch.arange(kernel_h, device=im.device)[:, None, None]
    columns = torch.arange(kernel_w, device=im.device)[:, None]
    seen = padded[:, mask_h_idx + rows, mask_w_idx + columns]
    col.copy_(seen.reshape(col.shape))


def masked_col2im_forward(
    col: Tensor,
    mask_h_idx: Tensor,
    mask_w_idx: Tensor,
    im: Tensor,
    height: int,
    width: int,
    channels: int,
) -> None:
    """Write values of pixels, (C, M), into a map, (1, C, H, W)."""
    im[0, :, mask_h_idx, mask_w_idx] = col
