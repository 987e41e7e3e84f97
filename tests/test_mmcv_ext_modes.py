"""mmcv's operators on torchvision: what holds for all of them.

Precision, memory format, deterministic algorithms, graphs, devices.
"""

import onnxruntime
import pytest
import torch
from mmcv.ops import ModulatedDeformConv2dPack, RoIAlign, batched_nms
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from lshfm_mm.compat import mmcv_ext as ext
from lshfm_mm.compat.mmcv_ext import _shared
from lshfm_mm.compat.operators import are_compiled

from .test_mmcv_ext_maps import GEOMETRIES, deform_inputs, modulated, plain
from .test_mmcv_ext_rois import (
    roi_align,
    roi_pool,
    seed,
    some_maps,
    some_rois,
)

__all__ = ['seed']  # a fixture

# Precision and memory format


def carafe(features, masks):
    output = features.new_zeros(2, 4, 8, 10)
    ext.carafe_forward(
        *(features, masks, torch.zeros_like(features), output, masks),
        *(output, 3, 2, 2),
    )
    return output


def deform_roi_pool(maps, rois, offset):
    output = maps.new_zeros(len(rois), maps.shape[1], 3, 2)
    ext.deform_roi_pool_forward(maps, rois, offset, output, 3, 2, 0.5, 2, 0.1)
    return output


def bbox_overlaps(one, other):
    ious = one.new_zeros(len(one), len(other))
    ext.bbox_overlaps(one, other, ious, 0, False, 0)
    return ious


def focal(logits):
    output, target = torch.zeros_like(logits), torch.tensor([0, 2, 4])
    ext.sigmoid_focal_loss_forward(
        logits, target, logits.new_empty(0), output, 2.0, 0.25
    )
    return output


def deform(run):
    return lambda *inputs: run(inputs, GEOMETRIES[0])


def some_large_boxes():
    """Their areas are beyond the range of float16."""
    low = torch.rand(2, 5, 2) * 50
    return torch.cat([low, low + 300], 2).unbind()


def all_of(inputs):
    """What to run on tensors, and these, of 4 dimensions the maps."""
    rois = some_rois()
    offset = torch.randn(6, 2, 3, 2)
    features = torch.randn(2, 4, 4, 5), torch.rand(2, 18, 8, 10)
    return {
        'roi_align': (lambda x, r: roi_align(x, r, 1, 2, True), inputs),
        'roi_align_max': (lambda x, r: roi_align(x, r, 0, 2, True), inputs),
        'roi_pool': (lambda x, r: roi_pool(x, r)[0], inputs),
        'deform_roi_pool': (deform_roi_pool, (inputs[0], rois, offset)),
        'deform_conv': (deform(plain), deform_inputs(GEOMETRIES[0])[:3]),
        'modulated': (deform(modulated), deform_inputs(GEOMETRIES[0])),
        'carafe': (carafe, features),
        'bbox_overlaps': (bbox_overlaps, some_large_boxes()),
        'focal': (focal, (torch.randn(3, 4),)),
    }


NAMES = list(all_of((some_maps(), some_rois())))


@pytest.mark.parametrize('name', NAMES)
def test_maps_are_read_in_any_memory_format(name):
    run, inputs = all_of((some_maps(), some_rois()))[name]
    expected = run(*inputs)
    turned = [
        x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x
        for x in inputs
    ]
    found = run(*turned)
    torch.testing.assert_close(found, expected)
    flipped = [
        x.transpose(0, -1).contiguous().transpose(0, -1) for x in inputs
    ]
    torch.testing.assert_close(run(*flipped), expected)


def test_gradients_of_channels_last_maps():
    last = torch.channels_last
    maps, rois = some_maps(), some_rois()
    grad = torch.randn(6, 3, 3, 2)
    for mode in (0, 1):
        expected, found = (
            roi_align(x, rois, mode, 0, True, g)[1]
            for x, g in (
                (maps, grad),
                (x.contiguous(memory_format=last) for x in (maps, grad)),
            )
        )
        torch.testing.assert_close(found, expected)
    inputs = deform_inputs(GEOMETRIES[1])
    grad = torch.randn_like(modulated(inputs, GEOMETRIES[1]))
    turned = [
        x.contiguous(memory_format=last) if x.dim() == 4 else x
        for x in (*inputs, grad)
    ]
    for run in (modulated, plain):
        _, expected = run(inputs, GEOMETRIES[1], grad=grad)
        _, found = run(turned[:5], GEOMETRIES[1], grad=turned[5])
        torch.testing.assert_close(found, expected)


# Deterministic algorithms


@pytest.fixture
def deterministic():
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


ADD_ATOMICALLY = [
    x
    for x in ext.__all__
    if '_backward' in x and x.startswith(('roi', 'deform', 'mod', 'ms'))
]


@pytest.mark.parametrize('name', ADD_ATOMICALLY)
def test_backward_passes_run_under_deterministic_algorithms(
    name, deterministic
):
    """The mode is off inside, where a kernel would refuse it, and back."""
    seen = []

    class Watched(torch.Tensor):
        @classmethod
        def __torch_function__(cls, function, types, args=(), kwargs=None):
            if function == torch.Tensor.is_cuda.__get__:
                return True
            seen.append(torch.are_deterministic_algorithms_enabled())
            raise StopIteration

    count = getattr(ext, name).__wrapped__.__code__.co_argcount
    inputs = [torch.ones(1, 5).as_subclass(Watched)] * count
    _shared._warn.cache_clear()
    with pytest.warns(UserWarning) as warned:
        for _ in range(2):
            with pytest.raises(StopIteration):
                getattr(ext, name)(*inputs)
    (warning,) = warned  # once
    assert 'not deterministic on a GPU' in str(warning.message)
    assert seen == [False] * 2
    assert torch.are_deterministic_algorithms_enabled()


@pytest.mark.filterwarnings('error')
def test_on_a_cpu_they_are_deterministic(deterministic):
    _shared._warn.cache_clear()
    maps, rois, grad = some_maps(), some_rois(), torch.randn(6, 3, 3, 2)
    one, other = (roi_align(maps, rois, 1, 2, True, grad) for _ in range(2))
    assert torch.equal(one[1], other[1])


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_deterministic_algorithms_on_a_gpu(deterministic):
    maps, rois = some_maps().cuda(), some_rois().cuda()
    grad = torch.ones(6, 3, 3, 2, device='cuda')
    for mode in (0, 1):
        roi_align(maps, rois, mode, 2, True, grad)
    roi_pool(maps, rois, grad)
    inputs = [x.cuda() for x in deform_inputs(GEOMETRIES[0], torch.float32)]
    for run in (modulated, plain):
        output = run(inputs, GEOMETRIES[0])
        run(inputs, GEOMETRIES[0], grad=output)


# Graphs


def nms(boxes, scores):
    return ext.nms(boxes, scores, 0.5, 0)


def graph_cases():
    boxes = torch.tensor([[0.0, 0, 4, 4], [0, 0, 4, 3], [5, 5, 9, 9]])
    cases = all_of((some_maps(), some_rois()))
    cases = {x: cases[x] for x in ('roi_align', 'deform_conv', 'modulated')}
    return {'nms': (nms, (boxes, torch.tensor([0.2, 0.9, 0.5]))), **cases}


class Exported(nn.Module):
    def __init__(self, run):
        super().__init__()
        self.run = run

    def forward(self, *inputs):
        return self.run(*inputs)


@pytest.mark.parametrize('name', list(graph_cases()))
def test_they_compile_and_export_in_one_graph(name):
    run, inputs = graph_cases()[name]
    expected = run(*inputs)
    compiled = torch.compile(run, fullgraph=True, backend='aot_eager')
    torch.testing.assert_close(compiled(*inputs), expected)
    exported = torch.export.export(Exported(run), tuple(inputs)).module()
    torch.testing.assert_close(exported(*inputs), expected)


def test_the_backward_passes_compile_too():
    inputs, grad = deform_inputs(GEOMETRIES[0]), None
    grad = torch.randn_like(plain(inputs, GEOMETRIES[0]))

    def steps(grad, *inputs):
        found = plain(inputs, GEOMETRIES[0], grad)[1]
        return found, modulated(inputs, GEOMETRIES[0], True, grad)[1]

    compiled = torch.compile(steps, fullgraph=True, backend='aot_eager')
    torch.testing.assert_close(compiled(grad, *inputs), steps(grad, *inputs))
    maps, rois = some_maps(), some_rois()
    grad = torch.randn(6, 3, 3, 2)
    both = [
        x(maps, rois, 1, 2, True, grad)
        for x in (
            roi_align,
            torch.compile(roi_align, fullgraph=True, backend='aot_eager'),
        )
    ]
    torch.testing.assert_close(*both)


# Devices: fake tensors have one, and an operation of two devices raises


def on_fake_cuda(name, device='cuda'):
    run, inputs = all_of((some_maps(), some_rois()))[name]
    with FakeTensorMode(allow_non_fake_inputs=False):
        fakes = [
            torch.empty(x.shape, dtype=x.dtype, device=device) for x in inputs
        ]
        return run(*fakes)


FIXED = sorted({*NAMES} - {'roi_pool', 'roi_align_max', 'focal'})


@pytest.mark.parametrize('name', FIXED)
def test_everything_stays_on_the_device_of_the_maps(name):
    assert on_fake_cuda(name).device.type == 'cuda'


def test_boxes_and_losses_stay_on_their_device():
    shapes = ShapeEnv(allow_dynamic_output_shape_ops=True)
    with FakeTensorMode(shape_env=shapes):
        boxes = torch.empty(7, 4, device='cuda')
        scores, ious = boxes[:, 0], torch.empty(7, 7, device='cuda')
        assert ext.nms(boxes, scores, 0.5, 1).device.type == 'cuda'
        ext.bbox_overlaps(boxes, boxes, ious, 0, False, 1)
        target = torch.empty(7, dtype=torch.long, device='cuda')
        weight = torch.empty(4, device='cuda')
        for inputs, output in (
            ((boxes, target, weight), torch.empty_like(boxes)),
            ((boxes, target, weight[:0]), torch.empty_like(boxes)),
        ):
            ext.sigmoid_focal_loss_forward(*inputs, output, 2.0, 0.25)
            ext.sigmoid_focal_loss_backward(*inputs, output, 2.0, 0.25)
            ext.softmax_focal_loss_forward(*inputs, output[:, 0], 2.0, 0.25)
        with pytest.raises(RuntimeError, match='device'):
            ext.bbox_overlaps(boxes, boxes.cpu(), ious, 0, False, 1)


# Through mmcv's own Python, where its operators are these


class Layers(nn.Module):
    """What a detector has behind its heads: NMS, RoIAlign and DCNv2."""

    def __init__(self):
        super().__init__()
        self.pool = RoIAlign(3, 0.5)
        self.convolve = ModulatedDeformConv2dPack(3, 3, 3, padding=1)

    def forward(self, maps, boxes, scores, classes):
        nms = dict(type='nms', iou_threshold=0.5)
        dets, kept = batched_nms(boxes, scores, classes, nms)
        rois = torch.cat([torch.zeros_like(dets[:, :1]), dets[:, :4]], 1)
        return dets, kept, self.pool(self.convolve(maps), rois)


@pytest.mark.slow
@pytest.mark.skipif(
    are_compiled(), reason="this mmcv's operators are compiled"
)
def test_mmcvs_layers_become_onnx(tmp_path):
    low = torch.rand(40, 2) * 16
    inputs = dict(
        maps=some_maps(),
        boxes=torch.cat([low, low + torch.rand(40, 2) * 8], 1),
        scores=torch.rand(40),
        classes=torch.randint(0, 3, (40,)),
    )
    model, file = Layers().eval(), tmp_path / 'layers.onnx'
    nn.init.normal_(model.convolve.conv_offset.weight, std=0.3)
    torch.onnx.export(
        model, tuple(inputs.values()), file, input_names=list(inputs)
    )
    session = onnxruntime.InferenceSession(file)
    found = session.run(None, {k: x.numpy() for k, x in inputs.items()})
    with torch.no_grad():
        expected = model(*inputs.values())
    assert 3 < len(expected[0]) < 40
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(
            torch.from_numpy(ours), theirs, rtol=1e-4, atol=1e-5
        )


# Positions that are no number: the kernels read memory where these point to


@pytest.mark.parametrize('value', [float('nan'), float('inf'), -float('inf')])
@pytest.mark.parametrize('run', [plain, modulated])
def test_offsets_that_are_no_number_see_nothing(run, value):
    inputs = deform_inputs(GEOMETRIES[0])
    grad = torch.randn_like(run(inputs, GEOMETRIES[0]))
    inputs[2][0, 3, 1, 1] = value
    far = list(inputs)
    far[2] = inputs[2].nan_to_num(1e4, 1e4, 1e4)  # samples are 0 there
    output, grads = run(inputs, GEOMETRIES[0], grad=grad)
    expected, wanted = run(far, GEOMETRIES[0], grad=grad)
    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(grads, wanted)
    assert output.isfinite().all()


@pytest.mark.parametrize('value', [float('nan'), float('inf'), -float('inf')])
@pytest.mark.parametrize('ratio', [0, 2])
@pytest.mark.parametrize('mode', [0, 1])
def test_rois_that_are_no_number_pool_nan(mode, ratio, value):
    maps, rois = some_maps(), some_rois()
    grad = torch.randn(6, 3, 3, 2)
    rois[1, 2] = rois[4, 3] = value
    output, grad_maps = roi_align(maps, rois, mode, ratio, True, grad)
    kept = [0, 2, 3, 5]
    expected, wanted = roi_align(
        maps, rois[kept], mode, ratio, True, grad[kept]
    )
    assert output[[1, 4]].isnan().all()
    torch.testing.assert_close(output[kept], expected)
    torch.testing.assert_close(grad_maps, wanted)


@pytest.mark.parametrize('value', [float('nan'), float('inf'), -float('inf')])
def test_bins_that_are_no_number_see_nothing(value):
    maps, rois = some_maps(), some_rois()
    offset = torch.randn(6, 2, 3, 2)
    offset[1, 0, 2, 1] = value
    far = offset.nan_to_num(1e5, 1e5, 1e5)
    expected = deform_roi_pool(maps, rois, far)
    output = deform_roi_pool(maps, rois, offset)
    torch.testing.assert_close(output, expected)
    assert output[1, :, 2, 1].eq(0).all() and output.isfinite().all()
