"""Every config of the repository parses and builds, at full size."""

from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.registry import MODELS as ROOT

from lshfm_mm.pairing.inspect import build
from lshfm_mm.utils.configs import model_config

REPO = Path(__file__).parent.parent
CONFIGS = sorted(
    str(path.relative_to(REPO))
    for path in (REPO / 'configs').glob('*/*.py')
    if path.parent.name != '_base_' and path.stem != 'export_onnx'
)


@pytest.fixture(scope='module')
def teachers():
    """Teachers with random weights, each built once: none is downloaded."""
    return {}


@pytest.mark.parametrize('path', CONFIGS)
def test_config_builds(path, teachers, monkeypatch):
    monkeypatch.chdir(REPO)
    cfg = Config.fromfile(path)
    if 'architecture' not in cfg.model:
        build('model', cfg)
        return
    assert cfg.model.teacher_ckpt.endswith('.pth')
    source = cfg.model.teacher.cfg_path
    if source not in teachers:
        teachers[source] = ROOT.build(
            model_config('teacher', cfg.model.teacher)
        )
    cfg.model.update(teacher=teachers[source], teacher_ckpt=None)
    model = build('model', cfg)
    distiller = cfg.model.distiller
    active = distiller.get('active', list(distiller.taps))
    expected = sum(len(distiller.losses[tap]) for tap in active)
    assert len(model.distiller.distill_losses) == expected > 0
    assert all(
        module.is_ready
        for module in model.distiller.distill_losses.modules()
        if type(module).__name__ == 'LSHLoss'
    )


def test_the_example_adds_at_most_ten_lines():
    path = REPO / 'configs/examples/your_detector.py'
    lines = [x for x in path.read_text().splitlines() if x]
    added = [x for x in lines if not x.startswith(('"""', '#', '_base_'))]
    assert len(added) <= 10


def test_variants_differ_in_what_their_names_say():
    def losses(name):
        cfg = Config.fromfile(REPO / f'configs/distill/{name}.py')
        return [
            (x.type, x.loss_weight) for x in cfg.model.distiller.losses.roi
        ]

    assert losses('faster_rcnn_lshfm') == [('LSHLoss', 7), ('L2Loss', 7)]
    assert losses('faster_rcnn_lsh') == [('LSHLoss', 7)]
    assert losses('faster_rcnn_l2') == [('L2Loss', 7)]


@pytest.mark.parametrize('detector', ['faster_rcnn', 'retinanet', 'gfl'])
def test_the_long_schedule_is_mmdets_own(detector):
    name = f'configs/distill/{detector}_lshfm_2x.py'
    cfg = Config.fromfile(REPO / name)
    own = get_config('mmdet::_base_/schedules/schedule_2x.py')
    assert cfg.train_cfg.max_epochs == own.train_cfg.max_epochs == 24
    for ours, theirs in zip(
        cfg.param_scheduler, own.param_scheduler, strict=True
    ):
        assert {k: ours[k] for k in theirs} == theirs


@pytest.mark.parametrize('name', ['faster_rcnn_r50', 'retinanet_vgg11_lshfm'])
def test_voc_follows_the_recipe_of_the_paper(name):
    cfg = Config.fromfile(REPO / f'configs/voc/{name}.py')
    data = cfg.train_dataloader.dataset
    assert data.type == 'ConcatDataset'
    assert [x.ann_file.split('/')[0] for x in data.datasets] == [
        'VOC2007',
        'VOC2012',
    ]
    for part in data.datasets:
        resize = part.pipeline[2]
        assert resize.type == 'RandomResize'
        assert resize.scale == [(1333, 480), (1333, 800)]
    assert cfg.test_dataloader.dataset.pipeline[1].scale == (1333, 800)
    assert cfg.train_cfg.max_epochs == 24
    warmup, steps = cfg.param_scheduler
    assert (warmup.end, steps.milestones) == (1000, [18, 22])
    retina = 'retinanet' in name
    assert cfg.optim_wrapper.optimizer.lr == (0.005 if retina else 0.01)
    if retina:
        losses = cfg.model.distiller.losses.cls
        assert [x.loss_weight for x in losses] == [8, 8]
    else:
        assert cfg.model.train_cfg.rpn_proposal.nms_pre == 4000


CIFAR_PAIRS = {  # width of the teacher, of the student, its rate
    'wrn_40_2_wrn_16_2': (128, 128, 0.05),
    'wrn_40_2_wrn_40_1': (128, 64, 0.05),
    'resnet56_resnet20': (64, 64, 0.05),
    'resnet110_resnet20': (64, 64, 0.05),
    'resnet110_resnet32': (64, 64, 0.05),
    'resnet32x4_resnet8x4': (256, 256, 0.05),
    'vgg13_vgg8': (512, 512, 0.05),
    'vgg13_mobilenetv2': (512, 1280, 0.01),
    'resnet50_mobilenetv2': (2048, 1280, 0.01),
    'resnet50_vgg8': (2048, 512, 0.05),
    'resnet32x4_shufflenetv1': (256, 960, 0.01),
    'resnet32x4_shufflenetv2': (256, 1024, 0.01),
    'wrn_40_2_shufflenetv1': (128, 960, 0.01),
}


@pytest.mark.parametrize('pair', CIFAR_PAIRS)
def test_cifar_follows_the_recipe_of_the_paper(pair):
    folder = REPO / 'configs/cifar100'
    theirs, ours, rate = CIFAR_PAIRS[pair]
    cfg = Config.fromfile(folder / f'{pair}_lshfm.py')
    teacher = cfg.model.teacher.cfg_path
    assert pair.startswith(Path(teacher).stem)
    alone = pair.removeprefix(Path(teacher).stem + '_')
    teacher = Config.fromfile(REPO / teacher).model
    student = Config.fromfile(folder / f'{alone}.py').model
    widths = teacher.head.in_channels, student.head.in_channels
    assert widths == (theirs, ours)
    assert cfg.model.architecture.backbone == student.backbone
    head, neck = cfg.model.architecture.head, cfg.model.architecture.neck
    assert head == {**student.head, 'in_channels': theirs}
    if theirs == ours:
        assert neck == dict(type='GlobalAveragePooling')
    else:
        assert neck.type == 'LinearNeck' and neck.norm_cfg is None
        assert (neck.in_channels, neck.out_channels) == (ours, theirs)
    lsh, l2 = cfg.model.distiller.losses.pooled
    assert lsh == dict(
        type='LSHLoss', num_hashes=32 * theirs, bias='median', loss_weight=6
    )
    assert l2 == dict(type='FeatureL2Loss', loss_weight=6)
    assert cfg.optim_wrapper.optimizer == dict(
        type='SGD', lr=rate, momentum=0.9, weight_decay=5e-4
    )
    assert cfg.train_cfg.max_epochs == cfg.param_scheduler.end == 240
    assert cfg.param_scheduler.milestones == [150, 180, 210]
    assert cfg.train_dataloader.batch_size == 64
    variants = {
        'lshfm': ('correct', [lsh, l2]),
        'lshl2': ('uniform', [lsh, l2]),
        'lsh': ('uniform', [lsh]),
        'l2': ('uniform', [l2]),
    }
    average = dict(type='AverageCheckpointsHook', num_epochs=10)
    median = dict(type='LSHCalibrationHook', num_batches=None)
    for name, (weights, losses) in variants.items():
        variant = Config.fromfile(folder / f'{pair}_{name}.py')
        distiller = variant.model.distiller
        assert distiller.taps.pooled == dict(layer='head.fc', weights=weights)
        assert distiller.losses.pooled == losses
        hooks = [median, average] if lsh in losses else [average]
        assert variant.custom_hooks == hooks
        assert variant.model.architecture == cfg.model.architecture
