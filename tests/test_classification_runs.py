"""Whole runs of classifiers: stages, averages, export, plain training."""

import json
from pathlib import Path

import mmpretrain
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmpretrain.registry import MODELS

from lshfm_mm.errors import ConfigError
from lshfm_mm.export import export_student
from lshfm_mm.export.student import check_weights, plain_config
from lshfm_mm.hooks import AverageCheckpointsHook

from .conftest import read_shapes
from .processes import run_python, run_tool
from .test_tools import UNMODIFIED

REPO = Path(__file__).parent.parent
TEST = Path(mmpretrain.__file__).parent / '.mim/tools/test.py'
TASKS = ('single', 'multi')
LSH = 'distiller.distill_losses.loss_lsh_lsh.'


@pytest.fixture(autouse=True)
def _classifiers(_scope):
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield


@pytest.fixture
def read(shapes_root, tmp_path):
    """Read a shapes config, shrunk to seconds; weights are made up."""

    def made(kind, cfg):
        path = tmp_path / f'{kind}.pth'
        if not path.exists():
            with torch.random.fork_rng():
                torch.manual_seed(len(kind))
                model = MODELS.build(cfg)
                model.init_weights()
                torch.nn.init.normal_(model.head.fc.weight, std=0.1)
                torch.save({'state_dict': model.state_dict()}, path)
        return str(path)

    def shrink(name, **changes):
        cfg = read_shapes(name)
        for split in ('train', 'val', 'test'):
            loader = cfg[f'{split}_dataloader']
            if loader is not None:
                loader.update(
                    batch_size=8, num_workers=0, persistent_workers=False
                )
                loader.dataset.data_root = str(shapes_root)
        cfg.train_cfg.max_epochs = 1
        cfg.custom_imports = None
        student = cfg.model.get('architecture', cfg.model)
        student.backbone.pop('init_cfg', None)
        if 'teacher' in cfg.model:
            task = name.split('_')[0]
            teacher = read_shapes(f'{task}_teacher')
            teacher.model.backbone.pop('init_cfg', None)
            teacher.model.data_preprocessor = teacher.data_preprocessor
            cfg.model.teacher = teacher.model
            cfg.model.teacher_ckpt = made(f'{task}_teacher', teacher.model)
        cfg.load_from = None
        cfg.work_dir = str(tmp_path / name)
        cfg.experiment_name = f'{tmp_path.name}{name}{len(changes)}'
        cfg.merge_from_dict(changes)
        return cfg

    return shrink


def train(cfg):
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner


@pytest.mark.parametrize('task', TASKS)
def test_weight_zero_is_plain_mmpretrain_bit_for_bit(task, read):
    """With the calibration of a median, and a tap through a connector."""
    plain = train(read(f'{task}_student', **{'train_cfg.max_epochs': 2}))
    cfg = read(f'{task}_lshfm', **{'train_cfg.max_epochs': 2})
    cfg.model.architecture = read(f'{task}_student').model
    connector = dict(
        type='TorchNNConnector',
        module_name='Linear',
        module_args=dict(in_features=32, out_features=128),
    )
    cfg.model.distiller.connectors = dict(lsh=connector, l2=connector)
    for [loss] in cfg.model.distiller.losses.values():
        loss.loss_weight = 0
    off = train(cfg)
    assert off.iter == plain.iter > 2
    student = off.model.student.state_dict()
    expected = plain.model.state_dict()
    assert student.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.equal(value, student[key]), key
    start = MODELS.build(cfg.model.architecture).state_dict()
    assert not torch.equal(start['head.fc.bias'], student['head.fc.bias'])


@pytest.mark.parametrize(
    'task', ['single', pytest.param('multi', marks=pytest.mark.slow)]
)
def test_two_stages_to_a_student_of_unmodified_mmpretrain(
    task, read, tmp_path
):
    """Stage 2 goes on from stage 1; what is exported scores the same."""
    cfg = read(f'{task}_stage1')
    for transform in cfg.train_dataloader.dataset.pipeline:
        if transform.type == 'RandomFlip':
            transform.prob = 0.0  # the images are to be seen again
    first = train(cfg)
    before = first.model.student.backbone.state_dict()
    saved = tmp_path / f'{task}_stage1/epoch_1.pth'
    state = torch.load(saved, weights_only=True)['state_dict']

    # Stage 1 was calibrated by the exact median of the teacher's features.
    features = []
    model = first.model
    with torch.no_grad():
        for batch in first.train_dataloader:
            data = model.data_preprocessor(batch, training=False)
            features.append(model.teacher.extract_feat(data['inputs'])[-1])
    weight = model.distiller.distill_losses.loss_lsh_lsh.weight
    projected = torch.cat(features) @ weight.T
    torch.testing.assert_close(
        state[LSH + 'bias'], -projected.median(dim=0).values
    )

    cfg = read(f'{task}_lshfm', load_from=str(saved))
    path = tmp_path / f'{task}.py'
    cfg.dump(path)
    seen = {}

    def start(runner):
        seen.update(
            {k: v.clone() for k, v in runner.model.state_dict().items()}
        )

    runner = Runner.from_cfg(cfg)
    hook = runner.hooks[0]
    runner.hooks[-1].before_train_epoch = start
    assert hook is not runner.hooks[-1]
    runner.train()
    assert torch.equal(seen[LSH + 'bias'], state[LSH + 'bias'])
    assert torch.equal(
        seen['architecture.neck.fc.weight'],
        state['architecture.neck.fc.weight'],
    )
    after = runner.model.student.backbone.state_dict()
    assert not torch.equal(after['conv1.weight'], before['conv1.weight'])

    out = tmp_path / 'student.pth'
    said = export_student(
        str(tmp_path / f'{task}_lshfm/epoch_1.pth'), str(out), config=str(path)
    )
    assert 'its embedding folded into its classifier' in said
    exported = Config.fromfile(out.with_suffix('.py'))
    assert exported.model.head.in_channels == 32
    assert 'custom_imports' not in exported
    with pytest.raises(ConfigError, match='config: the student has an embed'):
        export_student(str(saved), str(tmp_path / 'unfolded.pth'))
    assert not (tmp_path / 'unfolded.pth').exists()
    with pytest.raises(ConfigError, match='missing or misshapen: neck.fc.wei'):
        check_weights(cfg, str(out))  # folded, and not the student of cfg
    check_weights(exported, str(out))
    ours = runner.test()
    result = tmp_path / 'metrics.json'
    text = run_python(
        *('-c', UNMODIFIED, TEST, out.with_suffix('.py'), out),
        *('--out-item', 'metrics', '--work-dir', tmp_path / 'plain'),
        *('--out', result),
        cwd='/',
    )
    assert 'NO PLUGIN' in text
    assert 'missing keys' not in text and 'unexpected key' not in text
    theirs = json.loads(result.read_text())
    assert ours.keys() == theirs.keys() and ours
    for key, value in ours.items():
        assert theirs[key] == pytest.approx(value, abs=1e-3), key


def test_resuming_nothing_starts_from_load_from(read, tmp_path):
    """The line of a cluster's queue: upstream's tools forget load_from."""
    start = tmp_path / 'start.pth'
    cfg = read('single_student')
    model = MODELS.build(cfg.model)
    torch.save({'state_dict': model.state_dict(), 'meta': {}}, start)
    cfg.load_from = str(start)
    path = tmp_path / 'config.py'
    cfg.dump(path)
    line = ('tools/train.py', path, '--resume', '--work-dir', tmp_path / 'run')
    said = run_tool(*line)
    assert f'Load checkpoint from {start}' in said
    said = run_tool(*line)
    assert f'from {start}' not in said and 'resumed epoch: 1' in said
    start.unlink()
    path.write_text(path.read_text().replace('start.pth', 'absent.pth'))
    said = run_tool(*line, code=1)
    assert said.strip().endswith(
        f'error: load_from: no such file: {tmp_path}/absent.pth; do the '
        f'training before this one, or set it to None'
    )


def test_an_exported_config_imports_what_it_names(monkeypatch):
    """And drops what only the distillation needed."""
    monkeypatch.chdir(REPO)
    for name, imports in (
        (
            'cifar100/lshl2-correct_pooled_resnet56_resnet20_cifar100',
            ['lshfm_mm.backbones.cifar'],
        ),
        (
            'coco14/lshl2_pooled_resnet101_resnet50_stage2_coco14',
            ['lshfm_mm.datasets.coco_multi_label'],
        ),
        (
            'coco14/lshl2_pooled_resnet101-max_resnet50-max_coco14',
            ['lshfm_mm.backbones.necks', 'lshfm_mm.datasets.coco_multi_label'],
        ),
        ('imagenet/lshl2-correct_pooled_resnet34_resnet18_in1k', None),
    ):
        cfg = Config.fromfile(f'configs/{name}.py')
        plain = plain_config(cfg)
        found = plain.get('custom_imports')
        assert (found and sorted(found['imports'])) == imports
        assert plain.model.type.endswith('ImageClassifier')
        assert not plain.custom_hooks and 'load_from' not in plain


# Averages


def averaging(read, **changes):
    cfg = read(
        'single_student',
        **{'train_cfg.max_epochs': 4, 'default_hooks.checkpoint': KEPT},
    )
    cfg.custom_hooks = [dict(type='AverageCheckpointsHook', num_epochs=3)]
    cfg.merge_from_dict(changes)
    return cfg


KEPT = dict(type='CheckpointHook', interval=1, max_keep_ckpts=3)


def test_the_average_counts_each_epoch_once(read):
    cfg = averaging(read)
    train(cfg)
    folder = Path(cfg.work_dir)
    epochs = [
        torch.load(folder / f'epoch_{x}.pth', weights_only=True)['state_dict']
        for x in (2, 3, 4)
    ]
    content = torch.load(folder / 'average_3.pth', weights_only=True)
    assert 'optimizer' not in content
    found = content['state_dict']
    assert found.keys() == epochs[0].keys()
    for key, value in found.items():
        assert value.dtype == epochs[0][key].dtype
        values = [x[key] for x in epochs]
        if value.is_floating_point():
            mean = sum(x.double() for x in values) / 3
            torch.testing.assert_close(value.double(), mean, rtol=1e-6, atol=0)
        else:
            assert torch.equal(value, values[-1])
    key = 'head.fc.weight'
    assert not torch.equal(epochs[0][key], epochs[2][key])
    model = MODELS.build(cfg.model)
    model.load_state_dict(found)


@pytest.mark.parametrize(
    'changes, message',
    [
        ({'default_hooks.checkpoint.max_keep_ckpts': 2}, 'of the last 3 epoc'),
        ({'default_hooks.checkpoint.interval': 2}, 'of the last 3 epochs'),
        ({'train_cfg.max_epochs': 2}, 'training has 2 epochs; lower it'),
    ],
)
def test_epochs_that_will_not_be_there(changes, message, read):
    """Said before the first step."""
    cfg = averaging(read, **changes)
    with pytest.raises(ConfigError, match=message):
        train(cfg)
    assert not list(Path(cfg.work_dir).glob('*.pth'))


def test_a_wrong_number_of_epochs():
    with pytest.raises(ConfigError, match='must be an int >= 2, but got 1'):
        AverageCheckpointsHook(num_epochs=1)
