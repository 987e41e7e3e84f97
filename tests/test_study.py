"""The study: its grid can be trained, its numbers come from its records."""

import functools
import itertools
import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from filelock import FileLock
from mmengine.config import Config
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from PIL import Image
from scipy import stats

from lshfm_mm.datasets.photographs import get_photographs
from lshfm_mm.errors import ConfigError
from lshfm_mm.pairing import write_config
from lshfm_mm.pairing.expected import STUDY

from .test_photographs import server  # noqa: F401

REPO = Path(__file__).parent.parent
sys.path.insert(0, str(REPO / 'benchmarks/study'))

import detectors  # noqa: E402
import grid  # noqa: E402
import markdown_tables as tables  # noqa: E402
import photographs  # noqa: E402
import plan  # noqa: E402
import report  # noqa: E402
import results  # noqa: E402
import runs  # noqa: E402
import why  # noqa: E402
from arm import (  # noqa: E402
    FACTORS,
    TUNING_SEED,
    WORK,
    weights_in_words,
    with_losses,
)

ARMS = [
    (experiment, name)
    for experiment, spec in grid.EXPERIMENTS.items()
    for name in spec.arms
]


def record(arm, seed, value, split='test', factor=1.0, **rest):
    run = f'{arm}/{split}/{factor}/{seed}'
    experiment, _, name = arm.partition('/')
    return dict(
        run=run,
        experiment=experiment,
        arm=name,
        seed=seed,
        split=split,
        factor=factor,
        value=value,
        seconds=36,
        threads=1,
        machine='a machine',
        commit='abc',
        alignment={},
        **rest,
    )


def recorded(*records):
    return {x['run']: x for x in records}


@pytest.fixture(scope='module')
def some():
    rng = np.random.default_rng(0)
    alone, ours = rng.normal(0.2, 0.01, 5), rng.normal(0.3, 0.01, 5)
    return recorded(
        record('needed/faster_rcnn_teacher', 0, 0.4),
        *(
            record('faster_rcnn/alone', i, x)
            for i, x in enumerate(alone.tolist())
        ),
        *(
            record('faster_rcnn/lshl2', i, x)
            for i, x in enumerate(ours.tolist())
        ),
        *(
            record('faster_rcnn/lshl2+inherit', 100, x, 'val', factor)
            for factor, x in zip(FACTORS, (0.1, 0.2, 0.3), strict=True)
        ),
    )


def test_intervals_are_those_of_a_paired_t_test(some):
    alone = results.by_seed(some, 'faster_rcnn/alone')
    ours = results.by_seed(some, 'faster_rcnn/lshl2')
    assert alone[3] == pytest.approx(100 * some_value(some, 'alone', 3))
    found = results.difference(ours, alone)
    expected = stats.ttest_rel([*ours.values()], [*alone.values()])
    interval = expected.confidence_interval(0.95)
    assert found.low == pytest.approx(interval.low)
    assert found.high == pytest.approx(interval.high)
    # Only seeds that both have; without an interval if there is but one.
    one = results.difference({7: 3.0, 1: 2.5}, {1: 2.0, 2: 9.0})
    assert one == (0.5, None, None)
    assert results.difference({1: 1.0}, {2: 1.0}) is None


def some_value(some, arm, seed):
    [found] = [
        x['value']
        for x in some.values()
        if (x['arm'], x['seed'], x['split']) == (arm, seed, 'test')
    ]
    return found


def test_a_row_says_what_was_measured(some):
    alone, ours = results.rows(some, 'faster_rcnn')
    assert alone.title == 'student alone' and alone.gain is None
    a, b = (np.array(x.values) for x in (alone, ours))
    assert len(a) == len(b) == 5
    share = 100 * (b.mean() - a.mean()) / (40 - a.mean())
    assert ours.closed == pytest.approx(share)
    line = tables.table(some, 'faster_rcnn').splitlines()[-1]
    assert f'| {b.mean():.1f} ± {b.std(ddof=1):.1f} |' in line
    assert f'{ours.gain.mean:+.1f} [{ours.gain.low:+.1f}, ' in line
    assert '| teacher | 1 | 40.0 |' in tables.table(some, 'faster_rcnn')


def test_weights_are_those_of_the_losses():
    words = {
        'faster_rcnn/alone': (4, ''),
        'faster_rcnn/alone+inherit': (4, ''),
        'faster_rcnn/lshl2+inherit': (0.25, '1'),
        'faster_rcnn/lshl2_pkd+inherit': (4, '16 + 24'),
        'faster_rcnn/fc2_cwd+inherit': (1, '4 + 160'),
        'faster_rcnn/mgd+inherit': (0.25, '5e-05'),
        'ablation_l2/x0.25': (2, '8, 2'),
    }
    for path, (factor, expected) in words.items():
        method = plan.arm_of(path).method
        assert weights_in_words(method, factor) == expected


def test_ablations_tell_angles_and_norms():
    path, changed = 'faster_rcnn/lsh+inherit', 'ablation_hashes/128'
    found = recorded(
        record('needed/faster_rcnn_teacher', 0, 0.4),
        *(record(path, i, 0.3) for i in (0, 1, 4)),
        *(record(changed, i, x) for i, x in ((0, 0.2), (1, 0.3), (7, 0.9))),
    )
    for each in found.values():
        i = each['seed']
        each['alignment'] = {'roi.angle': 20.1 + i, 'roi.norm_ratio': i}
    lines = tables.table(found, 'ablation_hashes').splitlines()
    assert '| angle | norm |' in lines[0]
    # The third seed of the baseline is the fifth of its own experiment, and
    # the last of the arm's is somebody's.
    assert '| 2 | 30.0 ± 0.0 |  | 20.6° | 0.50 |' in lines[2]
    assert '| 2 | 25.0 ± 7.1 | -5.0 [' in lines[3]
    assert '] | 20.6° | 0.50 |' in lines[3]
    # Where there is a teacher the gap is told.
    assert 'angle' not in tables.table(found, 'faster_rcnn')


def test_the_short_table_has_our_arm_beside_its_control_and_a_peer(some):
    assert len(tables.short(some).splitlines()) == 2  # nothing is whole yet
    ours, cwd = (0.31, 0.35, 0.33), (0.30, 0.32)
    more = some | recorded(
        *(
            record(f'faster_rcnn/{arm}+inherit', i, x)
            for arm, values in (
                *(('fc2_balanced', ours), ('cwd', cwd)),
                ('alone', (0.25, 0.27)),
            )
            for i, x in enumerate(values)
        )
    )
    alone = results.by_seed(some, 'faster_rcnn/alone')
    start = np.mean([alone[i] for i in range(2)])  # of the seeds of all
    # Over the inherited head and CWD, by the two seeds that both have.
    gain, to_cwd = 7.0, 2.0
    reach = stats.t.ppf(0.975, 1) * np.std([6, 8], ddof=1) / np.sqrt(2)
    reach_of_cwd = stats.t.ppf(0.975, 1) * np.std([1, 3], ddof=1) / np.sqrt(2)
    # Of its methods the recommended one stands out.
    title = 'LSHL2, second FC + L2, FPN, half of it on objects'
    table = tables.table(more, 'faster_rcnn')
    assert re.findall(r'\*\*.*\*\*', table) == [f'**{title}, inherited head**']
    ours = 'fc2_balanced+inherit'  # not with its own head
    assert grid.EXPERIMENTS['faster_rcnn'].recommended == [ours]
    assert grid.EXPERIMENTS['aquarium'].recommended == [ours, f'taught_{ours}']
    assert grid.EXPERIMENTS['ablation_hashes'].recommended == []
    names = report.names_in_plot(results.rows(more, 'faster_rcnn'))
    assert names['CWD'] == 'CWD'
    assert names[title].split() == [*title.split(), '(recommended)']
    [line] = tables.short(more).splitlines()[2:]
    assert line == (
        f'| Faster R-CNN: COCO box AP | 2 | {start:.1f} '
        f"| 26.0 (teacher's head) "
        f'| 33.0 (LSHL2, second FC + L2, FPN, half of it on objects) | 40.0 '
        f'| {gain:+.1f} [{gain - reach:+.1f}, {gain + reach:+.1f}] '
        f'| {to_cwd:+.1f} [{to_cwd - reach_of_cwd:+.1f}, '
        f'{to_cwd + reach_of_cwd:+.1f}] (CWD) |'
    )


def test_seeds_of_others_and_of_tuning_do_not_count(some):
    more = some | recorded(
        record('faster_rcnn/alone', 7, 0.9),
        record('faster_rcnn/alone', 100, 0.9, 'val'),
    )
    assert results.rows(more, 'faster_rcnn') == results.rows(
        some, 'faster_rcnn'
    )


def test_arms_are_held_against_each_other(some, monkeypatch):
    spec = grid.EXPERIMENTS['faster_rcnn']
    pairs = (('lshl2', 'alone'), ('lshl2', 'pkd'))
    changed = {'faster_rcnn': spec._replace(pairs=pairs)}
    monkeypatch.setattr(grid, 'EXPERIMENTS', changed)
    _, ours = results.rows(some, 'faster_rcnn')
    [line] = tables.pairs_table(some, 'faster_rcnn').splitlines()[2:]
    said = tables.said(ours.gain)
    assert line == f'| LSHL2, RoI | student alone | 5 | {said} |'


def test_a_new_seed_is_held_against_those_of_the_grid(some):
    new = [('alone', 0.21), ('lshl2', 0.33)]
    more = some | recorded(
        *(record(f'faster_rcnn/{arm}', 7, x) for arm, x in new),
        record('faster_rcnn/lshl2', 8, 0.5),  # without a student alone
    )
    alone, ours = results.rows(some, 'faster_rcnn')
    pairs = np.subtract(ours.values, alone.values)
    scale = pairs.std(ddof=1) * np.sqrt(1 + 1 / 5)
    low, high = stats.t.interval(0.95, 4, pairs.mean(), scale)
    lines = tables.new_seeds_table(more, 'faster_rcnn').splitlines()[2:]
    title = grid.EXPERIMENTS['faster_rcnn'].arms['lshl2'].title
    assert lines == [
        f'| {title} | 7 | 33.0 | +12.0 | {low:+.1f} to {high:+.1f} |'
    ]
    assert not tables.new_seeds_table(some, 'faster_rcnn')


def test_the_factor_is_the_best_on_the_validation_images(some):
    arm = grid.EXPERIMENTS['faster_rcnn'].arms['lshl2']
    with pytest.raises(ConfigError, match=r'factors \[16.0\]'):
        plan.factor_of(arm, some)
    path = 'faster_rcnn/lshl2+inherit'
    beyond = record(path, 100, 0.2, 'val', 16.0)
    some = some | recorded(beyond)
    assert plan.factor_of(arm, some) == FACTORS[2]
    other = grid.EXPERIMENTS['faster_rcnn'].arms['lsh']
    pattern = "--only 'faster_rcnn/lsh.inherit'"
    with pytest.raises(ConfigError, match=pattern):
        plan.factor_of(other, some)
    alone = grid.EXPERIMENTS['faster_rcnn'].arms['alone']
    assert plan.factor_of(alone, some) == 1


def test_tuning_sees_no_test_image_and_no_seed_that_counts():
    for run in plan.tuning():
        text = json.dumps(run.options)
        assert 'test/' not in text and run.seed == TUNING_SEED
        tested = run.spec.test_data
        assert tested and not tested.items() & run.options.items()
        seeds = grid.EXPERIMENTS[run.experiment].seeds
        assert run.seed not in range(seeds)
    tuned = {x.spec.tuned_as for x in plan.tuning()}
    used = {grid.EXPERIMENTS[e].arms[a].tuned_as for e, a in ARMS}
    assert used - {''} == tuned


def test_a_run_is_done_once_and_again_when_its_config_changes(some):
    arm = grid.EXPERIMENTS['faster_rcnn'].arms['alone']
    run = runs.Run('faster_rcnn', 'alone', 0, 'test', 1.0, arm)
    done = {run.name: dict(config=run.fingerprint)}
    assert runs.is_done(run, done)
    assert not runs.is_done(run._replace(seed=1), done)
    other = arm._replace(options={**arm.options, 'x': 1})
    assert not runs.is_done(run._replace(spec=other), done)


def test_what_others_start_from_is_here_and_the_same(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runs, 'RESULTS', tmp_path / 'study.jsonl')
    run = runs.needed('faster_rcnn_teacher')
    path = runs.weights_of(run.arm)
    path.parent.mkdir(parents=True)

    def made(value):
        state = dict(a=torch.tensor([value]), b=torch.arange(3))
        torch.save(dict(state_dict=state, meta=dict(time=value)), path)
        weights = runs.digest(path)
        return dict(run=run.name, config=run.fingerprint, weights=weights)

    records = {}
    assert not runs.is_done(run, records)
    runs.add(records, made(1.0))
    assert runs.is_done(run, records)
    runs.add(records, made(1.0))  # trained again, the same
    assert runs.read_records() == records
    path.unlink()
    assert not runs.is_done(run, records)
    other = made(2.0)
    assert not runs.is_done(run, records)
    with pytest.raises(ConfigError, match='other weights .* start over'):
        runs.add(records, other)
    assert runs.read_records() == records == {run.name: made(1.0)}
    runs.add(records, other | dict(config='of a changed grid'))
    assert runs.read_records()[run.name]['weights'] == other['weights']


@pytest.mark.slow
def test_a_gpu_that_is_not_there_and_a_second_study_are_refused(tmp_path):
    command = [
        *(sys.executable, '-W', 'ignore', str(REPO / 'benchmarks/study')),
        *('--only', 'faster_rcnn/alone'),
    ]
    environment = {**os.environ, 'PYTHONPATH': str(REPO)}
    said = functools.partial(
        subprocess.run,
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    done = said([*command, '--jobs', '0'])
    assert done.returncode and '--jobs: must be' in done.stderr
    done = said([*command, '--gpus', '99'])
    assert done.returncode and "of which ['99'] are none" in done.stderr
    run = runs.Run('x', 'y', 0, 'test', 1.0, None)
    for lock in (Path(WORK, 'lock'), run.lock):
        (tmp_path / lock).parent.mkdir(parents=True, exist_ok=True)
        with FileLock(tmp_path / lock):
            done = said(command)
        assert done.returncode and 'another study runs there' in done.stderr


def test_gpus_are_counted_as_this_process_sees_them(monkeypatch):
    monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
    assert runs.visible('1') == '1'
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '3,5')
    assert runs.visible('1') == '5'


def test_a_run_has_its_images_and_its_weights():
    arm = grid.EXPERIMENTS['faster_rcnn'].arms['lshl2_fpn']
    path = 'val_dataloader.dataset.data_root'
    for split, folder in (('test', 'test'), ('val', 'main')):
        run = runs.Run('faster_rcnn', 'x', 0, split, 0.25, arm)
        root = f'data/study/{folder}/'
        assert run.options[path] == root
        annotations = run.options['val_evaluator.ann_file']
        assert annotations == f'{root}annotations/val.json'
        losses = run.options['model.distiller.losses']
        assert [x['loss_weight'] for x in losses['roi']] == [1, 1]
        assert [x['loss_weight'] for x in losses['fpn']] == [0.25]
    mgd = grid.EXPERIMENTS['faster_rcnn'].arms['mgd']
    run = runs.Run('faster_rcnn', 'mgd', 0, 'test', 4.0, mgd)
    [loss] = run.options['model.distiller.losses']['fpn']
    assert loss['alpha_mgd'] == pytest.approx(8e-4)
    two = grid.EXPERIMENTS['ablation_tap'].arms['class_fc1']
    run = runs.Run('ablation_tap', 'class_fc1', 0, 'test', 4.0, two)
    losses = run.options['model.distiller.losses']
    found = {k: [x['loss_weight'] for x in losses[k]] for k in ('roi', 'fc1')}
    assert found == {'roi': [16, 16], 'fc1': [16, 16]}
    several = grid.EXPERIMENTS['multi'].arms['lshl2']
    run = runs.Run('multi', 'lshl2', 0, 'test', 1.0, several)
    assert run.options[path] == 'data/study/small_test/'


@pytest.mark.parametrize('experiment', photographs.EXPERIMENTS)
def test_photographs_are_those_of_the_test_of_their_config(experiment):
    for arm in grid.EXPERIMENTS[experiment].arms.values():
        cfg = Config.fromfile(REPO / 'configs' / arm.file)
        assert cfg.val_dataloader.dataset != cfg.test_dataloader.dataset
        cfg.merge_from_dict(arm.test_data)
        assert cfg.val_dataloader.dataset == cfg.test_dataloader.dataset
        assert cfg.val_evaluator == cfg.test_evaluator


def test_each_key_that_an_arm_changes_is_one_of_its_config():
    new = {'custom_hooks', 'indices', 'max_rois', 'connectors', 'inherit'}
    new |= {'custom_imports', 'init_cfg', 'persistent_workers'}
    for experiment, name in ARMS:
        arm = grid.EXPERIMENTS[experiment].arms[name]
        run = runs.Run(experiment, name, 0, 'test', 1.0, arm)
        cfg = Config.fromfile(REPO / 'configs' / arm.file)
        for key in run.options:
            part = cfg
            for step in key.split('.'):
                step = int(step) if step.isdigit() else step
                if step in new:
                    break
                assert isinstance(step, int) or step in part, (name, key)
                part = part[step]


def test_the_pages_and_their_pictures_come_from_the_records():
    records = runs.read_records()
    parts = report.parts(records)
    text = ''
    for page in report.PAGES:
        text += page.read_text('utf-8')
        assert '<!-- study: ' in page.read_text('utf-8')
        assert report.filled(page.read_text('utf-8'), parts) == page.read_text(
            'utf-8'
        )
    # None is left out.
    assert set(parts) == set(re.findall('<!-- study: (.+?) -->', text))
    pictures = re.findall(r'images/(study_\w+)\.png', text)
    assert pictures
    for name in pictures:
        with Image.open(report.IMAGES / f'{name}.png') as picture:
            drawn = picture.text['Description']
        experiment = name.removeprefix('study_')
        assert drawn == report.content(records, experiment)


def test_a_point_is_an_arm_of_the_class_layer(some):
    torch.manual_seed(0)
    t, s = torch.randn(2, 64, dtype=torch.float64)
    s *= 2 * t.norm() / s.norm()
    cosine = torch.cosine_similarity(t, s, 0)
    path = 'faster_rcnn/lsh+inherit'
    found = recorded(
        record('needed/faster_rcnn_teacher', 0, 0.4),
        *(record(path, i, 0.3 + i / 100) for i in range(3)),
        *(record('faster_rcnn/lsh', i, 0.2) for i in range(3)),
        record('faster_rcnn/cwd+inherit', 0, 0.3),
    )
    for each in found.values():
        angle = float(torch.rad2deg(cosine.acos()))
        each['alignment'] = {'roi.angle': angle, 'roi.norm_ratio': 2.0}
    (point,) = why.points(found)  # not of a head of its own, nor on the FPN
    assert (point.kind, point.value) == ('LSH', pytest.approx(31))
    distance = float((t - s).norm() / t.norm())
    assert point.distance == pytest.approx(distance)
    near = why.correlations(
        [
            point,
            point._replace(value=30, angle=90, norm=0.3, distance=3),
            point._replace(value=29, angle=95, norm=0.4, distance=4),
        ]
    )
    assert near['angle'] == pytest.approx(1)
    assert near['norm'] == pytest.approx(0.5)  # ln 2, ln 0.3, ln 0.4


def test_the_records_are_of_the_grid_as_it_is():
    """None of a config that has changed since."""
    records = runs.read_records()
    assert plan.current(records) == records


def test_what_an_arm_starts_from_is_part_of_it(monkeypatch):
    def fingerprint():
        arm = grid.EXPERIMENTS['few_images'].arms['lshl2+inherit']
        run = runs.Run('few_images', 'lshl2+inherit', 0, 'test', 1.0, arm)
        return run.fingerprint

    before = fingerprint()
    assert fingerprint() == before
    stage = dict(grid.NEEDED[0])
    old = stage['backbone_teacher']
    for changed in (
        stage | {'backbone_teacher': old._replace(config='multi_student')},
        stage | {'backbone_teacher': old._replace(options={})},
    ):
        monkeypatch.setattr(grid, 'NEEDED', [changed, *grid.NEEDED[1:]])
        assert fingerprint() != before
        monkeypatch.undo()
    data = grid.DATA | {'crops': (8, 4000, 200, 96)}
    monkeypatch.setattr(grid, 'DATA', data)
    assert fingerprint() != before
    data = grid.DATA | {'crops': (7, 4000, 200, 96), 'small': (1, 1, 1, 64)}
    monkeypatch.setattr(grid, 'DATA', data)
    assert fingerprint() == before


def test_records_of_other_configs_and_weights_are_left_out():
    path = 'faster_rcnn/lshl2+inherit'
    planned = [x for x in plan.tuning([path]) if x.spec == plan.arm_of(path)]
    values = dict(zip(FACTORS, (0.2, 0.3, 0.3), strict=True))
    fine = {
        x.name: record(path, TUNING_SEED, values[x.factor], 'val', x.factor)
        | dict(run=x.name, config=x.fingerprint)
        for x in planned
    }
    runs_of = [
        runs.Run(*path.split('/'), seed, 'test', x, plan.arm_of(path))
        for seed, x in ((0, 1.0), (1, 4.0))
    ]
    ends = {
        x.name: record(path, x.seed, 0.4, 'test', x.factor)
        | dict(run=x.name, config=x.fingerprint)
        for x in runs_of
    }
    first, second = ends
    # Of equals that which changes least; the other factor does not count.
    assert plan.current(fine | ends) == fine | {first: ends[first]}
    stale = {first: dict(ends[first], config='old')}
    assert plan.current(fine | stale) == fine
    # The best at an end: what is beyond it is tried, and only then chosen.
    edge = {
        x.name: fine[x.name]
        | dict(value={0.25: 0.1, 1.0: 0.2, 4.0: 0.3}[x.factor])
        for x in planned
    }
    assert plan.current(edge | ends) == edge
    (beyond,) = {x.factor for x in plan.tuning([path], edge)} - set(FACTORS)
    assert beyond == 16
    [run] = [x for x in plan.tuning([path], edge) if x.factor == 16]
    last = {
        run.name: record(path, TUNING_SEED, 0.25, 'val', 16)
        | dict(run=run.name, config=run.fingerprint)
    }
    assert plan.current(edge | last | ends) == edge | last | {
        second: ends[second]
    }
    # Equals as near to 1: always the same, in whatever order they came.
    for values in ({0.25: 0.4, 1: 0.3, 4: 0.4}, {4: 0.4, 1: 0.3, 0.25: 0.4}):
        assert plan.best_of(values) == 0.25
    # Without all factors none is chosen.
    some = dict(list(fine.items())[:2])
    assert plan.current(some | ends) == some


def test_what_is_asked_for_is_what_is_planned(some):
    paths = ['ablation_hashes/128']
    asked = {(x.experiment, x.arm) for x in plan.tuning(paths)}
    assert asked == {('faster_rcnn', 'lsh+inherit')}
    beyond = record('faster_rcnn/lshl2+inherit', 100, 0.2, 'val', 16.0)
    some = some | recorded(beyond)
    planned = plan.final(['faster_rcnn/lshl2'], some, [7])
    assert [(x.arm, x.seed) for x in planned] == [('lshl2', 7), ('alone', 7)]
    planned = plan.final(['faster_rcnn/lshl2'], some)
    assert [x.seed for x in planned] == [0, 1, 2, 3, 4]


def test_a_stopped_study_starts_no_more_runs(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runs, 'STOPPED', threading.Event())
    runs.stop()
    alone = grid.EXPERIMENTS['faster_rcnn'].arms['alone']
    run = runs.Run('faster_rcnn', 'alone', 0, 'test', 1.0, alone)
    with pytest.raises(ConfigError, match='not started, the study stops'):
        runs.train(run, None, 1)


def test_distillation_stops_after_the_epochs_of_an_arm():
    for name, epochs in (('4', 4), ('6', 6)):
        arm = grid.EXPERIMENTS['ablation_stop'].arms[name]
        run = runs.Run('ablation_stop', name, 0, 'test', 1.0, arm)
        [hook] = map(HOOKS.build, run.options['custom_hooks'])
        model = torch.nn.Module()
        model.distillation_stopped = False
        logger = logging.getLogger(name)
        for epoch in range(detectors.EPOCHS):
            runner = SimpleNamespace(epoch=epoch, model=model, logger=logger)
            hook.before_train_epoch(runner)
            assert model.distillation_stopped == (epoch >= epochs)


@pytest.mark.slow
@pytest.mark.usefixtures('server')
def test_each_arm_trains(tmp_path, monkeypatch):
    """Two steps of the whole models, on a few images."""
    monkeypatch.chdir(tmp_path)
    for name in ('aquarium', 'bccd', 'clothing'):
        get_photographs(name, f'data/{name}')
    monkeypatch.setattr(grid, 'DATA', {k: (0, 16, 1, 96) for k in grid.DATA})
    runs.prepare_data()
    Path(WORK).mkdir(parents=True)
    for run in [x for stage in plan.needed() for x in stage]:
        if not run.arm.startswith('backbone'):
            cfg = config_of(run, tmp_path)
            cfg.dump(Path(WORK) / f'{run.arm}.py')
            cfg.experiment_name = run.arm
            model = Runner.from_cfg(cfg).model
            torch.save(model.state_dict(), f'{WORK}/{run.arm}.pth')
    starts = {}
    for experiment, name in ARMS:
        arm = grid.EXPERIMENTS[experiment].arms[name]
        run = runs.Run(experiment, name, 0, 'test', 1.0, arm)
        cfg = config_of(run, tmp_path)
        cfg.experiment_name = run.name.replace('/', '_')
        runner = Runner.from_cfg(cfg)
        runner.model.init_weights()
        if arm.metric == 'coco/bbox_mAP':  # as alone, but for the head
            student = getattr(runner.model, 'student', runner.model)
            detector = arm.config.rpartition('_')[0]
            start = starts.setdefault(detector, copied(student))
            given = {}
            if cfg.model.get('inherit'):
                given = runner.model.teacher.state_dict()
            for key, value in student.state_dict().items():
                is_given = key in given and torch.equal(value, given[key])
                same = torch.equal(value, start[key])
                assert same or is_given, (run.name, key)
        loader = runner.build_dataloader(cfg.train_dataloader)
        optimizer = runner.build_optim_wrapper(cfg.optim_wrapper)
        for batch, _ in zip(loader, range(2), strict=False):
            losses = runner.model.train_step(batch, optimizer)
        assert all(x.isfinite().all() for x in losses.values()), run.name
        mimic = [v for k, v in losses.items() if k.startswith('distill.')]
        kind = name.removeprefix('taught_')
        if not kind.startswith(('alone', 'embedding')):
            assert mimic and all(x > 0 for x in mimic), run.name


def copied(model):
    return {k: v.clone() for k, v in model.state_dict().items()}


def config_of(run, folder):
    cfg = Config.fromfile(REPO / 'configs' / run.spec.file)
    cfg.merge_from_dict(run.options)
    cfg.model.get('architecture', cfg.model).backbone.init_cfg = None
    cfg.work_dir = str(folder / 'work')
    cfg.train_dataloader.batch_size = 4
    cfg.val_dataloader = cfg.val_evaluator = cfg.val_cfg = None
    cfg.custom_hooks, cfg.load_from = [], None
    for losses in cfg.model.get('distiller', {}).get('losses', {}).values():
        for loss in losses:  # these would want a calibration first
            loss.pop('bias', None)
            if loss.get('std') == 'features':
                loss['std'] = 0.1
    return cfg


SMALL = """
import sys
sys.path[:0] = [{tools!r}, {repo!r}]
import grid, runs
from pathlib import Path
runs.RESULTS = Path('study.jsonl')
few = dict(crops=(7, 8, 4, 96), main=(0, 16, 4, 96), test=(1, 1, 4, 96))
grid.DATA = few
def short(arm):
    changed = grid.schedule(1)
    return arm._replace(options={{**arm.options, **changed}})
grid.NEEDED = [{{k: short(v) for k, v in x.items()}} for x in grid.NEEDED]
chosen = {arms!r}
grid.EXPERIMENTS = {{
    x: spec._replace(
        seeds=2,
        arms={{k: short(v) for k, v in spec.arms.items() if k in chosen[x]}},
    )
    for x, spec in grid.EXPERIMENTS.items()
    if x in chosen
}}
import runpy, report
report.write = report.unmarked = lambda records: []
sys.argv = ['study', '--jobs', '2', '--only', {only!r}]
runpy.run_path({tools!r} + '/__main__.py', run_name='__main__')
"""


def small(arms, only='*'):
    """Command that runs some arms for an epoch, on few images."""
    places = dict(tools=str(REPO / 'benchmarks/study'), repo=str(REPO))
    code = SMALL.format(arms=arms, only=only, **places)
    return [sys.executable, '-W', 'ignore', '-c', code]


@pytest.mark.slow
def test_the_second_stage_goes_on_from_the_first(tmp_path):
    """Student, teacher, embedding alone, then all; each a real training."""
    arms = {
        'single': ['alone', 'lshl2+inherit', 'two_stages+inherit'],
    }
    done = subprocess.run(
        small(arms, 'single/*'),
        cwd=tmp_path,
        env={**os.environ, 'PYTHONPATH': str(REPO)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    lines = (tmp_path / 'study.jsonl').read_text('utf-8').splitlines()
    records = {x['run']: x for x in map(json.loads, lines)}
    # 3 needed, 3 of tuning or one more, 3 arms of 2 seeds.
    assert len(records) in (12, 13)
    assert all(0 <= x['value'] <= 100 for x in records.values())
    work = tmp_path / WORK
    student, teacher, stage1 = (
        torch.load(work / f'single_{x}.pth', weights_only=False)['state_dict']
        for x in ('student', 'teacher', 'stage1_inherit')
    )
    # The first stage changes the embedding alone, beside the teacher's head.
    kernels = [k for k, v in student.items() if v.dim() == 4]
    assert kernels
    for key in kernels:
        assert torch.equal(student[key], stage1[f'architecture.{key}'])
    head = 'head.fc.weight'
    assert torch.equal(teacher[head], stage1[f'architecture.{head}'])
    for arm, path in (
        ('alone', 'single_student.pth'),
        ('lshl2+inherit', 'single_student.pth'),
        ('two_stages+inherit', 'single_stage1_inherit.pth'),
    ):
        [log] = work.glob(f'single/test/{arm}_x*/0/log.txt')
        text = log.read_text('utf-8')
        assert re.search(f'(?i)load.* {WORK}/{path}', text), arm
        assert ('inherit: ' in text) == ('inherit' in arm)


@pytest.mark.slow
@pytest.mark.skipif(
    sys.platform == 'win32', reason='kills a group of processes'
)
def test_stopped_it_goes_on_where_it_was(tmp_path):
    command = small({'faster_rcnn': ['alone', 'lshl2+inherit']})
    written = tmp_path / 'study.jsonl'
    environment = {**os.environ, 'PYTHONPATH': str(REPO)}

    def lines():
        text = written.read_text('utf-8') if written.exists() else ''
        return [json.loads(x) for x in text.splitlines()]

    log = tmp_path / 'log.txt'
    go_on = functools.partial(
        subprocess.run,
        command,
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    with log.open('w') as file:
        first = subprocess.Popen(
            command,
            cwd=tmp_path,
            env=environment,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
        until = time.monotonic() + 400
        while len(lines()) < 6 and first.poll() is None:
            assert time.monotonic() < until, log.read_text('utf-8')[-2000:]
            time.sleep(0.5)
        time.sleep(2)  # the next trainings have begun
        first.kill()
        first.wait()
        os.killpg(first.pid, signal.SIGSTOP)  # they last as long as need be
        said = go_on()  # and write where the next study would
        os.killpg(first.pid, signal.SIGKILL)
    assert said.returncode and 'that a killed one has left' in said.stderr
    before = lines()
    assert 6 <= len(before) < 10, log.read_text('utf-8')[-2000:]
    said = go_on()
    assert said.returncode == 0, said.stderr[-2000:]
    after = {x['run']: x for x in lines()}
    # 3 needed, 3 of tuning, 2 arms of 2 seeds; what was done stays.
    assert len(after) == 10
    for entry in before:
        assert after[entry['run']] == entry
    assert sum('+inherit' in x for x in after) == 5


def test_only_images_that_are_seen_are_made():
    assert plan.images(['aquarium/*']) == []
    assert plan.images(['retinanet/cwd+inherit']) == ['crops', 'main', 'test']
    assert plan.images() == [*grid.DATA]


def test_photographs_are_asked_for_and_must_be_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plan.check_photographs(plan.SHAPES)
    assert not {f'{x}/*' for x in photographs.EXPERIMENTS} & {*plan.SHAPES}
    assert {'faster_rcnn/*', 'single/*', 'ablation_tap/*'} <= {*plan.SHAPES}
    with pytest.raises(ConfigError, match='^--only: .*: data/aquarium; .*get'):
        plan.check_photographs(['animals/lsh*'])
    Path('data/aquarium').mkdir(parents=True)
    plan.check_photographs(['animals/lsh*'])
    with pytest.raises(ConfigError, match='data/clothing; '):
        plan.check_photographs(['aquarium/taught_alone'])


def test_the_best_of_several_peers_and_both_starts_are_shown():
    values = {
        'alone': (0.02, 0.03, 0.09),
        'alone+inherit': (0.03, 0.03),
        'fc2_balanced+inherit': (0.06, 0.07),
        'taught_fc2_balanced+inherit': (0.11, 0.10, 0.12),
        'pkd+inherit': (0.05, 0.06),
        'cwd+inherit': (0.04, 0.05),
    }
    found = recorded(
        record('needed/aquarium_teacher', 0, 0.2),
        *(
            record(f'aquarium/{arm}', i, x)
            for arm, seeds in values.items()
            for i, x in enumerate(seeds)
        ),
    )
    [line] = tables.short(found).splitlines()[2:]
    assert '| 2 | 2.5 | ' in line and '[+1.0, +1.0] (PKD) |' in line
    # Each over the seeds that it has.
    scratch, taught = tables.expected(found).splitlines()[2:]
    assert scratch.endswith(f'| 2.5 | 6.5 | 20.0 | {100 * 4 / 17.5:.0f} % |')
    closed = 100 * (11 - 14 / 3) / (20 - 14 / 3)
    assert taught.endswith(f'| 4.7 | 11.0 | 20.0 | {closed:.0f} % |')
    assert 'backbone taught' in taught and 'taught' not in scratch
    for i in (1, 2):
        del found[f'aquarium/taught_fc2_balanced+inherit/test/1.0/{i}']
    assert tables.expected(found).splitlines()[2:] == [scratch]


def test_make_config_says_what_the_records_say():
    found = {}
    for line in tables.expected(runs.read_records()).splitlines()[2:]:
        title, _, recipe, *_, share = line.strip('| ').split(' | ')
        found[title, 'taught' in recipe] = share
    studies = {x.experiment: x for x in itertools.chain(*STUDY.values())}
    told = {x for x, spec in grid.EXPERIMENTS.items() if spec.setting}
    unusual = {'long', 'few_images', 'bccd_long'}  # schedules, data
    assert told - {*studies} == unusual
    for name, study in studies.items():
        spec = grid.EXPERIMENTS[name]
        title = f'{spec.title}: {tables.name_of(name)}'
        shares = {False: f'{study.closed} %'}
        if study.taught is not None:
            shares[True] = f'{study.taught} %'
        assert shares == {
            x[1]: y for x, y in found.items() if x[0] == title
        }, study
        images, _, start = study.images.partition(', ')
        assert (images in spec.title) is spec.on_photographs
        assert start.split()[0] in spec.setting
        kind = study.kind.replace('FasterRCNN', 'Faster R-CNN')
        assert kind in spec.title or kind == 'one label'


def recipe_of(distiller):
    """Layers and losses, whatever the taps are called; defaults in full."""
    taps = {
        name: dict(weights='uniform')
        | (tap if isinstance(tap, dict) else dict(layer=tap))
        for name, tap in distiller['taps'].items()
    }
    return sorted(
        str((sorted(taps[tap].items()), loss | {'loss_weight': weight}))
        for tap, losses in distiller['losses'].items()
        for loss in losses
        for weight in [float(loss.get('loss_weight', 1))]
    )


@pytest.mark.parametrize(
    'experiment',
    [x for x, spec in grid.EXPERIMENTS.items() if spec.setting],
)
def test_a_row_of_what_to_expect_is_what_make_config_writes(
    experiment, tmp_path
):
    spec = grid.EXPERIMENTS[experiment]
    arm = spec.arms[spec.short[1]]
    told = results.measured(
        runs.read_records(), f'{experiment}/{spec.short[1]}'
    )
    if not told:
        pytest.skip('was not run')
    (factor,) = {x['factor'] for x in told.values()}
    options = with_losses(arm.method, factor)
    ours = {
        part: {
            k: v
            for k, v in options[f'model.distiller.{part}'].items()
            if k != '_delete_'
        }
        for part in ('taps', 'losses')
    }
    detector = arm.config.removesuffix('_lshfm')
    paths = [
        str(REPO / 'configs' / arm._replace(config=f'{detector}_{role}').file)
        for role in ('teacher', 'student')
    ]
    (tmp_path / 't.pth').touch()
    out = str(tmp_path / 'distil.py')
    write_config(*paths, out, str(tmp_path / 't.pth'))
    model = Config.fromfile(out).model
    assert recipe_of(model.distiller.to_dict()) == recipe_of(ours)
    assert model.inherit
