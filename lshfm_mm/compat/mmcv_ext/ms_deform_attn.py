"""Multi-scale deformable attention, https://arxiv.org/abs/2010.04159.

B: images; V: pixels of all L levels; M: heads; D: channels of a head; Q:
queries; P: points of a query on a level. ``value`` is (B, V, M, D),
``value_spatial_shapes`` (L, 2) as height, width, ``sampling_locations`` (B, Q,
M, L, P, 2) as x, y in fractions of a level, ``attention_weights`` (B, Q, M, L,
P). mmcv calls these on a GPU; on the CPU its Python does the same by itself.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ._shared import allow_nondeterministic, widen


def ms_deform_attn_forward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    im2col_step: int,
) -> Tensor:
    """Attend.

    Returns:
        Tensor: (B, Q, M * D), in the precision of the values.
    """
    return _attend(
        value,
        value_spatial_shapes.tolist(),
        sampling_locations,
        attention_weights,
    )


@allow_nondeterministic
def ms_deform_attn_backward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    grad_output: Tensor,
    grad_value: Tensor,
    grad_sampling_loc: Tensor,
    grad_attn_weight: Tensor,
    im2col_step: int,
) -> None:
    """Write the gradients, each like what it belongs to.

    They come from a second forward pass: mmcv saves its inputs alone.
    """
    inputs = [
        x.detach().requires_grad_()
        for x in (value, sampling_locations, attention_weights)
    ]
    shapes = value_spatial_shapes.tolist()
    with torch.enable_grad():
        output = _attend(inputs[0], shapes, *inputs[1:])
    grads = torch.autograd.grad(output, inputs, grad_output)
    for target, grad in zip(
        (grad_value, grad_sampling_loc, grad_attn_weight), grads, strict=True
    ):
        target.copy_(grad)


def _attend(
    value: Tensor,
    shapes: list[list[int]],
    locations: Tensor,
    weights: Tensor,
) -> Tensor:
    wide, locations, weights = widen(value, locations, weights)
    batch, _, heads, channels = value.shape
    maps = wide.permute(0, 2, 3, 1).flatten(0, 1)  # (B * M, D, V)
    grids = (2 * locations - 1).transpose(1, 2).flatten(0, 1)
    weights = weights.transpose(1, 2).flatten(0, 1)  # (B * M, Q, L, P)
    attended = wide.new_zeros(len(maps), channels, locations.shape[1])
    levels = maps.split([height * width for height, width in shapes], 2)
    for level, pixels in enumerate(levels):
        sampled = F.grid_sample(  # (B * M, D, Q, P)
            pixels.unflatten(2, shapes[level]),
            grids[:, :, level],
            align_corners=False,
        )
        attended = attended + (sampled * weights[:, None, :, level]).sum(-1)
    attended = attended.view(batch, heads * channels, -1)
    return attended.transpose(1, 2).contiguous().to(value.dtype)
