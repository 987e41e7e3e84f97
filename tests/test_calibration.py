"""The bias from the teacher's features: real detectors, real processes."""

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from mmengine.runner import Runner
from mmrazor.registry import MODELS

from lshfm_mm.calibration.calibrate import (
    Sketches,
    _project,
    _settle,
    calibrate,
)
from lshfm_mm.distillers.roi_sampling import jittered_rois
from lshfm_mm.errors import ConfigError
from lshfm_mm.losses import LSHLoss

from .test_detectors import (
    NECK,
    distil,
    faster,
    inputs_of,
    record,
    retinanet,
)
from .test_sketches import rank_error
from .test_training import LSH, epochs, train

REPO = Path(__file__).parent.parent
HOOK = dict(type='LSHCalibrationHook', num_rois=40)


def roi_losses(bias, **kwargs):
    return {
        'model.distiller.losses.roi': [
            dict(type='LSHLoss', bias=bias, **kwargs)
        ],
        'custom_hooks': [HOOK],
    }


def middle_error(rows, loss):
    """How far the bias is from the middle of the rows' projections."""
    values = loss.weight.double() @ rows.double().T
    if loss.bias_kind == 'mean':
        return float((values.mean(dim=1) + loss.bias).abs().max())
    # The bias is float32: its own sample may lie on either side.
    return rank_error(values.float(), -loss.bias) - 1 / len(rows)


@pytest.mark.parametrize('bias', ['mean', 'median'])
def test_rois_of_all_training_images(make_config, bias):
    """12 images, 40 boxes each, before the first iteration."""
    cfg = make_config(
        'faster_rcnn_lsh', {**epochs(1), **roi_losses(bias, num_hashes=64)}
    )
    cfg.experiment_name = f'calibrated_{bias}'
    runner = Runner.from_cfg(cfg)
    calls = record(runner.model.teacher.roi_head.bbox_head.fc_cls)
    boxes = record(runner.model.teacher.roi_head.bbox_roi_extractor)
    runner.train()
    assert len(calls) == 12  # 6 batches of the hook, 6 of training
    rows = torch.cat(inputs_of(calls[:6]))
    loss = runner.model.distiller.distill_losses['loss_roi_lsh']
    assert 12 * 30 < len(rows) <= 12 * 40
    assert middle_error(rows, loss) < (1e-5 if bias == 'mean' else 1e-6)
    assert loss.bias.abs().min() > 0
    rois = boxes[0][0][1]
    assert len(rois) == len(inputs_of(calls)[0])
    assert rois[:, 1:].min() >= 0 and rois[:, 1:].max() <= 64
    assert set(rois[:, 0].tolist()) == {0, 1}


def test_training_goes_on_as_without_the_hook(make_config):
    """Weight 0: the calibrated run is plain training, bit for bit."""
    plain = train(make_config('faster_rcnn_student', epochs(1)))
    runs = [
        train(
            make_config(
                'faster_rcnn_lsh',
                {**epochs(1), **roi_losses('median', loss_weight=0)},
            )
        )
        for _ in range(2)
    ]
    student = runs[0].model.student.state_dict()
    for key, value in plain.model.state_dict().items():
        assert torch.equal(value, student[key]), key
    states = [run.model.distiller.state_dict() for run in runs]
    for key in states[0]:
        assert torch.equal(states[0][key], states[1][key]), key


def test_a_resumed_run_keeps_its_bias(make_config):
    options = roi_losses('median', num_hashes=16)
    first = train(make_config('faster_rcnn_lsh', {**epochs(1), **options}))
    cfg = make_config('faster_rcnn_lsh', {**epochs(2), **options})
    cfg.resume = True
    cfg.load_from = str(Path(first.work_dir) / 'epoch_1.pth')
    cfg.experiment_name = 'resumed_calibration'
    runner = Runner.from_cfg(cfg)
    calls = record(runner.model.teacher.roi_head.bbox_head.fc_cls)
    runner.train()
    assert len(calls) == 6  # those of the second epoch
    name = 'distiller.distill_losses.' + LSH.replace('sums', 'bias')
    bias = first.model.state_dict()[name]
    assert bias.isfinite().all()
    assert torch.equal(bias, runner.model.state_dict()[name])


def test_the_first_batches_alone(make_config):
    options = roi_losses('mean')
    options['custom_hooks'] = [{**HOOK, 'num_batches': 2}]
    cfg = make_config('faster_rcnn_lsh', {**epochs(1), **options})
    cfg.experiment_name = 'two_batches'
    runner = Runner.from_cfg(cfg)
    calls = record(runner.model.teacher.roi_head.bbox_head.fc_cls)
    runner.train()
    assert len(calls) == 2 + 6


def test_locations_of_a_dense_head(batch):
    """The windows of all levels, without the padding of a small image."""
    losses = dict(
        cls=[dict(type='LSHLoss', bias=x, num_hashes=8) for x in BOTH]
    )
    model = distil(
        retinanet(4), retinanet(8), dict(cls='bbox_head.retina_cls'), losses
    )
    batch = copy.deepcopy(batch)
    batch['inputs'][1] = batch['inputs'][1][:, :40, :24]
    batch['data_samples'][1].set_metainfo(dict(img_shape=(40, 24)))
    calls = record(model.teacher.bbox_head.retina_cls)
    calibrate(model, [batch], 1)
    rows = []
    # The calls before look for what need not run.
    for feature in inputs_of(calls)[-5:]:
        side = feature.shape[-1]
        windows = F.unfold(feature, 3, padding=1)
        for image, (height, width) in zip(windows, SIZES, strict=True):
            image = image.T.reshape(side, side, -1)
            # Centres of locations that lie inside the image.
            stride = 64 / side
            down, right = (
                sum((i + 0.5) * stride < x for i in range(side))
                for x in (height, width)
            )
            rows.append(image[:down, :right].flatten(0, 1))
    rows = torch.cat(rows)
    for loss in model.distiller.distill_losses.values():
        assert middle_error(rows, loss) < 1e-5


BOTH = ('mean', 'median')
SIZES = ((64, 64), (40, 24))


def test_levels_of_a_neck_in_their_scales(batch):
    losses = dict(
        neck=[
            dict(type='LSHLoss', bias=x, feature_dim=16, std=1.0) for x in BOTH
        ]
    )
    model = distil(
        retinanet(4), retinanet(8), dict(neck={**NECK, 'normalize': True}),
        losses,
    )  # fmt: skip
    calls = record(model.teacher.neck)
    calibrate(model, [batch], 1)
    rows = torch.cat(
        [
            (x / x.square().mean().sqrt()).permute(0, 2, 3, 1).flatten(0, 2)
            for _, levels in calls
            for x in levels
        ]
    )
    for loss in model.distiller.distill_losses.values():
        assert middle_error(rows, loss) < 1e-5


def test_pooled_features_of_a_classifier():
    def classifier(width):
        return dict(
            type='mmpretrain.ImageClassifier',
            backbone=dict(
                type='mmpretrain.ResNet', depth=18, base_channels=width,
                stem_channels=width,
            ),
            neck=dict(type='mmpretrain.GlobalAveragePooling'),
            head=dict(
                type='mmpretrain.LinearClsHead', num_classes=5,
                in_channels=8 * width,
            ),
            data_preprocessor=dict(type='mmpretrain.ClsDataPreprocessor'),
        )  # fmt: skip

    teacher = MODELS.build(classifier(4))
    teacher.init_weights()
    model = MODELS.build(
        dict(
            _scope_='mmrazor',
            type='FeatureMimicDistill',
            architecture=classifier(4),
            teacher=teacher,
            distiller=dict(
                type='LSHFMDistiller',
                taps=dict(pooled='head.fc'),
                losses=dict(pooled=[dict(type='LSHLoss', bias='median')]),
            ),
        )
    )
    calls = record(model.teacher.head.fc)
    batches = [dict(inputs=torch.rand(6, 3, 32, 32)) for _ in range(2)]
    calibrate(model, batches, 2)
    rows = torch.cat(inputs_of(calls))
    loss = model.distiller.distill_losses['loss_pooled_lsh']
    assert rows.shape == (12, 32)
    assert middle_error(rows, loss) < 1e-6


def test_codes_are_balanced_by_the_median():
    """Half of the teacher's codes of each hash function are 1."""
    feature = torch.randn(999, 8).exp()  # far from the origin
    loss = LSHLoss(feature_dim=8, std=1.0, bias='median', num_hashes=64)
    loss.calibrate((feature @ loss.weight.T).median(dim=0).values)
    share = (feature @ loss.weight.T + loss.bias > 0).float().mean(dim=0)
    assert (share - 0.5).abs().max() < 1e-3
    assert loss(feature, feature).isfinite()


def test_what_is_not_calibrated_does_not_train(make_config):
    cfg = make_config('faster_rcnn_lsh', epochs(1))
    cfg.merge_from_dict(roi_losses('median'))
    cfg.custom_hooks = []
    cfg.experiment_name = 'no_hook'
    with pytest.raises(ConfigError, match="bias='median' and std='teacher',"):
        Runner.from_cfg(cfg).train()


def make_loss(bias, middle=None):
    loss = LSHLoss(feature_dim=3, std=1.0, bias=bias)
    if middle is not None:
        loss.calibrate(torch.full((12,), middle))
    return loss


def test_a_checkpoint_tells_whether_it_is_calibrated():
    target = make_loss('mean')
    target.load_state_dict(make_loss('mean').state_dict())
    assert target.needs_calibration
    target.load_state_dict(make_loss('mean', 1.0).state_dict())
    assert not target.needs_calibration
    assert torch.equal(target.bias, -torch.ones(12))
    target.load_state_dict(make_loss('mean').state_dict())
    assert target.needs_calibration


@pytest.mark.parametrize(
    ('saved', 'wanted'),
    [('zero', 'median'), ('mean', 'median'), ('median', 'zero')],
)
def test_a_bias_of_another_kind_is_not_taken(saved, wanted):
    source = make_loss(saved, None if saved == 'zero' else 1.0)
    target = make_loss(wanted)
    target.load_state_dict(source.state_dict(), strict=False)
    assert target.needs_calibration == (wanted != 'zero')
    assert not target.bias.any()


@pytest.mark.parametrize('mode', ['l1', 'l2'])
def test_a_bias_that_cancels_is_refused(mode):
    with pytest.raises(ConfigError, match="bias: 'mean' has no effect with"):
        LSHLoss(mode=mode, bias='mean')


def test_levels_of_the_teacher_alone_do_not_count(batch):
    """Faster R-CNN has P2 to P6, RetinaNet P3 to P7."""
    loss = dict(type='LSHLoss', bias='mean', feature_dim=16, std=1.0)
    model = distil(retinanet(4), faster(8), dict(neck=NECK), dict(neck=[loss]))
    calls = record(model.teacher.neck)
    states = [x.training for x in model.student.modules()]
    before = copy.deepcopy(model.student.state_dict())
    calibrate(model, [batch], 1)
    ((_, levels),) = calls
    rows = [x.permute(0, 2, 3, 1).flatten(0, 2) for x in levels]
    (loss,) = model.distiller.distill_losses.values()
    assert middle_error(torch.cat(rows[1:]), loss) < 1e-5
    assert middle_error(torch.cat(rows), loss) > 1e-3
    assert [x.training for x in model.student.modules()] == states
    for key, value in model.student.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_a_preprocessor_with_a_state_is_left_alone(batch):
    student = retinanet(4)
    student.data_preprocessor.batch_augments = [
        dict(
            type='BatchSyncRandomResize',
            random_size_range=(64, 128),
            interval=1,
            size_divisor=32,
        )
    ]
    loss = dict(type='LSHLoss', bias='mean', num_hashes=8)
    model = distil(
        student, retinanet(8), dict(cls='bbox_head.retina_cls'),
        dict(cls=[loss]),
    )  # fmt: skip
    (augment,) = model.data_preprocessor.batch_augments
    before = augment._input_size
    calibrate(model, [batch], 1)
    assert augment._input_size == before


def test_features_that_are_not_finite_are_an_error(batch):
    losses = dict(cls=[dict(type='LSHLoss', bias='mean', num_hashes=8)])
    model = distil(
        retinanet(4), retinanet(8), dict(cls='bbox_head.retina_cls'), losses
    )
    model.teacher.neck.fpn_convs[0].conv.bias.fill_(torch.nan)
    with pytest.raises(ConfigError, match='are not finite'):
        calibrate(model, [batch], 1)
    with pytest.raises(ConfigError, match='or there are none'):
        calibrate(model, [], 0)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(num_batches=0), 'num_batches: must be an int >= 1, but got 0'),
        (
            dict(seed='a'),
            "seed: must be an int in 0 .. 4294967295, but got 'a'",
        ),
        (dict(num_rois='all'), "num_rois: must be an int >= 1, but got 'all'"),
    ],
)
def test_wrong_arguments(make_config, arguments, message):
    hook = dict(type='LSHCalibrationHook', **arguments)
    cfg = make_config('faster_rcnn_lsh', {'custom_hooks': [hook]})
    cfg.experiment_name = str(arguments)
    with pytest.raises(ConfigError, match=message):
        Runner.from_cfg(cfg)


def test_a_plain_detector_has_nothing_to_calibrate(make_config):
    cfg = make_config('faster_rcnn_student', {'custom_hooks': [HOOK]})
    cfg.experiment_name = 'plain_calibration'
    with pytest.raises(ConfigError, match='but got FasterRCNN; remove it'):
        Runner.from_cfg(cfg).train()


def test_boxes_around_objects():
    boxes = [torch.tensor([[100.0, 200, 140, 260]]), torch.zeros(0, 4)]
    draw = lambda: jittered_rois(  # noqa: E731
        boxes, [(400, 600), (50, 80)], 400, torch.Generator().manual_seed(3)
    )
    rois = draw()
    assert torch.equal(rois, draw())
    first, second = (rois[rois[:, 0] == i, 1:] for i in (0, 1))
    assert len(first) == 400 and 380 <= len(second) <= 400
    x1, y1, x2, y2 = first.unbind(dim=1)
    overlap = (x2.clamp(max=140) - x1.clamp(min=100)).clamp(min=0) * (
        y2.clamp(max=260) - y1.clamp(min=200)
    ).clamp(min=0)
    iou = overlap / ((x2 - x1) * (y2 - y1) + 40 * 60 - overlap)
    assert iou[:100].min() > 0.5
    assert (iou[100:] > 0.5).float().mean() < 0.2
    assert (iou[100:] == 0).float().mean() > 0.2
    assert second[:, 0::2].max() <= 80 and second[:, 1::2].max() <= 50


@pytest.mark.slow
def test_two_processes_share_the_images(make_config, tmp_path):
    """Each sees half, and both get the bias of all."""
    cfg = make_config('faster_rcnn_lsh', {**epochs(1), **roi_losses('mean')})
    cfg.model.distiller.losses.roi = [
        dict(type='LSHLoss', bias=bias, num_hashes=16) for bias in BOTH
    ]
    cfg.model.distiller.losses.roi.append(
        dict(type='LSHLoss', std='features', num_hashes=16)
    )
    cfg.work_dir = str(tmp_path / 'work')
    cfg.dump(tmp_path / 'config.py')
    processes = [
        subprocess.Popen(
            [sys.executable, '-c', ONE_OF_TWO, tmp_path, str(rank)],
            env={**os.environ, 'OMP_NUM_THREADS': '1'},
            cwd=REPO,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        for rank in range(2)
    ]
    errors = [process.communicate(timeout=300)[1] for process in processes]
    assert [p.returncode for p in processes] == [0, 0], errors
    seen = [
        torch.load(tmp_path / f'{rank}.pth', weights_only=False)
        for rank in range(2)
    ]
    for one, other in zip(*(x['losses'] for x in seen), strict=True):
        assert torch.equal(one.bias, other.bias)
    assert all(len(x['rows']) == 3 for x in seen)
    rows = torch.cat([row for x in seen for row in x['rows']])
    *middles, scaled = seen[0]['losses']
    for loss in middles:
        assert middle_error(rows, loss) < 1e-5
    assert torch.equal(scaled.weight, seen[1]['losses'][-1].weight)
    square = (rows.double() @ scaled.weight.double().T).square().mean()
    assert float(square) == pytest.approx(1, rel=1e-4)


ONE_OF_TWO = """
import sys
from pathlib import Path
import torch
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.runner import Runner
import lshfm_mm

folder, rank = sys.argv[1], int(sys.argv[2])
meeting = Path(folder, 'meeting').as_uri()
torch.distributed.init_process_group('gloo', meeting, rank=rank, world_size=2)
register_all_modules(init_default_scope=True)
runner = Runner.from_cfg(Config.fromfile(f'{folder}/config.py'))
runner.train_loop  # is built
model, rows = runner.model, []
model.teacher.roi_head.bbox_head.fc_cls.register_forward_hook(
    lambda _, inputs, output: rows.append(inputs[0])
)
(hook,) = [x for x in runner.hooks if 'Calibration' in type(x).__name__]
hook.before_train(runner)
losses = list(model.distiller.distill_losses.values())
torch.save(dict(rows=rows, losses=losses), f'{folder}/{rank}.pth')
"""


MEMORY = """
import ctypes
import torch
from lshfm_mm.calibration.sketches import MedianSketch

def mebibytes(key):
    with open('/proc/self/status') as status:
        (line,) = [x for x in status if x.startswith(key)]
    return int(line.split()[1]) / 1024

K, N, D = 4096, 1_000_000, 64
generator = torch.Generator().manual_seed(0)
weight = torch.randn(K, D, generator=generator)
rows = torch.rand(N, D, generator=generator).log_()
small = MedianSketch(K, size=4)
small.update(weight @ rows[:64].T)
small.result()
del small
ctypes.CDLL('libc.so.6').malloc_trim(0)
with open('/proc/self/clear_refs', 'w') as file:
    file.write('5')  # resets VmHWM
start = mebibytes('VmRSS')
medians = []
for count in (1, 2, 4):
    sketches = []
    for part in rows.chunk(count):
        sketches.append(MedianSketch(K))
        for batch in part.split(1024):
            sketches[-1].update(weight @ batch.T)
    if count == 1:
        bound = sketches[0].rank_error()
    for other in sketches[1:]:
        sketches[0].merge(other)
    medians.append(sketches[0].result()[:, None])
    if count == 1:
        extra = mebibytes('VmHWM') - start
below = torch.zeros(3, K)
for batch in rows.split(4096):
    values = weight @ batch.T
    below += torch.stack([(values < x).sum(dim=1) for x in medians])
errors = (below / N - 0.5).abs().amax(dim=1)
print(extra, bound, *errors.tolist())
"""


@pytest.mark.slow
@pytest.mark.skipif(
    not sys.platform.startswith('linux'), reason='reads memory from /proc'
)
def test_a_million_samples_of_4096_hash_functions():
    process = subprocess.run(
        [sys.executable, '-c', MEMORY],
        capture_output=True,
        text=True,
        check=True,
        cwd=REPO,
    )
    extra, bound, *errors = [float(x) for x in process.stdout.split()[-5:]]
    print(f'{extra:.0f} MiB, bound {bound:.5f}, rank errors {errors}')
    assert 0 < extra <= 256e6 / 2**20
    assert bound <= 0.005
    assert max(errors) <= 0.005


@pytest.mark.parametrize('bias', ['zero', 'mean', 'median'])
@pytest.mark.parametrize(('noise', 'is_told'), [(1e-5, True), (0.05, False)])
def test_features_that_only_rounding_tells_apart(bias, noise, is_told):
    """Of a teacher in bfloat16, whose layers add almost nothing."""
    torch.manual_seed(0)
    feature = 1 + torch.rand(16) + noise * torch.randn(200, 16)
    loss = LSHLoss(16, std='features', bias=bias)
    sketches = Sketches(loss)
    rows = feature.bfloat16().float()
    for sketch in sketches.all:
        sketch.update(_project(rows, loss.weight))
    if is_told and bias != 'zero':
        with pytest.raises(ConfigError, match='features differ by only'):
            _settle('x', loss, sketches)
    else:
        _settle('x', loss, sketches)
        assert not loss.needs_calibration
