"""mmcv's operators on torchvision: convolutions and upsampling.

References are loops in float64, in torch, so that autograd gives the
gradients too.
"""

from functools import partial

import pytest
import torch
import torch.nn.functional as F

from lshfm_mm.compat import mmcv_ext as ext

from .test_mmcv_ext_rois import DOUBLE, interpolated, pixel, seed

__all__ = ['seed']  # a fixture

# Deformable convolutions

GEOMETRIES = [  # kernel, stride, padding, dilation, group, deformable groups
    ((3, 3), (1, 1), (1, 1), (1, 1), 1, 1),
    ((3, 2), (2, 1), (1, 2), (1, 2), 2, 2),
    ((1, 1), (1, 1), (0, 0), (1, 1), 1, 4),
]


def deform_inputs(geometry, dtype=DOUBLE):
    kernel, stride, padding, dilation, group, parts = geometry
    maps = torch.randn(2, 4, 5, 6, dtype=dtype)
    weight = torch.randn(6, 4 // group, *kernel, dtype=dtype)
    size = [
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, k, s, p, d in zip(
            (5, 6), kernel, stride, padding, dilation, strict=True
        )
    ]
    taps = parts * kernel[0] * kernel[1]
    offset = torch.randn(2, taps * 2, *size, dtype=dtype) * 1.5
    mask = torch.rand(2, taps, *size, dtype=dtype)
    return maps, weight, offset, mask, torch.randn(6, dtype=dtype)


def deform_by_loops(maps, weight, offset, mask, bias, geometry):
    kernel, stride, padding, dilation, group, parts = geometry
    channels = maps.shape[1]
    images = []
    for image, moves, weights in zip(maps, offset, mask, strict=True):
        rows = []
        for i in range(moves.shape[1]):
            for j in range(moves.shape[2]):
                seen = []
                for part, of in enumerate(image.split(channels // parts)):
                    for tap in range(kernel[0] * kernel[1]):
                        a, b = divmod(tap, kernel[1])
                        at = part * kernel[0] * kernel[1] + tap
                        y = moves[2 * at, i, j] + (
                            i * stride[0] - padding[0] + a * dilation[0]
                        )
                        x = moves[2 * at + 1, i, j] + (
                            j * stride[1] - padding[1] + b * dilation[1]
                        )
                        value = image.new_zeros(len(of))
                        if y > -1 and x > -1:  # mmcv: nothing at exactly -1
                            value = interpolated(of, y, x)
                        seen.append(value * weights[at, i, j])
                seen = torch.stack(seen).view(parts, -1, channels // parts)
                seen = seen.transpose(1, 2).reshape(group, -1)
                filters = weight.view(group, len(weight) // group, -1)
                rows.append((filters @ seen[:, :, None]).flatten() + bias)
        images.append(torch.stack(rows, 1).view(-1, *moves.shape[1:]))
    return torch.stack(images)


def settings_of(geometry, is_modulated):
    """In the order in which mmcv's functions take them."""
    kernel, stride, padding, dilation, group, parts = geometry
    pairs = (kernel, stride, padding, dilation)
    if not is_modulated:  # width comes first there
        pairs = (pair[::-1] for pair in pairs)
    return *(x for pair in pairs for x in pair), group, parts


def modulated(inputs, geometry, with_bias=True, grad=None, size=None):
    maps, weight, offset, mask, bias = inputs
    settings = (*settings_of(geometry, True), with_bias)
    empty = maps.new_empty(0)
    bias = bias if with_bias else empty
    output = maps.new_empty(2, 6, *(size or offset.shape[2:]))
    ext.modulated_deform_conv_forward(
        maps, weight, bias, empty, offset, mask, output, empty, *settings
    )
    if grad is None:
        return output
    shapes = (maps, weight, bias, offset, mask)
    grads = [torch.zeros_like(x) for x in shapes]
    ext.modulated_deform_conv_backward(
        *(maps, weight, bias, empty, offset, mask, empty),
        *(*grads, grad, *settings),
    )
    return output, grads


def plain(inputs, geometry, grad=None):
    maps, weight, offset = inputs[:3]
    settings = settings_of(geometry, False)
    buffers = [maps.new_empty(0), maps.new_empty(0)]
    output = maps.new_empty(2, 6, *offset.shape[2:])
    ext.deform_conv_forward(
        maps, weight, offset, output, *buffers, *settings, 2
    )
    if grad is None:
        return output
    grads = [torch.zeros_like(x) for x in (maps, weight, offset)]
    back = partial(ext.deform_conv_backward_input, maps, offset, grad)
    back(grads[0], grads[2], weight, buffers[0], *settings, 2)
    ext.deform_conv_backward_parameters(
        *(maps, offset, grad, grads[1], *buffers, *settings, 1, 2)
    )
    return output, grads


@pytest.mark.parametrize('geometry', GEOMETRIES)
@pytest.mark.parametrize('with_bias', [True, False])
def test_modulated_deformable_convolution(geometry, with_bias):
    inputs = [x.requires_grad_() for x in deform_inputs(geometry)]
    bias = inputs[4] if with_bias else torch.zeros(6)
    expected = deform_by_loops(*inputs[:4], bias, geometry)
    grad = torch.randn_like(expected)
    wanted = torch.autograd.grad(
        expected, inputs, grad, allow_unused=not with_bias
    )
    inputs = [x.detach() for x in inputs]
    found, grads = modulated(inputs, geometry, with_bias, grad)
    torch.testing.assert_close(found, expected)
    for x, i in zip(grads, (0, 1, 4, 2, 3), strict=True):
        if i < 4 or with_bias:
            torch.testing.assert_close(x, wanted[i])


@pytest.mark.parametrize('geometry', GEOMETRIES)
def test_deformable_convolution(geometry):
    """And its second call alone, which has the gradient of the weights."""
    maps, weight, offset, mask, _ = deform_inputs(geometry)
    inputs = [x.requires_grad_() for x in (maps, weight, offset)]
    expected = deform_by_loops(
        *inputs, torch.ones_like(mask), torch.zeros(6), geometry
    )
    grad = torch.randn_like(expected)
    wanted = torch.autograd.grad(expected, inputs, grad)
    inputs = [x.detach() for x in inputs]
    found, grads = plain(inputs, geometry, grad)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(grads, list(wanted))
    alone, empty = torch.ones_like(weight), maps.new_empty(0)
    ext.deform_conv_backward_parameters(
        *(inputs[0], inputs[2], grad, alone.detach(), empty, empty),
        *(*settings_of(geometry, False), 0.5, 2),
    )
    torch.testing.assert_close(alone, 1 + wanted[1] / 2)


@pytest.mark.parametrize('kind', [modulated, plain])
def test_zero_offsets_have_no_gradient_at_the_border(kind):
    """So training starts: samples in the padding lie at exactly -1."""
    geometry = GEOMETRIES[0]
    maps, weight, offset, mask, bias = deform_inputs(geometry)
    offset = torch.zeros_like(offset).requires_grad_()
    if kind is plain:
        mask, bias = torch.ones_like(mask), torch.zeros_like(bias)
    expected = deform_by_loops(maps, weight, offset, mask, bias, geometry)
    grad = torch.randn_like(expected)
    (wanted,) = torch.autograd.grad(expected, offset, grad)
    inputs = (maps, weight, offset.detach(), mask, bias)
    found, grads = kind(inputs, geometry, grad=grad)
    torch.testing.assert_close(found, expected)
    of_offset = grads[2] if kind is plain else grads[3]
    torch.testing.assert_close(of_offset, wanted)
    if kind is plain:
        reference = F.conv2d(maps, weight, padding=1)
        torch.testing.assert_close(found, reference)


@pytest.mark.parametrize(
    'memory_format', [torch.contiguous_format, torch.channels_last]
)
def test_offsets_of_a_larger_map_are_read_in_order(memory_format):
    """mmdet's DyHead passes them, and was trained so."""
    geometry = GEOMETRIES[0]
    maps, weight, offset, mask, bias = deform_inputs(geometry)
    large = [torch.randn(2, n, 10, 12, dtype=DOUBLE) for n in (18, 9)]
    read = [
        x.view(2, -1)[:, : x.shape[1] * 30].view(2, -1, 5, 6) for x in large
    ]
    large = [x.contiguous(memory_format=memory_format) for x in large]
    grad = torch.randn(2, 6, 5, 6, dtype=DOUBLE)
    expected, wanted = modulated(
        (maps, weight, *read, bias), geometry, grad=grad
    )
    found, grads = modulated(
        (maps, weight, *large, bias), geometry, grad=grad, size=(5, 6)
    )
    assert torch.equal(found, expected)
    assert all(map(torch.equal, grads[:3], wanted[:3]))
    for x, y in zip(grads[3:], wanted[3:], strict=True):
        x, y = x.flatten(1), y.flatten(1)
        assert torch.equal(x[:, : y.shape[1]], y) and y.any()
        assert not x[:, y.shape[1] :].any()


# Other kinds


@pytest.mark.parametrize('fast', [True, False])
@pytest.mark.parametrize(('kernel', 'groups', 'scale'), [(5, 1, 2), (3, 2, 3)])
def test_carafe(fast, kernel, groups, scale):
    features = torch.randn(2, 4, 3, 4, dtype=DOUBLE, requires_grad=True)
    masks = torch.randn(
        *(2, groups * kernel**2, 3 * scale, 4 * scale),
        dtype=DOUBLE,
        requires_grad=True,
    )
    expected = []
    for image, weights in zip(features, masks, strict=True):
        for y in range(3 * scale):
            for x in range(4 * scale):
                total = [0] * groups
                for part, of in enumerate(image.chunk(groups)):
                    for tap in range(kernel**2):
                        i, j = divmod(tap, kernel)
                        near = pixel(
                            of,
                            y // scale + i - kernel // 2,
                            x // scale + j - kernel // 2,
                        )
                        weight = weights[part * kernel**2 + tap, y, x]
                        total[part] = total[part] + weight * near
                expected.append(torch.cat(total))
    expected = torch.stack(expected).view(2, 3 * scale, 4 * scale, 4)
    expected = expected.permute(0, 3, 1, 2)
    grad = torch.randn_like(expected)
    wanted = torch.autograd.grad(expected, (features, masks), grad)
    inputs, settings = (
        (features.detach(), masks.detach()),
        (*(kernel, groups, scale),),
    )
    output = torch.zeros(expected.shape, dtype=DOUBLE)
    grads = [torch.zeros_like(x) for x in inputs]
    if fast:
        buffers = [torch.zeros_like(features.detach()), output, inputs[1]]
        ext.carafe_forward(*inputs, *buffers, output, *settings)
        ext.carafe_backward(
            *(grad, buffers[0], inputs[1], grad, grad, *grads),
            *(*grads, *settings),
        )
    else:
        ext.carafe_naive_forward(*inputs, output, *settings)
        ext.carafe_naive_backward(grad, *inputs, *grads, *settings)
    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(grads, list(wanted))


def test_masked_convolution():
    """At chosen pixels a plain convolution, elsewhere 0."""
    image, weight = torch.randn(1, 3, 6, 7), torch.randn(4, 3, 3, 3)
    mask = torch.rand(6, 7) > 0.5
    rows, columns = mask.nonzero().unbind(1)
    seen = torch.zeros(27, len(rows))
    ext.masked_im2col_forward(image, rows, columns, seen, 3, 3, 1, 1)
    output = torch.zeros(1, 4, 6, 7)
    values = weight.view(4, -1) @ seen
    ext.masked_col2im_forward(values, rows, columns, output, 6, 7, 4)
    expected = F.conv2d(image, weight, padding=1) * mask
    torch.testing.assert_close(output, expected)
