"""Deformable convolutions, https://arxiv.org/abs/1811.11168.

B, C, H, W: maps; K, OH, OW: channels and size of the output; KH, KW: kernel;
G: ``deformable_group``; T = KH * KW. Offsets, (B, G * T * 2, OH, OW) as y, x,
are in pixels of the map; masks are (B, G * T, OH, OW); weights (K, C / group,
KH, KW). Buffers of mmcv's own kernels (``ones``, ``im2col_step``) are not
needed.
"""

import torch
from torch import Tensor

from ._shared import OPS, allow_nondeterministic, outside, widen


def deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    output: Tensor,
    columns: Tensor,
    ones: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    im2col_step: int,
) -> None:
    """Convolve maps, (B, C, H, W), into ``output``, (B, K, OH, OW)."""
    maps, weight, offset = widen(input, weight, offset)
    offset = outside(offset)
    geometry = (dH, dW, padH, padW, dilationH, dilationW)
    mask, bias = maps.new_zeros(maps.shape[0], 1), _no_bias(weight)
    convolved = OPS.deform_conv2d(
        maps,
        weight,
        offset,
        mask,
        bias,
        *geometry,
        group,
        deformable_group,
        False,
    )
    output.copy_(convolved)


@allow_nondeterministic
def deform_conv_backward_input(
    input: Tensor,
    offset: Tensor,
    gradOutput: Tensor,
    gradInput: Tensor,
    gradOffset: Tensor,
    weight: Tensor,
    columns: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    im2col_step: int,
) -> None:
    """Write the gradients of the maps and of the offsets, each like these.

    That of the weights comes with them, and waits in the buffer ``columns``
    for :func:`deform_conv_backward_parameters`, which mmcv calls next.
    """
    geometry = (dH, dW, padH, padW, dilationH, dilationW)
    grad_maps, grad_weight, grad_offset = _backward(
        gradOutput, input, weight, offset, geometry, group, deformable_group
    )
    gradInput.copy_(grad_maps)
    gradOffset.copy_(grad_offset)
    if not torch.compiler.is_compiling():  # a graph finds the second call
        columns.resize_(grad_weight.shape).copy_(grad_weight)


@allow_nondeterministic
def deform_conv_backward_parameters(
    input: Tensor,
    offset: Tensor,
    gradOutput: Tensor,
    gradWeight: Tensor,
    columns: Tensor,
    ones: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    scale: float,
    im2col_step: int,
) -> None:
    """Add ``scale`` times the gradient of the weights to ``gradWeight``."""
    if columns.shape == gradWeight.shape:
        gradWeight.add_(columns, alpha=scale)
        return
    geometry = (dH, dW, padH, padW, dilationH, dilationW)
    _, grad_weight, _ = _backward(
        gradOutput,
        input,
        gradWeight,
        offset,
        geometry,
        group,
        deformable_group,
    )
    gradWeight.add_(grad_weight.to(gradWeight.dtype), alpha=scale)


def modulated_deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    output: Tensor,
    columns: Tensor,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    deformable_group: int,
    with_bias: bool,
) -> None:
    """Convolve maps, (B, C, H, W), into ``output``, (B, K, OH, OW).

    ``bias`` is (K,), and empty where ``with_bias`` is not set.
    """
    maps, weight, offset, mask, bias = widen(input, weight, offset, mask, bias)
    offset = outside(offset)
    geometry = (stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w)
    convolved = OPS.deform_conv2d(
        maps,
        weight,
        _as_read(offset, output),
        _as_read(mask, output),
        bias if with_bias else _no_bias(weight),
        *geometry,
        group,
        deformable_group,
        True,
    )
    output.copy_(convolved)


@allow_nondeterministic
def modulated_deform_conv_backward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    columns: Tensor,
    grad_input: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    grad_offset: Tensor,
    grad_mask: Tensor,
    grad_output: Tensor,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    deformable_group: int,
    with_bias: bool,
) -> None:
    """Write the gradients, each like what it belongs to."""
    grad, maps, weight, offset, mask, bias = widen(
        grad_output, input, weight, offset, mask, bias
    )
    offset = outside(_as_read(offset, grad))
    geometry = (stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w)
    grads = OPS._deform_conv2d_backward(
        grad,
        maps,
        weight,
        offset,
        _as_read(mask, grad),
        bias if with_bias else _no_bias(weight),
        *geometry,
        group,
        deformable_group,
        True,
    )
    grad_input.copy_(grads[0])
    grad_weight.copy_(grads[1])
    at_kinks = _kinks(offset, maps, weight, geometry)
    _write_as_read(grad_offset, grads[2].masked_fill(at_kinks, 0))
    _write_as_read(grad_mask, grads[3])
    if with_bias:
        grad_bias.copy_(grads[4])


def _no_bias(weight: Tensor) -> Tensor:
    return weight.new_zeros(weight.shape[0])


def _backward(
    grad_output: Tensor,
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    geometry: tuple[int, ...],
    group: int,
    deformable_group: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of maps, weights and offsets, without a mask."""
    grad, maps, weight, offset = widen(grad_output, input, weight, offset)
    offset = outside(offset)
    mask, bias = maps.new_zeros(maps.shape[0], 1), _no_bias(weight)
    grads = OPS._deform_conv2d_backward(
        grad,
        maps,
        weight,
        offset,
        mask,
        bias,
        *geometry,
        group,
        deformable_group,
        False,
    )
    at_kinks = _kinks(offset, maps, weight, geometry)
    return grads[0], grads[1], grads[2].masked_fill(at_kinks, 0)


def _kinks(
    offset: Tensor, maps: Tensor, weight: Tensor, geometry: tuple[int, ...]
) -> Tensor:
    """Offsets of samples that lie at exactly -1, where mmcv's gradient is 0.

    There the interpolation has a kink, and torchvision takes the gradient of
    its other side. With zero offsets, which is how training starts, and with
    padding, that is the whole border of the map.

    Returns:
        Tensor: bool, like the offsets.
    """
    strides, pads, dilations = geometry[:2], geometry[2:4], geometry[4:]
    kernel, size = weight.shape[2:], offset.shape[2:]
    moves = offset.unflatten(1, (-1, *kernel, 2))  # (B, G, KH, KW, 2, OH, OW)
    y, x = (
        torch.arange(kernel[i], device=offset.device)[:, None] * dilations[i]
        - pads[i]
        + torch.arange(size[i], device=offset.device) * strides[i]
        for i in range(2)
    )
    at_kink = moves[:, :, :, :, 0] + y[:, None, :, None] == -1
    at_kink = at_kink | (moves[:, :, :, :, 1] + x[:, None] == -1)
    return at_kink[:, :, :, :, None].expand_as(moves).reshape(offset.shape)


def _as_read(values: Tensor, output: Tensor) -> Tensor:
    """What mmcv's kernel reads of offsets or masks of another size.

    It takes their memory in the layout of the output. mmdet's DyHead relies
    on it: its ``spatial_conv_high`` gets offsets of a map twice as large.
    """
    size = output.shape[2:]
    if values.shape[2:] == size:
        return values
    channels = values.shape[1]
    read = values.flatten(1)[:, : channels * size[0] * size[1]]
    return read.unflatten(1, (channels, *size))


def _write_as_read(target: Tensor, grad: Tensor) -> None:
    """Write a gradient to where :func:`_as_read` found its values."""
    if target.shape == grad.shape:
        target.copy_(grad)
    else:
        whole = grad.new_zeros(target.shape)  # a target may have no view
        whole.flatten(1)[:, : grad[0].numel()] = grad.flatten(1)
        target.copy_(whole)
