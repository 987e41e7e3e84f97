"""Nothing of the CPU meets a GPU: forward passes on one that is not there."""

import pytest
import torch
from mmdet.models import DetDataPreprocessor
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from mmpretrain.structures import DataSample
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakIdKeyDictionary

from lshfm_mm.calibration.calibrate import calibrate, inside_images
from lshfm_mm.compat.operators import are_compiled
from lshfm_mm.distillers.alignment import alignment_sums, equal_codes
from lshfm_mm.distillers.sample_weights import level_weights
from lshfm_mm.losses import (
    FeatureL2Loss,
    LSHLoss,
    RelativeL2Loss,
    hashing,
    lsh_loss,
)
from lshfm_mm.losses.hashing import hash_codes
from lshfm_mm.teachers.images import ImageConverter

from . import test_classification as classification
from .fake_cuda import CUDA, move_model, to_fake_cuda
from .test_detectors import NECK, distil, faster, retinanet

D, HASHES = 4, 12
SHAPES = {'rows': (6, D), 'maps': (2, D, 5, 7)}
DTYPES = [torch.float16, torch.bfloat16]
LSH = dict(type='LSHLoss', num_hashes=HASHES)
WEIGHTS = ['uniform', 'balanced', 'confidence']
ALL = [LSH, dict(type='FeatureL2Loss'), dict(type='RelativeL2Loss')]


def lsh(window=1, **options):
    return LSHLoss(D * window**2, HASHES, std=0.3, **options)


LOSSES = {
    **{f'lsh {x}': lambda w, x=x: lsh(w, mode=x) for x in ('bce', 'l1', 'l2')},
    **{f'lsh {x}': lambda w, x=x: lsh(w, bias=x) for x in ('mean', 'median')},
    'l2': lambda w: FeatureL2Loss(window=w),
    'relative l2': lambda w: RelativeL2Loss(window=w),
}


def is_on_gpu(value, dtype=torch.float32):
    return value.device.type == 'cuda' and value.dtype == dtype


@pytest.mark.parametrize('weighted', [False, True])
@pytest.mark.parametrize('kind', SHAPES)
@pytest.mark.parametrize('dtype', DTYPES, ids=str)
@pytest.mark.parametrize('name', LOSSES)
def test_losses_under_autocast(name, dtype, kind, weighted, fake_mode):
    """On what a layer under autocast gives, in float32."""
    for window in (1, 3) if kind == 'maps' else (1,):
        loss = LOSSES[name](window)
        if getattr(loss, 'needs_calibration', False):
            loss.calibrate(torch.zeros(HASHES))
        loss = loss._apply(lambda x: to_fake_cuda(x, fake_mode))
        shape = SHAPES[kind]
        with fake_mode, torch.autocast('cuda', dtype):
            layer = (
                nn.Conv2d(D, D, 1, device='cuda')
                if kind == 'maps'
                else nn.Linear(D, D, device='cuda')
            )
            teacher = torch.rand(shape, device='cuda')
            student = layer(teacher)
            assert is_on_gpu(student, dtype)
            weight = None
            if weighted:
                (weight,) = level_weights([student], False)
            assert is_on_gpu(loss(student, teacher, weight))
            assert is_on_gpu(loss(student[:0], teacher[:0]))
            assert torch.is_autocast_enabled('cuda')


@pytest.mark.parametrize('place', ['weight', 'teacher', 'shares'])
def test_a_tensor_of_the_cpu_is_told(place, fake_mode):
    """Else these tests would prove nothing."""
    loss = lsh()._apply(lambda x: to_fake_cuda(x, fake_mode))
    with fake_mode:
        parts = dict(
            student=torch.rand(6, D, device='cuda'),
            teacher=torch.rand(6, D, device='cuda'),
            shares=torch.rand(6, device='cuda'),
        )
        assert is_on_gpu(loss(*parts.values()))
        if place == 'weight':
            loss.weight = loss.weight.cpu()
        else:
            parts[place] = parts[place].cpu()
        with pytest.raises(RuntimeError, match='device'):
            loss(*parts.values())


def test_hash_functions_are_drawn_on_a_default_device(fake_mode):
    with fake_mode, CUDA:
        loss = lsh(bias='mean')
        assert {x.device.type for x in loss.buffers()} == {'cuda'}
        loss.calibrate(torch.zeros(HASHES))
        assert is_on_gpu(loss(torch.rand(6, D), torch.rand(6, D)))


PROJECTIONS = {
    'cpu': torch.ops.aten.convolution.default,
    'cuda': torch.ops.aten.baddbmm.default,
}


class Projections(TorchDispatchMode):
    """Notes how large they are, and what memory is held at a time."""

    def __init__(self, device, block):
        super().__init__()
        self.wanted = PROJECTIONS[device]
        self.block, self.alive = block, WeakIdKeyDictionary()
        self.sizes, self.most = [], 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if function is self.wanted:
            self.sizes.append(result.numel())
        if torch.is_tensor(result) and result.numel() > 0.6 * self.block:
            storage = result.untyped_storage()
            self.alive[result] = storage._cdata, storage.nbytes()
            self.most = max(self.most, sum(dict(self.alive.values()).values()))
        return result


@pytest.mark.parametrize(
    ('device', 'blocks', 'limit'),
    [('cpu', 67, hashing.BLOCK_ON_CPU), ('cuda', 9, hashing.BLOCK_ON_GPU)],
)
def test_a_gpu_gets_few_large_blocks(device, blocks, limit, fake_mode):
    """P3 of a RetinaNet: what is launched, and what exists at a time."""
    with fake_mode:
        teacher = torch.rand(2, 256, 100, 168, device=device)
        student = teacher.clone().requires_grad_()
        weight = torch.rand(4096, 256 * 9, device=device)
        bias = torch.rand(4096, device=device)
        with Projections(device, limit) as seen:
            loss = lsh_loss(student, teacher, weight, bias)
    assert loss.device.type == device
    assert len(seen.sizes) == 2 * blocks  # of student and teacher
    assert limit / 2 < max(seen.sizes) <= limit
    if device == 'cuda':  # on a CPU features are as large as blocks
        assert 0.44e9 < seen.most < 0.45e9  # windows and two blocks


@pytest.mark.parametrize('dtype', DTYPES, ids=str)
@pytest.mark.parametrize('kind', SHAPES)
def test_agreement_of_features(kind, dtype, fake_mode):
    loss = lsh()._apply(lambda x: to_fake_cuda(x, fake_mode))
    with fake_mode, torch.autocast('cuda', dtype):
        student, teacher = torch.rand(
            2, *SHAPES[kind], dtype=dtype, device='cuda'
        )
        sums = alignment_sums(
            [(student, teacher, None)], loss.weight, loss.bias
        )
        assert is_on_gpu(sums, torch.float64)
        assert is_on_gpu(equal_codes(student, teacher, loss.weight, loss.bias))
        codes = hash_codes(student.float(), loss.weight, loss.bias)
        assert is_on_gpu(codes, torch.bool)


# The teacher's images


@pytest.fixture
def two_normalisations():
    """Preprocessors with other statistics, channels and padding."""
    return [
        DetDataPreprocessor(mean=[9.0] * 3, std=[2.0] * 3, bgr_to_rgb=True),
        DetDataPreprocessor(mean=[1, 2, 3], std=[4, 5, 6], pad_value=7),
    ]


def annotated(boxes=3):
    """Two images of 64 x 48 in a batch of 64 x 64, their boxes on the GPU."""
    samples = []
    for _ in range(2):
        objects = InstanceData(
            bboxes=torch.rand(boxes, 4, device='cuda'),
            labels=torch.zeros(boxes, dtype=torch.long, device='cuda'),
        )
        meta = dict(img_shape=(64, 48), batch_input_shape=(64, 64))
        samples.append(DetDataSample(metainfo=meta, gt_instances=objects))
    return samples


def test_images_are_converted_on_the_gpu(two_normalisations, fake_mode):
    convert = ImageConverter(*two_normalisations)
    assert not convert.same
    with fake_mode:
        images = torch.rand(2, 3, 64, 64, device='cuda')
        with pytest.raises(RuntimeError, match='device'):
            convert._apply(fake_mode.from_tensor)(images, None)
    convert = ImageConverter(*two_normalisations)
    convert._apply(lambda x: to_fake_cuda(x, fake_mode))
    with fake_mode:
        assert is_on_gpu(convert(images, annotated()))


# Both models and the distiller

WIDER = dict(
    type='ConvModuleConnector', in_channel=16, out_channel=24, conv_cfg=None
)


def dense(weights):
    """A tap of a dense head, and one of its neck through a connector."""
    teacher = retinanet(8, mean=[1.0] * 3, std=[2.0] * 3, neck=24)
    taps = dict(
        cls=dict(layer='bbox_head.cls_convs.3.conv', weights='uniform'),
        head=dict(layer='bbox_head.retina_cls', weights=weights),
        neck=dict(NECK, normalize=True),
    )
    wide = dict(LSH, feature_dim=24, std=0.3)
    return distil(
        retinanet(4),
        teacher,
        taps,
        dict(cls=ALL, head=ALL, neck=[wide, *ALL[1:]]),
        connectors=dict.fromkeys(taps, WIDER),
    )


def images_on_gpu():
    return torch.rand(2, 3, 64, 64, device='cuda')


def record_labels(model, name, samples):
    """What the student's loss would be given for so many samples."""
    recorder = model.distiller.student_recorders.get_recorder(
        f'labels at {name}'
    )
    recorder.data_buffer[:] = [
        (
            torch.zeros(n, dtype=torch.long, device='cuda'),
            torch.ones(n, device='cuda'),
        )
        for n in samples
    ]


def check_step(model, tap, labels, rois=None):
    """Run both models and all losses; returns what was seen at the tap."""
    samples, seen = annotated(), []
    model.record_teacher(images_on_gpu(), samples, rois)
    model.record_student(images_on_gpu(), samples, rois)
    for is_student in (True, False):
        dtype = torch.get_autocast_dtype('cuda')
        for feature in model.distiller.records.features(tap, is_student):
            assert is_on_gpu(feature, dtype)
    record_labels(model, tap, labels)
    model.distiller.observers[:] = [lambda _, x: seen.append(x[tap])]
    losses = model.distiller.compute_distill_losses(samples, (64, 64))
    assert len(losses) == len(model.distiller.distill_losses)
    for name, value in losses.items():
        assert is_on_gpu(value) and value.shape == (), name
    return seen[0]


@pytest.mark.parametrize('weights', WEIGHTS)
def test_a_dense_detector(weights, fake_mode):
    """The teacher's maps and head, connectors, levels, weights, losses."""
    model = move_model(dense(weights), fake_mode)
    anchors = [2 * 9 * side**2 for side in (8, 4, 2, 1, 1)]
    for dtype in DTYPES:
        with fake_mode, torch.autocast('cuda', dtype):
            seen = check_step(model, 'head', anchors)
        assert len(seen.levels) == len(seen.weights) == 5
        assert all(map(is_on_gpu, seen.weights))


def one_level(base, **more):
    """Faster R-CNN on one level: on several, numbers of RoIs decide shapes."""
    model = faster(base, **more)
    model.roi_head.bbox_roi_extractor.featmap_strides = [8]
    return model


@pytest.mark.parametrize('weights', WEIGHTS)
def test_a_two_stage_detector(weights, fake_mode):
    """Both box heads on the same RoIs."""
    if are_compiled():
        pytest.skip('the kernels of a compiled mmcv need a GPU')
    tap = dict(layer='roi_head.bbox_head.fc_cls', weights=weights)
    model = distil(
        one_level(4),
        one_level(8, mean=[1.0] * 3, std=[2.0] * 3),
        dict(roi=tap, neck=NECK),
        dict(roi=ALL, neck=ALL[1:]),
        'RoIMimicDistill',
    )
    move_model(model, fake_mode)
    for dtype in DTYPES:
        with fake_mode, torch.autocast('cuda', dtype):
            rois = torch.rand(7, 5, device='cuda')
            seen = check_step(model, 'roi', [7], rois)
        assert weights == 'uniform' or is_on_gpu(*seen.weights)


def classifiers(weights='uniform', bias='zero'):
    return classification.distil(
        classification.classifier(4),
        classification.classifier(4),
        dict(layer='head.fc', weights=weights),
        [dict(LSH, bias=bias), *ALL[1:]],
    )


def labelled():
    sample = DataSample()
    sample.gt_label = torch.zeros(1, dtype=torch.long, device='cuda')
    return sample


@pytest.mark.parametrize('dtype', DTYPES, ids=str)
@pytest.mark.parametrize('weights', ['uniform', 'correct'])
def test_a_whole_step_of_a_classifier(dtype, weights, fake_mode):
    """The student's own loss as well."""
    model = move_model(classifiers(weights), fake_mode)
    with fake_mode, torch.autocast('cuda', dtype):
        images = images_on_gpu()
        losses = model.loss(images, [labelled() for _ in range(2)])
    assert len(losses) == 4
    assert all(is_on_gpu(x) and x.shape == () for x in losses.values())


# Calibration


@pytest.mark.parametrize('bias', ['mean', 'median'])
def test_calibration_up_to_the_look_at_the_bias(bias, fake_mode):
    """Images of the CPU go to the GPU, and what is projected comes back."""
    model = move_model(classifiers(bias=bias), fake_mode)
    with fake_mode:
        batch = dict(inputs=torch.zeros(2, 3, 64, 64, dtype=torch.uint8))
        with pytest.raises(DataDependentOutputException) as error:
            calibrate(model, [batch] * 2, 2)
        (at,) = (x for x in error.traceback if x.name == '_settle')
        assert 'middle.isfinite()' in str(at.statement)
        (loss,) = model.distiller.uncalibrated().values()
        loss.calibrate(torch.zeros(HASHES))
        model.record_teacher(images_on_gpu(), None)
        model.record_student(images_on_gpu(), None)
        losses = model.distiller.compute_distill_losses()
    assert all(is_on_gpu(x) for x in losses.values())


def test_locations_inside_of_images(fake_mode):
    with fake_mode:
        feature = torch.rand(2, 4, 8, 8, device='cuda')
        inside = inside_images(annotated(), (64, 64), feature)
    assert is_on_gpu(inside, torch.bool)
