"""mmcv's operators on torchvision: losses, attention, normalisation."""

import pytest
import torch
from torch import nn

from lshfm_mm.compat import mmcv_ext as ext

from .test_mmcv_ext_rois import DOUBLE, interpolated, seed

__all__ = ['seed']  # a fixture

# Losses


def sigmoid_focal(logits, target, weight, gamma, alpha):
    rows = []
    for row, label in zip(logits, target.tolist(), strict=True):
        values = []
        for c, x in enumerate(row):
            p = 1 / (1 + torch.exp(-x))
            if c == label:
                value = -alpha * (1 - p) ** gamma * torch.log(p)
            else:
                value = -(1 - alpha) * p**gamma * torch.log(1 - p)
            if weight is not None:
                value = value * (weight[label] if label < len(row) else 0)
            values.append(value)
        rows.append(torch.stack(values))
    return torch.stack(rows)


def softmax_focal(logits, target, weight, gamma, alpha):
    values = []
    for row, label in zip(logits, target.tolist(), strict=True):
        value = row.sum() * 0
        if label >= 0:
            p = torch.exp(row[label]) / torch.exp(row).sum()
            value = -alpha * (1 - p) ** gamma * torch.log(p)
        if weight is not None:
            value = value * weight[label]
        values.append(value)
    return torch.stack(values)


@pytest.mark.parametrize('is_weighted', [True, False])
def test_sigmoid_focal_loss(is_weighted):
    logits = torch.randn(9, 4, dtype=DOUBLE, requires_grad=True)
    target = torch.tensor([0, 1, 2, 3, 4, 4, 1, 0, 3])  # 4: background
    weight = torch.rand(4, dtype=DOUBLE) if is_weighted else None
    settings = (2.0, 0.25)
    expected = sigmoid_focal(logits, target, weight, *settings)
    (wanted,) = torch.autograd.grad(expected.sum(), logits)
    inputs = (logits.detach(), target, logits.new_empty(0))
    if is_weighted:
        inputs = (*inputs[:2], weight)
    found, grad = torch.empty(9, 4, dtype=DOUBLE), torch.empty_like(wanted)
    ext.sigmoid_focal_loss_forward(*inputs, found, *settings)
    ext.sigmoid_focal_loss_backward(*inputs, grad, *settings)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(grad, wanted)


@pytest.mark.parametrize('is_weighted', [True, False])
def test_softmax_focal_loss(is_weighted):
    logits = torch.randn(6, 4, dtype=DOUBLE, requires_grad=True)
    target = torch.tensor([0, 1, 2, 3, 1, 3])
    if not is_weighted:
        target[4] = -1  # ignored
    weight = torch.rand(4, dtype=DOUBLE) if is_weighted else None
    settings = (2.0, 0.25)
    expected = softmax_focal(logits, target, weight, *settings)
    (wanted,) = torch.autograd.grad(expected.sum(), logits)
    softmax = logits.detach().softmax(1)
    inputs = (softmax, target, weight if is_weighted else logits.new_empty(0))
    found, factor = (torch.empty(6, dtype=DOUBLE) for _ in range(2))
    grad = torch.empty_like(wanted)
    ext.softmax_focal_loss_forward(*inputs, found, *settings)
    ext.softmax_focal_loss_backward(*inputs, factor, grad, *settings)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(grad, wanted)


def test_focal_losses_of_certain_predictions_are_finite():
    logits = torch.tensor([[200.0, -200], [-200, 200]])
    inputs = (logits, torch.tensor([0, 0]), torch.empty(0))
    loss, grad = torch.empty(2, 2), torch.empty(2, 2)
    ext.sigmoid_focal_loss_forward(*inputs, loss, 2.0, 0.25)
    ext.sigmoid_focal_loss_backward(*inputs, grad, 2.0, 0.25)
    assert loss[0].eq(0).all() and loss[1].min() > 10
    assert loss.isfinite().all() and grad.isfinite().all()


# Attention

SHAPES = [(4, 3), (2, 5)]


def attention_inputs(dtype=DOUBLE):
    value = torch.randn(2, 22, 2, 3, dtype=dtype)
    locations = torch.rand(2, 5, 2, 2, 4, 2, dtype=dtype) * 1.4 - 0.2
    weights = torch.rand(2, 5, 2, 2, 4, dtype=dtype)
    return value, locations, weights


def attend(value, locations, weights, grad=None):
    shapes = torch.tensor(SHAPES)
    levels = (value, shapes, torch.tensor([0, 12]))
    output = ext.ms_deform_attn_forward(*levels, locations, weights, 64)
    if grad is None:
        return output
    grads = [torch.zeros_like(x) for x in (value, locations, weights)]
    ext.ms_deform_attn_backward(*levels, locations, weights, grad, *grads, 64)
    return output, grads


def attend_by_loops(value, locations, weights):
    images = []
    for image, places, shares in zip(value, locations, weights, strict=True):
        rows = []
        for query in range(5):
            heads = []
            for head in range(2):
                total = torch.zeros(3, dtype=DOUBLE)
                for level, (height, width) in enumerate(SHAPES):
                    first = 12 * level
                    pixels = image[first : first + height * width, head]
                    pixels = pixels.T.reshape(3, height, width)
                    for point in range(4):
                        at = places[query, head, level, point]
                        share = shares[query, head, level, point]
                        total = total + share * interpolated(
                            pixels, at[1] * height - 0.5, at[0] * width - 0.5
                        )
                heads.append(total)
            rows.append(torch.cat(heads))
        images.append(torch.stack(rows))
    return torch.stack(images)


def test_multi_scale_deformable_attention():
    inputs = [x.requires_grad_() for x in attention_inputs()]
    expected = attend_by_loops(*inputs)
    grad = torch.randn_like(expected)
    wanted = torch.autograd.grad(expected, inputs, grad)
    found, grads = attend(*(x.detach() for x in inputs), grad)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(grads, list(wanted))


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_attention_under_autocast(dtype):
    """Its precision is that of the values, not that of autocast."""
    value, locations, weights = attention_inputs(torch.float32)
    value, grad = value.to(dtype), torch.randn(2, 5, 6).to(dtype)
    expected, wanted = attend(value, locations, weights, grad)
    with torch.autocast('cpu', torch.bfloat16):
        found, grads = attend(value, locations, weights, grad)
    assert found.dtype == dtype and torch.equal(found, expected)
    assert all(map(torch.equal, grads, wanted))


# Normalisation


@pytest.mark.parametrize('is_affine', [True, False])
def test_synchronised_normalisation_of_one_process(is_affine):
    """As BatchNorm; with more than one, mmcv averages between the steps."""
    x = (torch.randn(4, 3, 5) * 2 + 1).requires_grad_()
    norm = nn.BatchNorm1d(3, momentum=0.3, affine=is_affine)
    weight = bias = None
    if is_affine:
        weight, bias = norm.weight.data.uniform_(), norm.bias.data.uniform_()
    running = [torch.zeros(3), torch.ones(3)]
    expected = norm(x)
    mean, var, std = torch.zeros(3), torch.zeros(3), torch.zeros(3)
    normed, output = torch.zeros(4, 3, 5), torch.zeros(4, 3, 5)
    ext.sync_bn_forward_mean(x.detach(), mean)
    ext.sync_bn_forward_var(x.detach(), mean, var)
    ext.sync_bn_forward_output(
        *(x.detach(), mean, var, weight, bias, *running, normed, std),
        *(output, norm.eps, torch.tensor([0.3]), 1),  # mmcv's is a tensor
    )
    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(running[0], norm.running_mean)
    torch.testing.assert_close(running[1], norm.running_var)
    if is_affine:
        grad = torch.randn(4, 3, 5)
        wanted = torch.autograd.grad(expected, [x, *norm.parameters()], grad)
        grads = [torch.zeros(4, 3, 5), torch.zeros(3), torch.zeros(3)]
        ext.sync_bn_backward_param(grad, normed, *grads[1:])
        ext.sync_bn_backward_data(
            grad, weight, *grads[1:], normed, std, grads[0]
        )
        torch.testing.assert_close(grads, list(wanted), rtol=1e-4, atol=1e-5)
