"""Rows of published tables: their plans, schedules, and the whole way."""

import argparse
import json
import pickle
import re
import runpy
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
import torch
from mmdet.datasets import VOCDataset
from mmengine.config import Config, DictAction
from mmengine.registry import PARAM_SCHEDULERS, DefaultScope

from lshfm_mm.cli import chain, reproduction
from lshfm_mm.cli.chain import Chain, Run, brief
from lshfm_mm.cli.reproduction import RECIPES, find_rows, read_row
from lshfm_mm.errors import ConfigError
from lshfm_mm.utils.configs import read_config

REPO = Path(__file__).parent.parent
# From the paper and the authors' pages: teacher, student, L2, LSH, LSHL2.
DETECTION = {
    'voc faster-rcnn r101_r50': (83.6, 82.0, 83.0, 82.6, 83.0),
    'voc faster-rcnn vgg16_vgg11': (79.0, 75.1, 76.8, 76.7, 77.2),
    'voc retinanet r101_r50': (83.0, 82.5, 82.6, None, 83.0),
    'voc retinanet vgg16_vgg11': (76.6, 73.2, 74.8, None, 75.2),
}
CLASSIFICATION = {  # row -> arm, its number; of the others there is none
    'imagenet resnet34_resnet18': ('correct', 71.72),
    'coco14 resnet101_resnet50': ('two-stages', 77.16),
    'coco14 resnet101_mobilenet-v2': ('two-stages', 73.73),
    'voc07 resnet101_resnet50': ('two-stages', 93.17),
    'voc07 resnet101_mobilenet-v2': ('two-stages', 90.14),
    'voc07 resnet34_resnet18': ('two-stages', None),
    'cifar100 resnet56_resnet20': ('correct', None),
}
ARMS = ['student', 'l2', 'lsh', 'lshl2']


@pytest.mark.parametrize('row', DETECTION)
def test_published_of_detectors(row):
    found = read_row(row)
    assert [*found.arms] == ARMS
    arms = [found.arms[x].published for x in ARMS]
    assert (found.teacher.published, *arms) == DETECTION[row]


@pytest.mark.parametrize('row', CLASSIFICATION)
def test_published_of_classifiers(row):
    arm, published = CLASSIFICATION[row]
    found = {k: v.published for k, v in read_row(row).arms.items()}
    assert found.pop(arm) == published
    assert not any(found.values())


def test_of_coco_the_teacher_is_known():
    row = read_row('coco faster-rcnn r101_r50 1x')
    assert row.teacher.published == 39.8
    assert row.teacher.is_there  # on a server
    assert {*row.arms} == {*ARMS, 'lshl2-pkd-kl', 'recommended'}
    (run,) = row.arms['student'].runs
    assert run.config == 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'


def test_each_config_is_in_a_row():
    """And what a config of a row reads is what another one writes."""
    used = set()
    for name in find_rows():
        row = read_row(name)
        if not row.teacher.is_there:
            used.add(Path(row.teacher.config))
            made = f'work_dirs/{row.teacher.run.name}.pth'
            assert row.teacher.checkpoint == made
        for arm in row.arms.values():
            used |= {Path(x.config) for x in arm.runs if '::' not in x.config}
            names = [x.name for x in arm.runs]
            if len(names) == 2:
                start = Config.fromfile(arm.runs[1].config).load_from
                last = f'epoch_{row.epochs}.pth'
                assert start == f'work_dirs/{names[0]}/{last}'
            if '::' in arm.runs[-1].config:
                continue  # mmdet's own
            cfg = Config.fromfile(arm.runs[-1].config)
            hooks = str(cfg.get('custom_hooks'))
            is_mean = 'AverageCheckpointsHook' in hooks
            assert arm.runs[-1].checkpoint == 'average_10.pth' * is_mean
    folders = {x.folder for x in RECIPES.values()}
    given = {y for x in folders for y in (REPO / 'configs' / x).glob('*.py')}
    # Those of ImageNet's teachers are read, and never trained.
    rest = {x.stem for x in given - used}
    assert rest == {'resnet34_in1k', 'resnet101_in1k'}
    by_name: dict[str, Run] = {}
    for name in find_rows():
        for arm in read_row(name).arms.values():
            for run in arm.runs:
                assert by_name.setdefault(run.name, run) == run


def test_losses_are_those_of_the_arm():
    arms = read_row('cifar100 resnet56_resnet20').arms
    found = {}
    for name in ('l2', 'lsh', 'lshl2', 'correct'):
        (run,) = arms[name].runs
        cfg = Config.fromfile(run.config)
        parser = argparse.ArgumentParser()
        parser.add_argument('options', nargs='*', action=DictAction)
        cfg.merge_from_dict(parser.parse_args([*run.options]).options)
        distiller = cfg.model.distiller
        active = distiller.get('active') or [*distiller.taps]
        found[name] = {x: distiller.taps[x].weights for x in active}
    assert found == dict(
        l2=dict(l2='uniform'),
        lsh=dict(lsh='uniform'),
        lshl2=dict(lsh='uniform', l2='uniform'),
        correct=dict(lsh='correct', l2='correct'),
    )
    arms = read_row('voc retinanet r101_r50').arms
    changes = [arms[x].runs[0].options for x in ('l2', 'lsh', 'lshl2')]
    active = 'model.distiller.active=[{}]'
    assert changes == [(active.format('l2'),), (active.format('lsh'),), ()]


# Row -> epochs, steps of one, rate after the first update of each of these
# epochs. The images: 5011 + 11540, 50000, 1281167, 5011, 82081, 117266.
SCHEDULES = {
    'voc faster-rcnn r101_r50': (
        *(24, 2069),
        {1: 1e-2, 17: 1e-2, 18: 1e-3, 21: 1e-3, 22: 1e-4, 23: 1e-4},
    ),
    'voc retinanet vgg16_vgg11': (
        *(24, 2069),
        {1: 5e-3, 17: 5e-3, 18: 5e-4, 21: 5e-4, 22: 5e-5},
    ),
    'cifar100 resnet56_resnet20': (
        *(240, 782),
        {0: 0.05, 149: 0.05, 150: 5e-3, 180: 5e-4, 209: 5e-4, 210: 5e-5},
    ),
    'cifar100 vgg13_mobilenet-v2': (*(240, 782), {0: 0.01, 150: 1e-3}),
    'imagenet resnet34_resnet18': (
        *(100, 5005),
        {0: 0.1, 29: 0.1, 30: 1e-2, 60: 1e-3, 89: 1e-3, 90: 1e-4},
    ),
    'voc07 resnet101_resnet50': (
        *(60, 314),
        {0: 0.01, 15: 0.0085355, 30: 0.005, 45: 0.0014645},
    ),
    'coco14 resnet101_resnet50': (*(60, 2566), {0: 0.01, 30: 0.005}),
    'coco faster-rcnn r101_r50 1x': (
        *(12, 7330),
        {1: 0.02, 7: 0.02, 8: 2e-3, 11: 2e-4},
    ),
}


def rates(cfg, epochs, steps):
    """Rates at the start of each epoch, and of the first 1001 steps."""
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=cfg.optim_wrapper.optimizer.lr)
    given = cfg.param_scheduler
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        schedulers = [
            PARAM_SCHEDULERS.build(
                dict(x),
                default_args=dict(optimizer=optimizer, epoch_length=steps),
            )
            for x in (given if isinstance(given, list) else [given])
        ]
    of_steps = [x for x in schedulers if not x.by_epoch]
    at_epochs, first = [], []
    optimizer.step()
    for epoch in range(epochs):
        at_epochs.append(optimizer.param_groups[0]['lr'])
        # A warm-up has nothing to do later; a cosine goes on to the end.
        left = [x for x in of_steps if x.end > epoch * steps]
        for step in range(steps if left else 0):
            if epoch == 0 and step <= 1000:
                first.append(optimizer.param_groups[0]['lr'])
            for scheduler in left:
                scheduler.step()
        for scheduler in schedulers:
            if scheduler.by_epoch:
                scheduler.step()
    return at_epochs, first


@pytest.mark.parametrize('row', SCHEDULES)
def test_schedules_are_those_of_the_recipes(row):
    epochs, steps, expected = SCHEDULES[row]
    found = read_row(row)
    recipe = found.recipe
    assert (found.epochs, found.steps) == (epochs, epochs * steps)
    for arm in found.arms.values():
        if '::' in arm.runs[-1].config:
            continue  # mmdet's own
        cfg = Config.fromfile(arm.runs[-1].config)
        assert cfg.auto_scale_lr.base_batch_size == recipe.batch
        assert cfg.train_cfg.max_epochs == epochs
    at_epochs, first = rates(cfg, epochs, steps)
    got = {epoch: at_epochs[epoch] for epoch in expected}
    assert got == pytest.approx(expected, rel=1e-4)
    if row.startswith('voc '):  # linear over 1000 steps, from a thousandth
        full = cfg.optim_wrapper.optimizer.lr
        assert first[0] == pytest.approx(full / 1000)
        assert first[500] == pytest.approx(full / 2, rel=0.01)
        assert first[999] <= first[1000] == pytest.approx(full)


def reproduce(monkeypatch, *arguments):
    """Run the tool in this process."""
    path = REPO / 'tools/reproduce.py'
    monkeypatch.setattr(sys, 'argv', [str(path), *arguments])
    try:
        runpy.run_path(str(path), run_name='__main__')
    except SystemExit as end:
        return end.code
    return 0


def test_a_dry_run_prints_what_one_would_type(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ['voc07', 'resnet101_resnet50']
    options = ['--dry-run', '--gpus', '2', '--cfg-options', 'a=1']
    assert reproduce(monkeypatch, *words, *options) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head == 'each training: 60 epochs, 18840 steps of 16 images'
    pair = 'lshl2_pooled_resnet101_resnet50'
    names = [
        *('resnet101_voc07', 'resnet50_voc07', f'{pair}_voc07'),
        *(f'{pair}_stage1_voc07', f'{pair}_stage2_voc07'),
    ]
    found = [re.search(r'train\.py \S*/(\S+)\.py', x) for x in lines]
    assert sorted(x[1] for x in found if x) == sorted(names)
    first = lines[0].replace(str(REPO), '.')
    assert first == (
        'python -m torch.distributed.run --standalone --nproc_per_node=2 '
        './tools/train.py ./configs/voc07/resnet101_voc07.py --work-dir '
        'work_dirs/resnet101_voc07 --resume --launcher pytorch '
        '--cfg-options train_dataloader.batch_size=8 a=1'
    )
    assert lines[1].replace(str(REPO), '.') == (
        'python ./tools/export_student.py '
        '"$(cat work_dirs/resnet101_voc07/last_checkpoint)" '
        '-o work_dirs/resnet101_voc07.pth '
        f'--config {REPO}/configs/voc07/resnet101_voc07.py'.replace(
            str(REPO), '.'
        )
    )
    # A teacher that is there is not trained; nor what was, again.
    work = tmp_path / 'work_dirs'
    work.mkdir()
    (work / 'resnet101_voc07.pth').touch()
    for end in ('py', 'pth', 'json'):
        (work / f'resnet50_voc07.{end}').touch()
    only = ['--only', 'student', 'two-stages']
    assert reproduce(monkeypatch, *words, '--dry-run', *only) == 0
    text = capsys.readouterr().out
    found = re.findall(r'(train|test)\.py \S*/(\S+)\.py', text)
    assert found == [
        ('train', names[3]),
        ('train', names[4]),
        ('test', names[0]),
        ('test', names[4]),
    ]


def table_of(text):
    """Title -> published, own, difference."""
    lines = [x.split('|')[1:-1] for x in text.splitlines() if x[:1] == '|']
    return {x.strip(): [y.strip() for y in z] for x, *z in lines[2:]}


def test_the_table_is_of_what_was_measured(tmp_path, monkeypatch, capsys):
    """All is done: nothing runs."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'work_dirs').mkdir()
    row = read_row('voc faster-rcnn r101_r50')
    runs = [row.teacher.run]
    runs += [row.arms[x].runs[-1] for x in ('student', 'lshl2')]
    for run, ap in zip(runs, (0.841, 0.82, 0.825), strict=True):
        for end in ('pth', 'py'):
            Path(f'work_dirs/{run.name}.{end}').touch()
        metrics = {'pascal_voc/AP50': ap, 'pascal_voc/mAP': 0.5}
        Path(f'work_dirs/{run.name}.json').write_text(json.dumps(metrics))
    words = ['voc', 'faster_rcnn', 'r101_r50', '--only', 'student', 'lshl2']
    assert reproduce(monkeypatch, *words) == 0
    assert table_of(capsys.readouterr().out) == {
        'teacher': ['83.6', '84.10', '+0.50'],
        'student alone': ['82', '82.00', '+0.00'],
        'LSHL2': ['83', '82.50', '-0.50'],
    }
    assert reproduce(monkeypatch, *words, '--dry-run') == 0
    assert capsys.readouterr().out.count('\n') == 2  # steps, and nothing


def test_what_was_made_with_other_options_is_an_error(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    former = signal.getsignal(signal.SIGTERM)
    row = read_row('voc faster-rcnn r101_r50')
    names = [row.teacher.run.name, row.arms['student'].runs[0].name]
    work = Path('work_dirs')

    def measure(self, name, *_):
        path = work / name / 'test/1/1.json'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('{"pascal_voc/AP50": 0.5}')

    monkeypatch.setattr(Chain, 'run_tool', measure)
    work.mkdir()
    teacher, student = (work / x for x in names)
    teacher.with_suffix('.pth').touch()  # given, and not made here
    for end in ('.pth', '.py'):
        student.with_suffix(end).touch()
    student.with_suffix('.options').write_text("a=1 'b=[2, 3]'")
    words = ['voc', 'faster_rcnn', 'r101_r50', '--only', 'student']
    first = ['--cfg-options', 'a=1', 'b=[2, 3]']
    for _ in range(2):
        assert reproduce(monkeypatch, *words, *first) == 0
    for more in ([], ['--dry-run']):
        answer = reproduce(monkeypatch, *words, '--cfg-options', 'a=2', *more)
        made = teacher.with_suffix('.json') if not more else f'{student}.pth'
        whose = str(made).rpartition('.')[0]
        assert answer == (
            f"error: cfg-options: {made} was made with a=1 'b=[2, 3]', and "
            f'now they are a=2; give the former, or delete {whose} and '
            f'{whose}.* first'
        )
    assert 'they are none; ' in reproduce(monkeypatch, *words)
    teacher.with_suffix('.py').touch()  # as one that is trained here has it
    teacher.with_suffix('.json').unlink()
    assert f'{teacher}.pth was made' in reproduce(monkeypatch, *words)
    assert signal.getsignal(signal.SIGTERM) is former


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (
            ['voc', 'faster_rcn', 'r101_r5'],
            "error: row: there is no 'voc faster_rcn r101_r5'; did you mean "
            "'voc faster-rcnn r101_r50'",
        ),
        ([], "error: row: there is no ''; --list prints all rows"),
        (
            ['voc', 'faster_rcnn', 'r101_r50', '--only', 'kd'],
            'error: only: this row has no kd; it has student, l2, lsh, lshl2',
        ),
        (
            ['cifar100', 'resnet56-resnet20', '--gpus', '3'],
            'error: gpus: 3 cannot share the 64 images of a step; take a '
            'number that divides them',
        ),
    ],
)
def test_errors_are_one_line(arguments, message, monkeypatch):
    answer = reproduce(monkeypatch, *arguments)
    assert answer.startswith(message) and '\n' not in answer


def test_a_signal_ends_the_tool(tmp_path, monkeypatch):
    """Python waits for a child unless it is stopped from the keyboard."""

    def stop(*_, **__):
        sys.exit('stopped')

    monkeypatch.setattr(chain, 'print', stop, raising=False)
    code = "import time; print('Epoch(train)', flush=True); time.sleep(60)"
    running = Chain(tmp_path)
    with pytest.raises(SystemExit, match='stopped'):
        running.run_tool('student', '-c', code)
    (child,) = running.children
    assert child.wait() == -signal.SIGTERM
    assert (tmp_path / 'student.log').read_text() == 'Epoch(train)\n'


def test_runs_that_end_together_are_exported_one_by_one(tmp_path, monkeypatch):
    """To find the base of a config MMEngine reloads a package."""
    config, *_ = REPO.glob('configs/distill/recommended_roi-fpn_*.py')

    alone = Lock()

    def read(checkpoint, out, force, config):
        assert alone.acquire(blocking=False)
        read_config('config', config)
        alone.release()

    monkeypatch.setattr('lshfm_mm.export.export_student', read)
    running = Chain(tmp_path)

    def trained(name, *_):
        (tmp_path / name).mkdir()
        (tmp_path / name / 'last_checkpoint').write_text('epoch_1.pth')

    monkeypatch.setattr(running, 'run_tool', trained)
    runs = [Run(f'run{i}', str(config)) for i in range(4)]
    with ThreadPoolExecutor(4) as pool:
        assert [*pool.map(running.train, runs)] == [None] * 4


@pytest.mark.parametrize(
    ('line', 'shown'),
    [
        (
            'Epoch(train)  [1][ 40/110]  lr: 8.0e-04  eta: 0:07:40  time: '
            '0.3  data_time: 0.1  grad_norm: 9.2  loss: 9.56  loss_cls: 0.1',
            'Epoch(train)  [1][ 40/110]  eta: 0:07:40  loss: 9.56',
        ),
        (
            'Epoch(val) [20][2/2]    multi-label/mAP: 93.0  multi-label/'
            'f1-score_micro: 86.1  multi-label/recall: 1.0  multi-label/'
            'f1-score: 2.0  data_time: 0.02',
            'Epoch(val) [20][2/2]  multi-label/mAP: 93.0  multi-label/'
            'f1-score_micro: 86.1  multi-label/recall: 1.0',
        ),
    ],
)
def test_of_a_log_it_shows_what_one_looks_for(line, shown):
    assert brief(f'11/26 22:10:52 - mmengine - INFO - {line}\n') == shown


def test_a_tool_that_fails_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r'student: .* see \S+student.log'):
        Chain(tmp_path).run_tool('student', '-c', 'raise SystemExit(3)')


TINY = {  # of a detector
    'backbone.depth': 18,
    'backbone.base_channels': 4,
    'backbone.init_cfg': None,
    'neck.in_channels': [4, 8, 16, 32],
    'neck.out_channels': 8,
    'rpn_head.in_channels': 8,
    'rpn_head.feat_channels': 8,
    'roi_head.bbox_roi_extractor.out_channels': 8,
    'roi_head.bbox_head.in_channels': 8,
    'roi_head.bbox_head.fc_out_channels': 16,
}


def write_configs(folder, names, options, model=None):
    """Configs of the same names, shrunk, in a folder of their own."""
    source = REPO / 'configs' / folder
    out = Path('configs', folder).absolute()
    out.mkdir(parents=True)
    (out / 'metafile.yml').write_bytes((source / 'metafile.yml').read_bytes())
    for name in names:
        cfg = Config.fromfile(source / f'{name}.py')
        if 'teacher' in cfg.model:
            teacher = Path(cfg.model.teacher.cfg_path).name
            cfg.model.teacher.cfg_path = str(out / teacher)
        inside = 'architecture.' * ('teacher' in cfg.model)
        for key, value in (model or {}).items():
            cfg.merge_from_dict({f'model.{inside}{key}': value})
        cfg.merge_from_dict(options)
        for loader in ('train_dataloader', 'val_dataloader'):
            cfg[loader].num_workers = 0
            cfg[loader].persistent_workers = False
        cfg.test_dataloader = cfg.val_dataloader
        cfg.dump(out / f'{name}.py')


def write_voc(root):
    """Eight images of 2007 and 2012 each, with a bright box in each."""
    generator = np.random.default_rng(0)
    for year, splits in ((2007, ('trainval', 'test')), (2012, ('trainval',))):
        for folder in ('ImageSets/Main', 'Annotations', 'JPEGImages'):
            (root / f'VOC{year}' / folder).mkdir(parents=True)
        for split in splits:
            names = [f'{split}{x}' for x in range(4)]
            path = root / f'VOC{year}/ImageSets/Main/{split}.txt'
            path.write_text('\n'.join(names) + '\n')
            for name in names:
                image = generator.integers(0, 90, (96, 128, 3), np.uint8)
                image[20:80, 30:100] += 120
                path = root / f'VOC{year}/JPEGImages/{name}.jpg'
                cv2.imwrite(str(path), image)
                tree = ElementTree.fromstring(
                    '<annotation><size><width>128</width><height>96</height>'
                    '</size><object><name/><difficult>0</difficult><bndbox>'
                    '<xmin>31</xmin><ymin>21</ymin><xmax>100</xmax>'
                    '<ymax>80</ymax></bndbox></object></annotation>'
                )
                kind = generator.choice(VOCDataset.METAINFO['classes'])
                tree.find('object/name').text = str(kind)
                path = root / f'VOC{year}/Annotations/{name}.xml'
                ElementTree.ElementTree(tree).write(path)


@pytest.mark.slow
def test_the_whole_way_of_a_detector(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('PYTHONPATH', str(REPO))
    monkeypatch.setattr(reproduction, 'CONFIGS', tmp_path / 'configs')
    pair = 'lshl2_roi_faster-rcnn_r101_faster-rcnn_r50_voc0712'
    names = ['faster-rcnn_r101_voc0712', 'faster-rcnn_r50_voc0712', pair]
    train = 'train_dataloader.dataset.datasets'
    scale = [(128, 96), (128, 96)]
    write_configs(
        'voc',
        names,
        {
            'train_cfg.max_epochs': 2,
            f'{train}.0.pipeline.2.scale': scale,
            f'{train}.1.pipeline.2.scale': scale,
            'val_dataloader.dataset.pipeline.1.scale': (128, 96),
        },
        TINY,
    )
    write_voc(tmp_path / 'data/VOCdevkit')
    row = ['voc', 'faster_rcnn', 'r101_r50', '--only', 'student', 'lshl2']

    # Stopped after an epoch of the student, it goes on there.
    epoch = ['--cfg-options', 'train_cfg.max_epochs=1']
    assert reproduce(monkeypatch, *row[:4], 'student', *epoch) == 0
    work = tmp_path / 'work_dirs'
    for end in ('pth', 'py', 'json', 'options'):
        (work / f'{names[1]}.{end}').unlink()
    (work / f'{names[0]}.options').unlink()  # the teacher shall serve again
    capfd.readouterr()
    assert reproduce(monkeypatch, *row) == 0
    text = capfd.readouterr().out
    lines = [x for x in text.splitlines() if 'Epoch(train)' in x]
    of_student = [x for x in lines if x.startswith(f'{names[1]} |')]
    assert of_student
    assert all(re.search(r'train\) +\[2\]', x) for x in of_student)
    assert not any(x.startswith(f'{names[0]} |') for x in lines)
    found = table_of(text)
    assert [*found] == ['teacher', 'student alone', 'LSHL2']
    assert [x[0] for x in found.values()] == ['83.6', '82', '83']
    for published, own, difference in found.values():
        expected = float(own) - float(published)
        assert float(difference) == pytest.approx(expected, abs=0.006)
    assert 'loss_lsh' in (work / f'{pair}.log').read_text()

    # All is done: the same table, and nothing runs.
    assert reproduce(monkeypatch, *row) == 0
    again = capfd.readouterr().out
    assert table_of(again) == found and 'Epoch(' not in again


CIFAR = """
from mmpretrain.datasets import CIFAR100

# They are made, not downloaded.
CIFAR100._check_integrity = lambda self: True
"""


@pytest.mark.slow
def test_the_whole_way_of_a_classifier(tmp_path, monkeypatch, capfd):
    """With the average of ten epochs, and a teacher that one has."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(reproduction, 'CONFIGS', tmp_path / 'configs')
    (tmp_path / 'made_cifar.py').write_text(CIFAR)
    monkeypatch.setenv('PYTHONPATH', f'{tmp_path}:{REPO}')
    monkeypatch.syspath_prepend(tmp_path)
    pair = 'lshl2-correct_pooled_resnet56_resnet20_cifar100'
    names = ['resnet56_cifar100', 'resnet20_cifar100', pair]
    write_configs(
        'cifar100',
        names,
        {
            'train_cfg.max_epochs': 10,
            'train_cfg.val_interval': 10,
            'custom_imports': dict(
                imports=['lshfm_mm', 'lshfm_mm.backbones.cifar', 'made_cifar']
            ),
        },
    )
    root = tmp_path / 'data/cifar100/cifar-100-python'
    root.mkdir(parents=True)
    images = np.random.default_rng(0).integers(0, 256, (64, 3072), np.uint8)
    for kind, number in (('train', 64), ('test', 8)):
        content = {'data': images[:number], 'fine_labels': [*range(number)]}
        (root / kind).write_bytes(pickle.dumps(content))

    row = ['cifar100', 'resnet56_resnet20']
    teacher = ['--only', 'student']
    assert reproduce(monkeypatch, *row, *teacher) == 0
    assert reproduce(monkeypatch, *row, '--only', 'correct') == 0
    assert '| LSHL2, correct only | -' in capfd.readouterr().out
    work = tmp_path / 'work_dirs'
    mean = torch.load(work / pair / 'average_10.pth', weights_only=False)
    student = torch.load(work / f'{pair}.pth', weights_only=True)
    for key, value in student['state_dict'].items():
        expected = mean['state_dict'][f'architecture.{key}']
        torch.testing.assert_close(value, expected)
    assert (work / f'{pair}.json').exists()
