"""How the teacher computes: the same numbers, and no layer too many."""

import copy
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmcv.ops import RoIAlign
from mmdet.registry import MODELS as MMDET_MODELS
from mmengine.logging import MMLogger
from torch import nn
from torch._subclasses import FakeTensorMode

from lshfm_mm.compat.operators import (
    are_compiled,
    knows_operators,
    layers_with_compiled_operators,
)
from lshfm_mm.errors import ConfigError
from lshfm_mm.losses import lsh_loss
from lshfm_mm.teachers.execution import (
    TeacherExecution,
    skipped,
    unneeded_layers,
)
from lshfm_mm.teachers.settings import TeacherSettings
from lshfm_mm.utils.rng import forked_rng

from .conftest import mmdet_config
from .test_detectors import (
    NECK,
    PLAIN_L2,
    distil,
    faster,
    losses_of,
    record,
    retinanet,
)

REPO = Path(__file__).parent.parent
needs_compiled = pytest.mark.skipif(
    not are_compiled(), reason="this mmcv's operators are not compiled"
)
needs_torchvision = pytest.mark.skipif(
    are_compiled(), reason="this mmcv's operators are compiled"
)
LSH = dict(type='LSHLoss', num_hashes=16)


def roi_model(**more):
    return distil(
        faster(4),
        faster(8),
        dict(roi='roi_head.bbox_head.fc_cls'),
        dict(roi=[LSH, PLAIN_L2]),
        type='RoIMimicDistill',
        **more,
    )


def dense_model(**more):
    return distil(
        retinanet(4),
        retinanet(8),
        dict(cls='bbox_head.retina_cls'),
        dict(cls=[LSH, PLAIN_L2]),
        **more,
    )


BUILDERS = [roi_model, dense_model]


def mimic_losses(model, batch):
    return {
        name: float(value)
        for name, value in losses_of(model, batch).items()
        if 'distill' in name
    }


@pytest.mark.parametrize('build', BUILDERS)
def test_channels_last_changes_no_number(build, batch):
    expected = mimic_losses(build(), batch)
    model = build(teacher_channels_last=True)
    seen = record(model.teacher.backbone)
    found = mimic_losses(model, batch)
    assert found == pytest.approx(expected, rel=1e-4)
    (image,), (_, level, *_) = seen[0]
    last = torch.channels_last
    assert image.is_contiguous(memory_format=last)
    assert level.is_contiguous(memory_format=last)
    conv = model.student.backbone.layer1[0].conv1.weight
    assert not conv.is_contiguous(memory_format=last)


@pytest.mark.parametrize('aligned', [True, False])
def test_torchvision_pools_what_mmcv_pools(aligned):
    """What the teacher's RoIs rest on, on the CPU."""
    maps = torch.randn(2, 3, 20, 30)
    centre = torch.rand(2000, 2) * torch.tensor([480.0, 320.0])
    half = torch.exp(torch.randn(2000, 2) * 2 + 3) / 2
    half[:50] = 0  # no area
    centre[50:100] += 2000  # outside of the image
    image = torch.randint(0, 2, (2000, 1)).float()
    rois = torch.cat([image, centre - half, centre + half], 1)
    extractor = RoIAlign(7, 1 / 16, aligned=aligned)
    for chosen in (rois, rois[:0]):
        expected = extractor(maps, chosen)
        assert not extractor.use_torchvision
        execution = TeacherExecution(TeacherSettings(model=None))
        with execution.on_rois(extractor, [maps]) as (pooled,):
            found = extractor(pooled, chosen)
        assert extractor.use_torchvision
        assert torch.equal(found, expected)
        extractor.use_torchvision = False


@pytest.mark.parametrize('build', BUILDERS)
@pytest.mark.parametrize('precision', ['bfloat16', 'float16'])
def test_a_teacher_in_half_precision(build, precision, batch):
    expected = mimic_losses(build(), batch)
    model = build(teacher_precision=precision)
    theirs, ours = (record(x.backbone) for x in (model.teacher, model.student))
    pooled = []
    if build is roi_model:
        pooled = record(model.teacher.roi_head.bbox_roi_extractor)
    found = mimic_losses(model, batch)
    assert theirs[0][1][0].dtype == getattr(torch, precision)
    assert ours[0][1][0].dtype == torch.float32
    assert len(pooled) == (build is roi_model)
    for (features, _), _ in pooled:
        assert all(x.dtype == torch.float32 for x in features)
    assert found == pytest.approx(expected, rel=0.05)
    assert found != expected


def test_a_teacher_in_full_precision_under_autocast(batch):
    for precision, dtype in (
        (None, torch.bfloat16),
        ('float32', torch.float32),
    ):
        model = dense_model(teacher_precision=precision)
        theirs, ours = (
            record(x.backbone) for x in (model.teacher, model.student)
        )
        with torch.autocast('cpu', torch.bfloat16):
            mimic_losses(model, batch)
        assert theirs[0][1][0].dtype == dtype
        assert ours[0][1][0].dtype == torch.bfloat16


@pytest.mark.parametrize(
    ('more', 'message'),
    [
        (
            dict(teacher_precision='half'),
            r"teacher_precision: must be one of .*, but got 'half'",
        ),
        (
            dict(teacher_channels_last=1),
            'teacher_channels_last: must be True or False, but got 1',
        ),
        (
            dict(teacher_compile='yes'),
            "teacher_compile: must be True or False, but got 'yes'",
        ),
    ],
)
def test_unknown_settings(more, message):
    with pytest.raises(ConfigError, match=message):
        dense_model(**more)


def test_a_tap_in_the_backbone_leaves_the_neck_alone(batch):
    model = distil(
        retinanet(4),
        retinanet(4),
        dict(stage=dict(layer='backbone.layer4', record='output')),
        dict(stage=[PLAIN_L2]),
    )
    calls = [record(getattr(model.teacher, x)) for x in ('backbone', 'neck')]
    assert mimic_losses(model, batch)
    assert [len(x) for x in calls] == [1, 0]


# Layers that need not run


def convolutions_that_ran(module, run):
    """Names of the convolutions of a module that compute."""
    names = {
        x: name for name, x in module.named_modules() if type(x) is nn.Conv2d
    }
    ran = set()
    original = nn.Conv2d._conv_forward

    def watch(self, *args):
        if self in names:
            ran.add(names[self])
        return original(self, *args)

    nn.Conv2d._conv_forward = watch
    try:
        run()
    finally:
        nn.Conv2d._conv_forward = original
    return ran, set(names.values()) - ran


def test_the_regression_tower_does_not_run(batch):
    model = dense_model()
    expected = mimic_losses(model, batch)  # looks for the layers
    ran, slept = convolutions_that_ran(
        model.teacher.bbox_head, lambda: mimic_losses(model, batch)
    )
    assert ran == {f'cls_convs.{i}.conv' for i in range(4)}
    assert slept == {
        *(f'reg_convs.{i}.conv' for i in range(4)),
        'retina_cls',
        'retina_reg',
    }
    assert mimic_losses(model, batch) == expected
    # Nothing is skipped where no tap is served.
    with torch.no_grad():
        images = torch.rand(1, 3, 64, 64)
        ran, _ = convolutions_that_ran(
            model.teacher.bbox_head,
            lambda: model.teacher(images, None, mode='tensor'),
        )
    assert len(ran) == 10
    assert not any(x.requires_grad for x in model.teacher.parameters())


def test_scores_are_computed_where_they_weigh(batch):
    """Confidence needs the class layer, and its values stay."""
    tap = dict(layer='bbox_head.retina_cls', weights='confidence')
    model = distil(retinanet(4), retinanet(8), dict(cls=tap), dict(cls=[LSH]))
    calls = record(model.teacher.bbox_head.retina_cls)
    mimic_losses(model, batch)
    ran, _ = convolutions_that_ran(
        model.teacher.bbox_head, lambda: mimic_losses(model, batch)
    )
    assert ran == {'retina_cls', *(f'cls_convs.{i}.conv' for i in range(4))}
    assert calls[-1][1].abs().min() > 0


@pytest.mark.parametrize(
    ('path', 'layer', 'slept'),
    [
        ('gfl/gfl_r50_fpn_1x_coco.py', 'gfl_cls', 'gfl_reg'),
        ('fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py', 'conv_cls', 'conv_reg'),
        ('retinanet/retinanet_r50_fpn_1x_coco.py', 'retina_cls', 'retina_reg'),
    ],
)
def test_skipping_changes_no_feature_of_mmdets_heads(path, layer, slept):
    config = mmdet_config(path).model
    config.backbone.update(init_cfg=None, depth=50, base_channels=8)
    config.neck.in_channels = [32, 64, 128, 256]
    with forked_rng():
        torch.manual_seed(0)
        model = MMDET_MODELS.build(config).eval().requires_grad_(False)
        images = torch.rand(1, 3, 96, 64)
    calls = record(getattr(model.bbox_head, layer))

    def run():
        calls.clear()
        model(images, None, mode='tensor')
        return [inputs[0] for inputs, _ in calls]

    expected = run()
    layers = unneeded_layers(model.bbox_head.modules(), run)
    assert getattr(model.bbox_head, slept) in layers
    with skipped(layers):
        found = run()
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)
    assert len(layers) >= 6


class Detached(nn.Module):
    """Values that depend on a layer, and gradients that do not."""

    def __init__(self):
        super().__init__()
        self.mask, self.value = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

    def forward(self, images):
        return self.value(images) * (self.mask(images) > 0).detach()


@pytest.mark.parametrize(
    'run',
    [
        lambda model: [model(IMAGES)],
        lambda model: [model(IMAGES).detach()],
        lambda model: [],
        lambda model: [NoGradient.apply(model.value(IMAGES))],
    ],
)
def test_where_a_value_depends_without_a_gradient_all_runs(run):
    model = Detached().requires_grad_(False)
    found = unneeded_layers(model.modules(), lambda: run(model))
    assert found == []
    assert not any(x.requires_grad for x in model.parameters())


def test_that_nothing_is_skipped_stands_in_the_log(caplog):
    model = Detached().requires_grad_(False)
    logger = MMLogger.get_current_instance()  # of the last run
    level = logger.level
    # Not by its attribute: a logger remembers which levels it is enabled for.
    logger.setLevel(logging.INFO)
    logger.addHandler(caplog.handler)
    unneeded_layers(model.modules(), lambda: [model(IMAGES)])
    logger.removeHandler(caplog.handler)
    logger.setLevel(level)
    (line,) = (x for x in caplog.messages if 'teacher: all of' in x)
    assert line == (
        'teacher: all of its head runs, since what is tapped is not bit for '
        'bit the same without 1 layers that get no gradient'
    )


def test_the_trial_is_deterministic():
    """cudnn may else choose another algorithm in the second run."""
    model, cudnn = Detached().requires_grad_(False), torch.backends.cudnn
    seen = []

    def run():
        seen.append((cudnn.deterministic, cudnn.benchmark))
        return [model.value(IMAGES)]

    cudnn.benchmark = True
    try:
        assert unneeded_layers(model.modules(), run) == [model.mask]
        assert (cudnn.deterministic, cudnn.benchmark) == (False, True)
    finally:
        cudnn.benchmark = False
    assert seen[1:] == [(True, False)] * 2


@pytest.mark.parametrize(
    ('device', 'error', 'message'),
    [
        ('cuda', torch.OutOfMemoryError, 'CUDA out of memory'),
        ('cpu', RuntimeError, 'DefaultCPUAllocator'),
    ],
)
def test_full_memory_is_no_missing_gradient(device, error, message):
    model = Detached().requires_grad_(False)
    run = lambda: [OutOfMemory.apply(model.value(IMAGES), device)]  # noqa: E731
    with pytest.raises(error, match=message):
        unneeded_layers(model.modules(), run)
    assert not any(x.requires_grad for x in model.parameters())


IMAGES = torch.rand(1, 3, 4, 4)


class OutOfMemory(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, device):
        ctx.device = device
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        if ctx.device == 'cuda':
            raise torch.OutOfMemoryError('CUDA out of memory')
        return grad.new_empty(2**60), None  # really


class NoGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        raise RuntimeError('has no derivative')


# Operators of mmcv: compiled ones know one memory format, and no bfloat16


def deformable_model(**more):
    teacher = retinanet(8)
    teacher.backbone.update(
        dcn=dict(type='DCNv2', deform_groups=1, fallback_on_stride=False),
        stage_with_dcn=(False, False, False, True),
        depth=50,
    )
    teacher.neck.in_channels = [32, 64, 128, 256]
    taps, losses = dict(neck=NECK), dict(neck=[PLAIN_L2])
    model = distil(retinanet(4), teacher, taps, losses, **more)
    with forked_rng():  # offsets of a trained model
        torch.manual_seed(0)
        for name, x in model.teacher.named_parameters():
            if 'conv_offset' in name:
                x.normal_(std=0.1)
    return model


LAYER = r'the teacher has backbone\.layer4\.0\.conv2, a Modulated'


@needs_compiled
def test_compiled_operators_are_refused_in_channels_last():
    message = f'teacher_channels_last: {LAYER}.*; set it to False'
    with pytest.raises(ConfigError, match=message):
        deformable_model(teacher_channels_last=True)


@needs_compiled
def test_compiled_operators_are_refused_in_bfloat16(batch):
    message = f"teacher_precision: {LAYER}.*; set it to 'float32'"
    with pytest.raises(ConfigError, match=message):
        mimic_losses(deformable_model(teacher_precision='bfloat16'), batch)
    with torch.autocast('cpu', torch.bfloat16):
        with pytest.raises(ConfigError, match=message):
            mimic_losses(deformable_model(), batch)
        mimic_losses(deformable_model(teacher_precision='float32'), batch)


@needs_torchvision
def test_operators_of_torchvision_know_any_format_and_precision(batch):
    expected = mimic_losses(deformable_model(), batch)
    found = mimic_losses(deformable_model(teacher_channels_last=True), batch)
    assert found == pytest.approx(expected, rel=1e-4)
    found = mimic_losses(deformable_model(teacher_precision='bfloat16'), batch)
    assert found == pytest.approx(expected, rel=0.1) and found != expected


def test_who_knows_operators_of_mmcv():
    """By name too; losses and what mmcv writes in torch do not count."""
    assert knows_operators('mmcv.ops.modulated_deform_conv')
    assert knows_operators('mmcv.ops.multi_scale_deform_attn')
    assert knows_operators('mmdet.models.dense_heads.tood_head')
    assert not knows_operators('mmdet.models.losses.focal_loss')
    assert not knows_operators('mmcv.ops.corner_pool')
    assert not knows_operators('torch.nn.modules.conv')
    assert not knows_operators('a.script.that.left.no.module')
    model = roi_model()
    found = dict(layers_with_compiled_operators(model))
    assert bool(found) == are_compiled()
    if found:
        assert {type(x) for x in found.values()} == {RoIAlign}


@pytest.mark.parametrize('channels_last', [True, False])
def test_the_teacher_keeps_its_memory_format(channels_last):
    """It has its own setting; elsewhere its operators may not know it."""
    model = dense_model(teacher_channels_last=channels_last)
    last = torch.channels_last
    model.to(memory_format=torch.contiguous_format if channels_last else last)
    model.double()
    student, teacher = (
        x.backbone.layer1[0].conv2.weight
        for x in (model.student, model.teacher)
    )
    assert student.is_contiguous(memory_format=last) != channels_last
    assert teacher.is_contiguous(memory_format=last) == channels_last
    assert teacher.dtype == student.dtype == torch.float64


def test_skipped_layers_keep_their_shape():
    inputs = torch.rand(2, 6, 13, 10)
    for layer in (
        nn.Conv2d(6, 4, 3, stride=2, padding=1),
        nn.Conv2d(6, 5, (3, 1), padding=(2, 0), dilation=2),
        nn.Conv2d(6, 6, 1, groups=3),
    ):
        expected = layer(inputs).shape
        with skipped([layer]):
            found = layer(inputs)
        assert found.shape == expected and not found.any()
        assert layer(inputs).any()
        assert 'forward' not in vars(layer)  # nothing of the patch is left


def test_skipped_layers_get_back_a_forward_of_their_own():
    layer, inputs = nn.Conv2d(3, 2, 1), torch.rand(1, 3, 4, 4)
    layer.forward = own = lambda x: x
    with skipped([layer, layer]), skipped([layer]):
        pass
    assert layer.forward is own
    with skipped([layer]):
        with skipped([layer]):
            pass
        assert not layer(inputs).any()
    assert layer(inputs) is inputs


# Nothing waits for the device


@pytest.mark.parametrize('build', BUILDERS)
@pytest.mark.parametrize('weights', ['uniform', 'balanced', 'confidence'])
def test_a_step_reads_no_value_of_a_tensor(
    build,
    weights,
    batch,
):
    """Fake tensors have shapes and no values: reading one is an error."""
    taps = {
        roi_model: dict(roi='roi_head.bbox_head.fc_cls'),
        dense_model: dict(cls='bbox_head.retina_cls'),
    }[build]
    taps = {k: dict(layer=v, weights=weights) for k, v in taps.items()}
    pair, kind = (
        (faster, 'RoIMimicDistill')
        if build is roi_model
        else (retinanet, 'FeatureMimicDistill')
    )
    losses = {k: [LSH, dict(type='RelativeL2Loss')] for k in taps}
    model = distil(pair(4), pair(8), taps, losses, type=kind)
    data = model.data_preprocessor(copy.deepcopy(batch), True)
    inputs, samples = data['inputs'], data['data_samples']
    model._run_student(inputs, samples)
    model.record_teacher(inputs, samples)
    mode = FakeTensorMode(allow_non_fake_inputs=True)

    def fake(x):
        if isinstance(x, torch.Tensor):
            return mode.from_tensor(x.detach()).requires_grad_(x.requires_grad)
        if isinstance(x, list | tuple):
            return type(x)(map(fake, x))
        return x

    distiller = model.distiller
    for manager in (distiller.student_recorders, distiller.teacher_recorders):
        for recorder in manager.recorders.values():
            recorder.data_buffer[:] = fake(recorder.data_buffer)
    for sample in samples:
        boxes = sample.gt_instances.bboxes
        sample.gt_instances.bboxes = fake(getattr(boxes, 'tensor', boxes))
    with mode:
        found = distiller.compute_distill_losses(
            samples, tuple(inputs.shape[2:])
        )
        sum(found.values()).backward()
    assert len(found) == 2


def test_the_fake_tensors_would_tell():
    with FakeTensorMode():
        feature = torch.rand(4, 3, requires_grad=True)
        loss = lsh_loss(feature, feature, torch.rand(8, 3), torch.zeros(8))
        with pytest.raises(Exception, match='local_scalar'):
            loss.item()


# Compilation


COMPILE = """
import sys
import torch
from mmdet.utils import register_all_modules
import lshfm_mm
from tests.test_detectors import NECK, PLAIN_L2, distil, retinanet

register_all_modules(init_default_scope=True)
images = torch.rand(1, 3, 64, 64)
values = []
for compiled in (False, True)[-int(sys.argv[1]):]:
    model = distil(
        retinanet(4), retinanet(4), dict(neck=NECK), dict(neck=[PLAIN_L2]),
        teacher_compile=compiled,
    )
    model.record_teacher(images, None)
    calls = model.distiller.teacher_recorders.get_recorder('neck').data_buffer
    values.append(calls[0][0])
print(float((values[0] - values[-1]).abs().max()), float(values[0].std()))
"""


def run_compiled(models, **env):
    return subprocess.run(
        [sys.executable, '-c', COMPILE, str(models)],
        capture_output=True,
        text=True,
        cwd=REPO,
        env={**os.environ, **env},
        check=False,
    )


@pytest.mark.slow
def test_a_backbone_that_does_not_compile_is_said(tmp_path):
    """A real failure: there is no C++ compiler."""
    found = run_compiled(
        1, CXX='/no/compiler', TORCHINDUCTOR_CACHE_DIR=str(tmp_path)
    )
    assert found.returncode == 1
    last = found.stderr.strip().splitlines()[-1]
    assert "teacher_compile: torch.compile failed on the teacher's" in last
    assert last.endswith('set it to False')


@pytest.mark.slow
@pytest.mark.skipif(
    not any(
        map(shutil.which, (os.environ.get('CXX', 'g++'), 'clang++', 'cl'))
    ),
    reason='needs a C++ compiler',
)
def test_a_compiled_backbone_gives_the_same_features():
    found = run_compiled(2)
    difference, scale = (float(x) for x in found.stdout.split()[-2:])
    assert 0 < difference < 1e-4 * scale
