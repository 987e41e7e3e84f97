"""bfloat16 training on the CPU, where MMEngine's wrapper refuses."""

import copy
from contextlib import nullcontext

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper

from lshfm_mm.compat import stacks
from lshfm_mm.errors import ConfigError

from .test_detectors import (
    NECK,
    PLAIN_L2,
    distil,
    losses_of,
    record,
    retinanet,
)
from .test_execution import (
    deformable_model,
    needs_compiled,
    needs_torchvision,
    roi_model,
)

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


def deformable_student():
    student = retinanet(8)
    student.backbone.update(
        dcn=dict(type='DCNv2', deform_groups=1, fallback_on_stride=False),
        stage_with_dcn=(False, False, False, True),
        depth=50,
    )
    student.neck.in_channels = [32, 64, 128, 256]
    return distil(
        student, retinanet(8), dict(neck=NECK), dict(neck=[PLAIN_L2])
    )


@pytest.fixture
def large_batch(batch):
    """Of images whose smallest map is not narrower than a stride."""
    batch['inputs'] = [x.repeat(1, 2, 2) for x in batch['inputs']]
    return batch


OPERATORS = {
    r'roi_layers\.0, a RoIAlign': roi_model,
    r'layer4\.0\.conv2, a ModulatedDeformConv2dPack': deformable_student,
}


@needs_compiled
@pytest.mark.parametrize('layer', OPERATORS)
def test_a_model_with_compiled_operators_is_refused(layer, batch):
    model = OPERATORS[layer]()
    wrapper = build_optim_wrapper(model, Config(CONFIG)._cfg_dict)
    with pytest.raises(ConfigError, match=f'cannot train .*{layer}: op') as e:
        model.train_step(batch, wrapper)
    name = stacks.choose().packages['mmcv'][0]
    assert str(e.value).endswith(
        f'"pip uninstall -y {name}", then "python -m lshfm_mm install_mmcv"'
    )


@needs_torchvision
@pytest.mark.parametrize('layer', OPERATORS)
def test_a_model_with_operators_of_torchvision_trains(layer, large_batch):
    """Its first loss is that of float32, but for rounding and for RoIs."""
    torch.manual_seed(0)
    model = OPERATORS[layer]()
    before = copy.deepcopy(model.state_dict())
    losses = []
    for kind, lr in (('OptimWrapper', 0.0), (CONFIG['type'], 0.1)):
        cfg = dict(type=kind, optimizer=dict(type='SGD', lr=lr))
        wrapper = build_optim_wrapper(model, Config(cfg)._cfg_dict)
        torch.manual_seed(1)  # draws of the samplers
        found = model.train_step(copy.deepcopy(large_batch), wrapper)
        losses.append(found['loss'].item())
    assert losses[1] == pytest.approx(losses[0], rel=0.1)
    assert losses[1] != losses[0]
    after = model.state_dict()
    assert all(x.isfinite().all() for x in after.values())
    changed = [k for k, x in before.items() if not torch.equal(after[k], x)]
    assert any('layer4' in x for x in changed)


def test_the_teacher_sees_what_it_sees_without(large_batch):
    """In its own precision and format, deformable convolutions or not."""
    model = deformable_model(teacher_precision='float32')
    wrapper = build_optim_wrapper(model, Config(CONFIG)._cfg_dict)
    calls = record(model.teacher.neck)
    model.train_step(copy.deepcopy(large_batch), wrapper)
    plain = deformable_model(teacher_precision='float32')
    plain_calls = record(plain.teacher.neck)
    losses_of(plain, copy.deepcopy(large_batch))
    for found, expected in zip(calls[0][1], plain_calls[0][1], strict=True):
        assert torch.equal(found, expected)


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
