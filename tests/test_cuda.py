"""The whole way on a GPU; make gpu runs it, and writes docs/gpu.md.

CUDA_TESTS_ON=cpu tries the tests themselves on a machine without a GPU: what
is compared with the CPU is then compared with itself, and AMP is left out.
"""

import copy
from pathlib import Path

import pytest
import torch
from mmdet.models import DetDataPreprocessor
from mmengine.runner import Runner
from torch.overrides import TorchFunctionMode

from lshfm_mm.calibration.calibrate import calibrate
from lshfm_mm.compat import mmcv_ext
from lshfm_mm.compat.operators import are_compiled
from lshfm_mm.losses import FeatureL2Loss, LSHLoss, RelativeL2Loss
from lshfm_mm.teachers.execution import unneeded_layers
from lshfm_mm.teachers.images import ImageConverter

from .conftest import CUDA_TESTS_ON as DEVICE
from .test_detectors import NECK, distil, faster, losses_of, retinanet

pytestmark = pytest.mark.cuda
REPO = Path(__file__).parent.parent
HOOKS = ('NonFiniteHook', 'AlignmentHook', 'LossScaleHook', 'ExactResumeHook')


@pytest.fixture
def no_tf32():
    """The models are compared here; TF32 is what users have."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


def largest(found, expected):
    """Largest difference, as a part of the largest value."""
    error = (found.detach().cpu().double() - expected.double()).abs().max()
    return float(error / expected.double().abs().max())


# Training


@pytest.fixture
def make(make_config, retina_teacher):
    """Make a config of one of the detectors, with the hooks of train.py."""

    def of(detector, epochs=1, amp=None, **more):
        teacher = {
            'model.teacher.cfg_path': str(retina_teacher),
            'model.teacher_ckpt': str(retina_teacher.with_suffix('.pth')),
        }
        cfg = make_config(
            f'{detector}_lshfm',
            {
                'train_cfg.max_epochs': epochs,
                'train_cfg.val_interval': 99,
                'custom_hooks': [dict(type=x) for x in HOOKS],
                **(teacher if detector == 'retinanet' else {}),
                **more,
            },
        )
        cfg.custom_hooks[1].interval = 1
        if amp is not None and DEVICE == 'cuda':
            cfg.optim_wrapper.update(
                type='AmpOptimWrapper', dtype=amp, loss_scale='dynamic'
            )
        cfg.experiment_name = Path(cfg.work_dir).name + str(id(cfg))
        return cfg

    return of


def watch(module):
    """Dtype and device of what a module gives, at each call."""
    seen = []
    module.register_forward_hook(
        lambda *args: seen.append((args[2][0].dtype, args[2][0].device.type))
    )
    return seen


@pytest.mark.parametrize('amp', [None, 'float16', 'bfloat16'])
@pytest.mark.parametrize('detector', ['faster_rcnn', 'retinanet'])
def test_an_epoch_of_training_and_an_evaluation(detector, amp, make):
    if amp is not None and DEVICE == 'cpu':
        pytest.skip('AmpOptimWrapper needs a GPU')
    if (detector, amp) == ('faster_rcnn', 'bfloat16') and are_compiled():
        pytest.skip('a compiled mmcv pools no bfloat16')
    runner = Runner.from_cfg(make(detector, amp=amp))
    before = copy.deepcopy(runner.model.student.state_dict())
    seen = watch(runner.model.teacher.backbone)
    runner.train()
    assert runner.iter == 6
    dtype = torch.float32 if amp is None else getattr(torch, amp)
    assert {*seen} == {(dtype, DEVICE)}
    state = runner.model.student.state_dict()
    moved = [k for k, v in state.items() if not torch.equal(v, before[k])]
    assert 'backbone.conv1.weight' in moved
    assert all(x.isfinite().all() for x in state.values())
    scalars = runner.message_hub.log_scalars
    tap = 'roi' if detector == 'faster_rcnn' else 'cls'
    assert len(scalars[f'train/{tap}.angle'].data[0]) == 6
    mimic = scalars[f'train/distill.loss_{tap}_lsh'].data[0]
    assert len(mimic) == 6 and min(mimic) > 0
    # A dynamic scale starts too high, and leaves a first step or two out.
    skipped = runner.message_hub.get_info('nonfinite_skipped', 0)
    assert skipped <= (3 if amp == 'float16' else 0)
    runner.val()


@pytest.mark.parametrize('amp', [None, 'float16'])
def test_a_resumed_run_equals_one_that_was_not_interrupted(
    amp, make, monkeypatch
):
    """Bit for bit, with what torch has of deterministic operations."""
    if amp is not None and DEVICE == 'cpu':
        pytest.skip('AmpOptimWrapper needs a GPU')
    monkeypatch.setenv('CUBLAS_WORKSPACE_CONFIG', ':4096:8')
    torch.use_deterministic_algorithms(True, warn_only=True)
    cudnn = {'env_cfg.cudnn_benchmark': False}
    try:
        whole = Runner.from_cfg(make('retinanet', 2, amp, **cudnn))
        whole.train()
        first = Runner.from_cfg(make('retinanet', 1, amp, **cudnn))
        first.train()
        cfg = make('retinanet', 2, amp, **cudnn)
        cfg.merge_from_dict(dict(resume=True, work_dir=first.work_dir))
        second = Runner.from_cfg(cfg)
        second.train()
    finally:
        torch.use_deterministic_algorithms(False)
    assert whole.iter == second.iter == 12
    found = second.model.state_dict()
    for key, value in whole.model.state_dict().items():
        assert torch.equal(value, found[key]), key


# Numbers of the GPU, against those of the CPU

LOSSES = {
    **{
        x: lambda dim, x=x: LSHLoss(dim, 16, std=0.1, mode=x)
        for x in ('bce', 'l1', 'l2')
    },
    'plain': lambda dim: FeatureL2Loss(window=3),
    'relative': lambda dim: RelativeL2Loss(window=3),
}


@pytest.mark.parametrize('shape', [(64, 512), (2, 256, 4, 5)])
@pytest.mark.parametrize('name', LOSSES)
@pytest.mark.parametrize('dtype', [torch.float32, torch.float16], ids=str)
def test_losses_and_gradients(name, shape, dtype):
    """In float32, not TF32, against float64."""
    side = 3 if len(shape) == 4 else 1
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, *shape, generator=generator).to(dtype)
    loss = LOSSES[name](shape[1] * side**2)
    if len(shape) == 2:
        loss.window = 1
    reference = copy.deepcopy(loss).double()
    s = student.double().requires_grad_()
    expected = reference(s, teacher.double())
    (slope,) = torch.autograd.grad(expected, s)
    on_gpu = student.to(DEVICE).requires_grad_()
    found = loss.to(DEVICE)(on_gpu, teacher.to(DEVICE))
    assert found.device.type == DEVICE and found.dtype == torch.float32
    assert float(found) == pytest.approx(float(expected), rel=1e-5)
    (gradient,) = torch.autograd.grad(found, on_gpu)
    if dtype == torch.float32 and name != 'l1':  # whose slopes are signs
        assert largest(gradient, slope) < 2e-5


def distillations(bias='zero'):
    """A dense and a two-stage detector."""
    lsh = [dict(type='LSHLoss', num_hashes=16, bias=bias)]
    losses = [*lsh, dict(type='RelativeL2Loss')]
    dense = distil(
        retinanet(4),
        retinanet(8, mean=[9.0] * 3, std=[40.0] * 3),
        dict(cls='bbox_head.retina_cls', neck=dict(NECK, normalize=True)),
        dict(cls=losses, neck=losses[1:]),
    )
    two_stage = distil(
        faster(4),
        faster(8),
        dict(roi='roi_head.bbox_head.fc_cls'),
        dict(roi=losses),
        'RoIMimicDistill',
    )
    return dense, two_stage


def of_same_boxes(model, batch):
    """Losses of a two-stage detector, on boxes that no RPN has found."""
    data = model.data_preprocessor(copy.deepcopy(batch), training=True)
    inputs, samples = data['inputs'], data['data_samples']
    corners = torch.rand(20, 2, generator=torch.Generator().manual_seed(0))
    image = torch.arange(20)[:, None] % 2
    boxes = torch.cat([image, corners * 30, corners * 30 + 25], 1)
    model.record_teacher(inputs, samples, boxes.to(inputs))
    model.record_student(inputs, samples, boxes.to(inputs))
    return model.distiller.compute_distill_losses(
        samples, tuple(inputs.shape[2:])
    )


@pytest.mark.usefixtures('no_tf32')
def test_losses_of_both_models(batch):
    for model, run in zip(
        distillations(), (losses_of, of_same_boxes), strict=True
    ):
        expected = {k: float(sum_of(v)) for k, v in run(model, batch).items()}
        found = run(model.to(DEVICE), batch)
        assert next(model.teacher.parameters()).device.type == DEVICE
        assert {sum_of(x).device.type for x in found.values()} == {DEVICE}
        values = {k: float(sum_of(v)) for k, v in found.items()}
        assert values == pytest.approx(expected, rel=1e-3)


def sum_of(loss):
    return sum(loss) if isinstance(loss, list) else loss


@pytest.mark.usefixtures('no_tf32')
@pytest.mark.parametrize('bias', ['mean', 'median'])
def test_calibration(bias, batch):
    for index in range(2):
        found = []
        for device in ('cpu', DEVICE):
            model = distillations(bias)[index].to(device)
            calibrate(model, [batch], 1, num_rois=40)
            losses = model.distiller.distill_losses.values()
            (loss,) = (x for x in losses if isinstance(x, LSHLoss))
            assert loss.bias.device.type == device
            found.append(loss.bias.cpu())
        assert found[0].abs().min() > 0
        assert largest(found[1], found[0]) < 1e-3


@pytest.mark.usefixtures('no_tf32')
def test_layers_that_need_not_run_are_found(batch):
    """Bits of two runs are equal there, too."""
    model, _ = distillations()
    teacher = model.teacher.to(DEVICE)
    seen = []
    teacher.bbox_head.retina_cls.register_forward_pre_hook(
        lambda _, inputs: seen.append(inputs[0])
    )
    images = torch.rand(2, 3, 64, 64, device=DEVICE)

    def run():
        seen.clear()
        teacher(images, None, mode='tensor')
        return list(seen)

    found = unneeded_layers(teacher.bbox_head.modules(), run)
    assert teacher.bbox_head.retina_reg in found and len(found) == 6


def test_a_teacher_that_is_on_the_gpu_already():
    """Its statistics are compared with those of the CPU."""
    mean = dict(mean=[1.0] * 3, std=[2.0] * 3)
    student, teacher = (DetDataPreprocessor(**mean) for _ in range(2))
    assert ImageConverter(student, teacher.to(DEVICE)).same


# mmcv's operators on torchvision


class DrawOnCpu(TorchFunctionMode):
    """Random numbers of the CPU, on whichever device they are wanted."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if function is torch.randn_like:
            return torch.randn(args[0].shape).to(args[0].device)
        if function in (torch.rand, torch.randn, torch.randint):
            device = kwargs.pop('device', 'cpu')
            return function(*args, **kwargs).to(device)
        return function(*args, **kwargs)


def cases_on(device, monkeypatch):
    """The cases of make operators, with the same numbers on each device."""
    monkeypatch.syspath_prepend(REPO / 'benchmarks/compare_operators')
    from cases import all_cases

    with DrawOnCpu():
        return all_cases(device)


def test_operators(monkeypatch):
    """Values and gradients of all of them, of the sizes of detectors."""
    both = [cases_on(x, monkeypatch) for x in ('cpu', DEVICE)]
    wrong = {}
    for on_cpu, on_gpu in zip(*both, strict=True):
        for part in ('forward', 'backward'):
            run = getattr(on_cpu, part)
            if run is None:
                continue
            expected, found = run(mmcv_ext), getattr(on_gpu, part)(mmcv_ext)
            for one, other in zip(found, expected, strict=True):
                key = f'{on_cpu.name}, {on_cpu.size}, {part}'
                if one.shape != other.shape:
                    wrong[key] = one.shape, other.shape
                elif other.numel() and largest(one, other) > 1e-4:
                    wrong[key] = largest(one, other)
    assert not wrong
