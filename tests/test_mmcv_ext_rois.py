"""mmcv's operators on torchvision: pooling of RoIs.

References are loops over samples in float64, in torch, so that autograd gives
the gradients too.
"""

import math

import pytest
import torch

from lshfm_mm.compat import mmcv_ext as ext

DOUBLE = torch.float64


def pixel(image, row, column):
    """(C,) of (C, H, W), 0 outside."""
    height, width = image.shape[1:]
    if 0 <= row < height and 0 <= column < width:
        return image[:, row, column]
    return image.new_zeros(len(image))


def interpolated(image, y, x):
    """Bilinear, with zeros outside of the map."""
    row, column = math.floor(y), math.floor(x)
    low_y, low_x = y - row, x - column
    return (
        (1 - low_y) * (1 - low_x) * pixel(image, row, column)
        + (1 - low_y) * low_x * pixel(image, row, column + 1)
        + low_y * (1 - low_x) * pixel(image, row + 1, column)
        + low_y * low_x * pixel(image, row + 1, column + 1)
    )


def sampled_by_roi_align(image, y, x):
    """Bilinear, 0 beyond a pixel from the map, clamped within."""
    height, width = image.shape[1:]
    if not (-1 <= y <= height and -1 <= x <= width):
        return image.new_zeros(len(image))
    y = y.clamp(0, height - 1) if torch.is_tensor(y) else y
    x = x.clamp(0, width - 1) if torch.is_tensor(x) else x
    return interpolated(image, y, x)


def slope_of_deformable_pooling(image, y, x):
    """What mmcv differentiates by the place: it does not clamp that."""
    height, width = image.shape[1:]
    if not (-1 <= y <= height and -1 <= x <= width):
        return image.new_zeros(len(image))
    y0, x0 = (
        min(max(math.floor(p), 0), n - 1) for p, n in ((y, height), (x, width))
    )
    y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
    return (y1 - y) * (
        (x1 - x) * image[:, y0, x0] + (x - x0) * image[:, y0, x1]
    ) + (y - y0) * ((x1 - x) * image[:, y1, x0] + (x - x0) * image[:, y1, x1])


def samples_of_rois(
    maps, rois, bins, scale, ratio, aligned, sample=sampled_by_roi_align
):
    """(R, bins[0], bins[1]) lists of samples, (S, C)."""
    shift = 0.5 if aligned else 0.0
    for image, *corners in rois.double():
        x1, y1, x2, y2 = (x * scale - shift for x in corners)
        sides = [y2 - y1, x2 - x1]
        if not aligned:
            sides = [max(x, x.new_tensor(1)) for x in sides]
        counts = [
            ratio or math.ceil(side.detach() / n)
            for side, n in zip(sides, bins, strict=True)
        ]
        steps = [side / n for side, n in zip(sides, bins, strict=True)]
        for i in range(bins[0]):
            for j in range(bins[1]):
                yield [
                    sample(
                        maps[int(image)],
                        y1 + (i + (a + 0.5) / counts[0]) * steps[0],
                        x1 + (j + (b + 0.5) / counts[1]) * steps[1],
                    )
                    for a in range(counts[0])
                    for b in range(counts[1])
                ]


def some_rois():
    """In, partly out, wholly out, without an area, of the second image."""
    return torch.tensor(
        [
            [0, 1.3, 2.1, 17.4, 13.9],
            [1, -9.2, -6.3, 8.7, 9.1],
            [0, 14.2, 9.7, 40.3, 31.5],
            [1, 90.1, 90.2, 99.3, 98.4],
            [0, 6.6, 5.5, 6.6, 5.5],
            [1, 0.4, 0.3, 23.6, 15.7],
        ]
    )


def some_maps(channels=3, dtype=torch.float32, size=(8, 12)):
    return torch.randn(2, channels, *size, dtype=dtype)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def roi_align(maps, rois, mode, ratio, aligned, grad=None):
    """Values, and gradients of the maps where there is a ``grad``."""
    bins, settings = (3, 2), (3, 2, 0.5, ratio, mode, aligned)
    output = maps.new_zeros(len(rois), maps.shape[1], *bins)
    argmax = [torch.zeros_like(output) for _ in range(2)]
    ext.roi_align_forward(maps, rois, output, *argmax, *settings)
    if grad is None:
        return output
    grad_maps = torch.zeros_like(maps)
    ext.roi_align_backward(grad, rois, *argmax, grad_maps, *settings)
    return output, grad_maps


@pytest.mark.parametrize('mode', [0, 1])
@pytest.mark.parametrize('ratio', [0, 2])
@pytest.mark.parametrize('aligned', [True, False])
def test_roi_align(mode, ratio, aligned):
    maps, rois = some_maps(dtype=DOUBLE).requires_grad_(), some_rois()
    grad = torch.randn(len(rois), 3, 3, 2, dtype=DOUBLE)
    expected = []
    for samples in samples_of_rois(maps, rois, (3, 2), 0.5, ratio, aligned):
        if not samples:
            expected.append(maps.new_zeros(3))
        else:
            samples = torch.stack(samples)
            expected.append(samples.mean(0) if mode else samples.amax(0))
    expected = torch.stack(expected).view(len(rois), 3, 2, 3)
    expected = expected.permute(0, 3, 1, 2)
    (grad_maps,) = torch.autograd.grad(expected, maps, grad)
    found = roi_align(maps.detach(), rois, mode, ratio, aligned, grad)
    torch.testing.assert_close(found[0], expected)
    torch.testing.assert_close(found[1], grad_maps)
    assert expected[0].all() and not expected[3].any()
    single = roi_align(maps.detach().float(), rois, mode, ratio, aligned)
    torch.testing.assert_close(single.double(), expected, rtol=0, atol=1e-5)


def test_roi_align_of_no_rois():
    maps, rois = some_maps(), some_rois()[:0]
    for mode in (0, 1):
        grad = torch.zeros(0, 3, 3, 2)
        values, grad_maps = roi_align(maps, rois, mode, 0, True, grad)
        assert values.shape == (0, 3, 3, 2) and not grad_maps.any()


def roi_pool(maps, rois, grad=None):
    output = maps.new_zeros(len(rois), maps.shape[1], 3, 2)
    argmax = torch.zeros_like(output, dtype=torch.int32)
    ext.roi_pool_forward(maps, rois, output, argmax, 3, 2, 0.5)
    if grad is None:
        return output, argmax
    grad_maps = torch.zeros_like(maps)
    ext.roi_pool_backward(grad, rois, argmax, grad_maps, 3, 2, 0.5)
    return output, argmax, grad_maps


def test_roi_pool():
    maps = some_maps(dtype=DOUBLE)
    maps[0, 0] = 1.0  # of equal pixels the first is taken
    rois = some_rois()
    rois[4, 3:] -= 1  # without an area, as mmcv counts
    rois[3] = torch.tensor([0, 5.0, 5, 3, 9])  # of a negative one
    grad = torch.randn(len(rois), 3, 3, 2, dtype=DOUBLE)
    values, grad_maps = torch.zeros(len(rois), 3, 3, 2), torch.zeros_like(maps)
    at = torch.full(values.shape, -1)
    for n, (image, *corners) in enumerate(rois.tolist()):
        x1, y1 = corners[0] * 0.5, corners[1] * 0.5
        sides = [(y + 1) * 0.5 for y in corners[:1:-1]]
        sides = [sides[0] - y1, sides[1] - x1]
        if min(sides) < 1e-6:
            continue
        for i in range(3):
            for j in range(2):
                rows, columns = (
                    range(
                        max(math.floor(k * side / bins + start), 0),
                        min(math.ceil((k + 1) * side / bins + start), size),
                    )
                    for k, side, bins, start, size in (
                        (i, sides[0], 3, y1, 8),
                        (j, sides[1], 2, x1, 12),
                    )
                )
                for c in range(3):
                    best = -math.inf
                    for y in rows:
                        for x in columns:
                            value = float(maps[int(image), c, y, x])
                            if value > best:
                                best, place = value, (y, x)
                    if best > -math.inf:
                        values[n, c, i, j] = best
                        at[n, c, i, j] = place[0] * 12 + place[1]
                        grad_maps[(int(image), c, *place)] += grad[n, c, i, j]
    found = roi_pool(maps, rois, grad)
    torch.testing.assert_close(found[0].float(), values)
    assert torch.equal(found[1], at.int())
    torch.testing.assert_close(found[2], grad_maps)
    assert values[0].all() and not values[3:5].any() and at[3:5].eq(-1).all()
    assert roi_pool(maps, rois[:0])[0].shape == (0, 3, 3, 2)


def deformable_pooling(maps, rois, offset, ratio, sample):
    """By loops, with as many samples a bin as mmcv's kernel takes."""
    bins, scale, gamma = (3, 2), 0.5, 0.3
    bins_of_rois = []
    for n, (image, *corners) in enumerate(rois.double()):
        x1, y1, x2, y2 = (x * scale - 0.5 for x in corners)
        sides = [y2 - y1, x2 - x1]
        steps = [side / n for side, n in zip(sides, bins, strict=True)]
        rows, columns = (ratio or math.ceil(step) for step in steps)
        for i in range(3):
            for j in range(2):
                move_x, move_y = gamma * offset[n, :, i, j]
                y, x = (
                    y1 + i * steps[0] + move_y * sides[0],
                    x1 + j * steps[1] + move_x * sides[1],
                )
                samples = [
                    sample(
                        maps[int(image)],
                        y + (a + 0.5) * steps[0] / rows,
                        x + (b + 0.5) * steps[1] / columns,
                    )
                    for a in range(rows)
                    for b in range(columns)
                ]
                bins_of_rois.append(torch.stack(samples).mean(0))
    return torch.stack(bins_of_rois).view(-1, 3, 2, 3).permute(0, 3, 1, 2)


# Bins of 4 x 3 and of 2 x 3 pixels of the map; moved ones, in float32, are
# not so exactly.
OF_WHOLE_PIXELS = [[0.0, 1, 3, 17, 21], [1, 0, 1, 8, 19], [0, 9, 2, 17, 20]]


@pytest.mark.parametrize('ratio', [0, 2])
@pytest.mark.parametrize('with_offset', [True, False])
@pytest.mark.parametrize('dtype', [torch.float32, DOUBLE])
def test_deformable_roi_pooling(ratio, with_offset, dtype):
    maps = some_maps(dtype=dtype).double().requires_grad_()
    rois = some_rois()[[0, 1, 2, 3, 5]].to(dtype)
    if dtype == torch.float32:
        rois = torch.tensor(OF_WHOLE_PIXELS).repeat(4, 1)
    offset = torch.randn(len(rois), 2, 3, 2, dtype=dtype) * with_offset
    offset = offset.double().requires_grad_()
    expected = deformable_pooling(
        maps, rois, offset, ratio, sampled_by_roi_align
    )
    grad = torch.randn(expected.shape, dtype=dtype)
    settings = (3, 2, 0.5, ratio, 0.3)
    given = [x.detach().to(dtype) for x in (maps, rois, offset)]
    if not with_offset:
        given[2] = given[2].new_zeros(0)
    output = torch.zeros_like(grad)
    ext.deform_roi_pool_forward(*given, output, *settings)
    near = dict(rtol=1e-4, atol=1e-4) if dtype == torch.float32 else {}
    torch.testing.assert_close(output.double(), expected, **near)
    grads = [torch.zeros_like(given[0]), torch.zeros_like(given[2])]
    ext.deform_roi_pool_backward(grad, *given, *grads, *settings)
    (wanted,) = torch.autograd.grad(expected, maps, grad.double())
    torch.testing.assert_close(grads[0].double(), wanted, **near)
    if with_offset:
        slopes = deformable_pooling(
            maps, rois, offset, ratio, slope_of_deformable_pooling
        )
        (wanted,) = torch.autograd.grad(slopes, offset, grad.double())
        torch.testing.assert_close(grads[1].double(), wanted, **near)
