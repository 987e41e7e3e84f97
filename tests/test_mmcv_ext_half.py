"""mmcv's operators on torchvision: half precision."""

import pytest
import torch

from lshfm_mm.compat import mmcv_ext as ext

from .test_mmcv_ext_maps import GEOMETRIES, deform_inputs, modulated, plain
from .test_mmcv_ext_modes import NAMES, all_of
from .test_mmcv_ext_rois import (
    roi_align,
    roi_pool,
    seed,
    some_maps,
    some_rois,
)

__all__ = ['seed']  # a fixture
HALVES = [torch.float16, torch.bfloat16]


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('dtype', HALVES)
def test_half_precision_is_rounded_once(name, dtype):
    run, inputs = all_of((some_maps(), some_rois()))[name]
    inputs = [x.to(dtype) for x in inputs]
    found = run(*inputs)
    expected = run(*(x.float() for x in inputs))
    assert found.dtype == dtype and found.float().any()
    assert torch.equal(found, expected.to(dtype))


def deform_roi_pool_gradients(maps, rois, offset, grad):
    grads = [torch.zeros_like(x) for x in (maps, offset)]
    ext.deform_roi_pool_backward(
        grad, maps, rois, offset, *grads, 3, 2, 0.5, 2, 0.1
    )
    return grads


def carafe_gradients(features, masks, grad):
    kinds = (grad, grad, features, masks, features, masks)
    grads = [torch.zeros_like(x) for x in kinds]
    ext.carafe_backward(grad, features, masks, *grads, 3, 2, 2)
    return grads[-2:]


def focal_gradients(logits):
    grad, target = torch.zeros_like(logits), torch.tensor([0, 2, 4])
    ext.sigmoid_focal_loss_backward(
        logits, target, logits.new_empty(0), grad, 2.0, 0.25
    )
    return [grad]


def gradients_of(name):
    """What to run, and on what."""
    maps, rois, grad = some_maps(), some_rois(), torch.randn(6, 3, 3, 2)
    inputs, geometry = deform_inputs(GEOMETRIES[1]), GEOMETRIES[1]
    of_maps = torch.randn_like(modulated(inputs, geometry))
    return {
        'roi_align': (
            lambda x, r, g: [roi_align(x, r, 1, 2, True, g)[1]],
            (maps, rois, grad),
        ),
        'roi_pool': (
            lambda x, r, g: [roi_pool(x, r, g)[2]],
            (maps, rois.round(), grad),  # many on the same pixels
        ),
        'deform_roi_pool': (
            deform_roi_pool_gradients,
            (maps, rois, torch.randn(6, 2, 3, 2), grad),
        ),
        'deform_conv': (
            lambda *x: plain(x[:3], geometry, x[3])[1],
            (*inputs[:3], of_maps),
        ),
        'modulated': (
            lambda *x: modulated(x[:5], geometry, True, x[5])[1],
            (*inputs, of_maps),
        ),
        'carafe': (
            carafe_gradients,
            (
                torch.randn(2, 4, 4, 5),
                torch.rand(2, 18, 8, 10),
                torch.randn(2, 4, 8, 10),
            ),
        ),
        'focal': (focal_gradients, (torch.randn(3, 4),)),
    }[name]


GRADIENTS = (
    'roi_align',
    'roi_pool',
    'deform_roi_pool',
    'deform_conv',
    'modulated',
    'carafe',
    'focal',
)


@pytest.mark.parametrize('name', GRADIENTS)
@pytest.mark.parametrize('dtype', HALVES)
def test_gradients_are_rounded_once(name, dtype):
    run, inputs = gradients_of(name)
    inputs = [x.to(dtype) for x in inputs]
    found, expected = run(*inputs), run(*(x.float() for x in inputs))
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == dtype and one.any()
        assert torch.equal(one, other.to(dtype))
