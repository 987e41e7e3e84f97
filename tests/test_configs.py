"""Every config of the repository parses and builds, at full size."""

from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.registry import MODELS as ROOT

from lshfm_mm.distillers.taps import Tap
from lshfm_mm.pairing.inspect import build_model
from lshfm_mm.utils.configs import model_config

REPO = Path(__file__).parent.parent
CONFIGS = sorted(
    str(path.relative_to(REPO))
    for path in (REPO / 'configs').glob('*/*.py')
    if path.parent.name != '_base_'
)


@pytest.fixture(scope='module')
def teachers():
    """Teachers with random weights, each built once: none is downloaded."""
    return {}


@pytest.mark.parametrize('path', CONFIGS)
def test_config_builds(path, teachers, monkeypatch):
    monkeypatch.chdir(REPO)
    cfg = Config.fromfile(path)
    imported = cfg.get('custom_imports')
    assert imported is None or imported.allow_failed_imports is False
    if 'architecture' not in cfg.model:
        build_model('model', cfg)
        return
    check_name(Path(path), cfg.model)
    for entry, model, ckpt in (
        [(x, 'model', 'ckpt') for x in cfg.model.teachers.values()]
        if 'teachers' in cfg.model
        else [(cfg.model, 'teacher', 'teacher_ckpt')]
    ):
        assert entry[ckpt].endswith('.pth')
        source = getattr(entry[model], 'cfg_path', entry[model])
        if source not in teachers:
            teachers[source] = ROOT.build(
                model_config('teacher', entry[model])
            )
        entry.update({model: teachers[source], ckpt: None})
    model = build_model('model', cfg)
    distiller = cfg.model.distiller
    active = distiller.get('active', list(distiller.taps))
    expected = sum(len(distiller.losses[tap]) for tap in active)
    assert len(model.distiller.distill_losses) == expected > 0
    assert all(
        module.is_ready
        for module in model.distiller.distill_losses.modules()
        if type(module).__name__ == 'LSHLoss'
    )


def check_name(path, model):
    """What a name says of losses, teacher and student is in the config."""
    if path.parent.name == 'examples' or path.stem == 'faster_rcnn_lshfm':
        return
    if path.stem.startswith('backbone_'):  # its stages mimic, no head
        return
    method, _, rest = path.stem.split('_', 2)
    distiller = model.distiller
    active = distiller.get('active', [*distiller.taps])
    weights = {
        Tap.parse(name, distiller.taps[name]).weights for name in active
    }
    expected = {
        'lsh': ['lsh'],
        'lsh-bf16': ['lsh'],
        'lshl2': ['lsh', 'l2'],
        'lshl2-correct': ['lsh', 'l2'],
        'lshl2-cwd': ['roi', 'fpn'],
        'lshl2-pkd-kl': ['lsh', 'l2', 'fpn', 'logits'],
    }
    if method == 'recommended':
        # Heads of two widths have each their own.
        assert ('inherit' in model) == ('_rtmdet_' not in path.name)
    else:
        assert active == expected[method]
        kind = 'correct' if 'correct' in method else 'uniform'
        assert weights == {(kind,)}
    types = dict(lsh=['LSHLoss'], l2=['FeatureL2Loss'])
    for tap in active:
        losses = [x.type for x in distiller.losses[tap]]
        assert losses == types.get(tap, losses)
    teacher = Path(model.teacher.cfg_path).stem
    if '_fpn_' in teacher:  # one of mmdet's
        teacher = teacher.partition('_fpn_')[0]
    else:
        teacher = teacher.rpartition('_')[0]
    assert rest.startswith(teacher + '_')


def test_the_example_adds_at_most_ten_lines():
    path = REPO / 'configs/examples/your_detector.py'
    lines = [x for x in path.read_text().splitlines() if x]
    added = [x for x in lines if not x.startswith(('"""', '#', '_base_'))]
    assert len(added) <= 10


def test_each_file_name_stands_once():
    """The default folder of a training has the name of its config."""
    stems = [x.stem for x in (REPO / 'configs').rglob('*.py')]
    assert sorted(stems) == sorted(set(stems))


@pytest.mark.parametrize(
    'path',
    sorted(REPO.glob('configs/distill/*_2x_*.py')),
    ids=lambda x: x.stem,
)
def test_the_long_schedule_is_mmdets_own(path):
    cfg = Config.fromfile(path)
    own = get_config('mmdet::_base_/schedules/schedule_2x.py')
    assert cfg.train_cfg.max_epochs == own.train_cfg.max_epochs == 24
    for ours, theirs in zip(
        cfg.param_scheduler, own.param_scheduler, strict=True
    ):
        assert {k: ours[k] for k in theirs} == theirs


@pytest.mark.parametrize(
    'name',
    [
        'faster-rcnn_r50_voc0712',
        'lshl2_cls_retinanet_vgg16_retinanet_vgg11_voc0712',
    ],
)
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
        losses = cfg.model.distiller.losses
        assert [x[0].loss_weight for x in losses.values()] == [8, 8]
    else:
        assert cfg.model.train_cfg.rpn_proposal.nms_pre == 4000


CIFAR_PAIRS = {  # width of the teacher, of the student, its rate
    'wrn-40-2_wrn-16-2': (128, 128, 0.05),
    'wrn-40-2_wrn-40-1': (128, 64, 0.05),
    'resnet56_resnet20': (64, 64, 0.05),
    'resnet110_resnet20': (64, 64, 0.05),
    'resnet110_resnet32': (64, 64, 0.05),
    'resnet32x4_resnet8x4': (256, 256, 0.05),
    'vgg13_vgg8': (512, 512, 0.05),
    'vgg13_mobilenet-v2': (512, 1280, 0.01),
    'resnet50_mobilenet-v2': (2048, 1280, 0.01),
    'resnet50_vgg8': (2048, 512, 0.05),
    'resnet32x4_shufflenet-v1': (256, 960, 0.01),
    'resnet32x4_shufflenet-v2': (256, 1024, 0.01),
    'wrn-40-2_shufflenet-v1': (128, 960, 0.01),
}


@pytest.mark.parametrize('pair', CIFAR_PAIRS)
def test_cifar_follows_the_recipe_of_the_paper(pair):
    folder = REPO / 'configs/cifar100'
    theirs, ours, rate = CIFAR_PAIRS[pair]
    cfg = Config.fromfile(folder / f'lshl2-correct_pooled_{pair}_cifar100.py')
    names = pair.split('_')
    path = cfg.model.teacher.cfg_path
    assert Path(path).name == f'{names[0]}_cifar100.py'
    teacher = Config.fromfile(REPO / path).model
    student = Config.fromfile(folder / f'{names[1]}_cifar100.py').model
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
    assert cfg.model.distiller.losses == dict(
        lsh=[
            dict(
                type='LSHLoss',
                num_hashes=32 * theirs,
                bias='median',
                loss_weight=6,
            )
        ],
        l2=[dict(type='FeatureL2Loss', loss_weight=6)],
    )
    assert cfg.optim_wrapper.optimizer == dict(
        type='SGD', lr=rate, momentum=0.9, weight_decay=5e-4
    )
    assert cfg.train_cfg.max_epochs == cfg.param_scheduler.end == 240
    assert cfg.param_scheduler.milestones == [150, 180, 210]
    assert cfg.train_dataloader.batch_size == 64
    assert cfg.custom_hooks == [
        dict(type='LSHCalibrationHook', num_batches=None),
        dict(type='AverageCheckpointsHook', num_epochs=10),
    ]
