"""bfloat16 training on the CPU, where MMEngine's wrapper refuses."""

from contextlib import nullcontext

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper

from lshfm_mm.errors import ConfigError

from .test_execution import roi_model

CONFIG = dict(
    type='mmrazor.BFloat16OptimWrapper',
    optimizer=dict(type='SGD', lr=0.1),
    clip_grad=dict(max_norm=1.0),
)


def test_a_step_under_bfloat16_autocast():
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.Conv2d(8, 4, 1)
    )
    wrapper = build_optim_wrapper(model, Config(CONFIG)._cfg_dict)
    images = torch.randn(2, 3, 8, 8)
    reference = model(images)
    before = model[0].weight.clone()
    with wrapper.optim_context(model):
        output = model(images)
    assert output.dtype == torch.bfloat16
    torch.testing.assert_close(output.float(), reference, rtol=0.1, atol=0.05)
    assert model(images).dtype == torch.float32  # outside it
    assert model[0].weight.dtype == torch.float32
    assert model[0].weight.is_contiguous(memory_format=torch.channels_last)
    wrapper.update_params(output.float().square().mean())
    assert not torch.equal(model[0].weight, before)
    assert model[0].weight.isfinite().all()


def test_a_model_that_pools_rois_is_refused(batch):
    model = roi_model()
    wrapper = build_optim_wrapper(model, Config(CONFIG)._cfg_dict)
    with pytest.raises(ConfigError, match='pools RoIs .*; use OptimWrapper'):
        model.train_step(batch, wrapper)


def gradient(model, images, context):
    model.zero_grad()
    with context:
        output = model(images)
    output.float().square().sum().backward()
    return model[0].weight.grad.clone()


@pytest.mark.parametrize(
    ('kernel', 'stride', 'padding', 'width', 'is_refused'),
    [
        (3, 2, 1, 2, False),
        (3, 2, 1, 1, True),
        (1, 2, 0, 1, False),
        (7, 4, 3, 4, False),
        (7, 4, 3, 3, True),
        (2, 2, 0, 2, False),
        (3, 1, 1, 1, False),
    ],
)
def test_strided_convolutions_of_narrow_maps(
    kernel, stride, padding, width, is_refused
):
    """Those that are not refused have the gradients of float32."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(16, 16, kernel, stride, padding)
    )
    wrapper = build_optim_wrapper(model, Config(CONFIG)._cfg_dict)
    images = torch.randn(2, 16, 4, width)
    expected = gradient(model, images, nullcontext())
    for _ in range(5):
        context = wrapper.optim_context(model)
        if is_refused:
            with pytest.raises(ConfigError, match='wrong on a CPU; use large'):
                gradient(model, images, context)
            continue
        poison = torch.full((1 << 20,), torch.nan, dtype=torch.bfloat16)
        del poison  # for what is not initialised
        found = gradient(model, images, context)
        torch.testing.assert_close(found, expected, rtol=0.05, atol=0.3)
    with torch.no_grad(), wrapper.optim_context(model):
        model(images)
    model[0].weight.requires_grad = False
    with wrapper.optim_context(model):
        model(images)
