"""Trainings killed at random moments go on as if nothing had happened.

Run with ``python -m pytest -m slow -s tests/test_kills.py``: it prints what
each kill hit. A real tool trains, in a process group of its own, which gets
SIGKILL; all that a finished training leaves is compared bit for bit with what
an uninterrupted one left.
"""

import copy
import multiprocessing
import os
import random
import re
import runpy
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest
import torch

if sys.platform == 'win32':
    pytest.skip(
        'kills groups of processes, which Windows does not have',
        allow_module_level=True,
    )

REPO = Path(__file__).parent.parent
RUNS = 20
PARTS = ('state_dict', 'ema_state_dict', 'optimizer', 'param_schedulers')

EMA = dict(type='EMAHook', _scope_='mmengine', momentum=0.1)
SCHEDULE = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=8),
    dict(
        type='CosineAnnealingLR',
        by_epoch=True,
        begin=0,
        end=4,
        convert_to_iter_based=True,
    ),
]
PLATEAU = dict(
    type='ReduceOnPlateauLR',
    monitor='coco/bbox_mAP',
    rule='greater',
    patience=0,
    by_epoch=True,
)


def workers(number: int, persistent: bool) -> dict:
    return {
        'train_dataloader.num_workers': number,
        'train_dataloader.persistent_workers': persistent,
    }


def saving(**settings) -> dict:
    return {
        'default_hooks.checkpoint': dict(type='CheckpointHook', **settings)
    }


EPOCHS = {
    'train_cfg.max_epochs': 4,
    'train_cfg.val_interval': 1,
    'param_scheduler': SCHEDULE,
}
ITERATIONS = {
    'train_cfg': dict(
        _delete_=True,
        type='IterBasedTrainLoop',
        max_iters=20,
        val_interval=5,
    ),
    'train_dataloader.sampler': dict(
        _delete_=True, type='InfiniteSampler', shuffle=True
    ),
    'train_dataloader.batch_sampler': None,
    'param_scheduler': SCHEDULE[:1],
    'custom_hooks': [EMA],
}
# Variant -> config of shapes, what is changed.
VARIANTS = {
    'no workers, plateau, best': (
        'faster_rcnn_lshfm',
        {
            **EPOCHS,
            'param_scheduler': [*SCHEDULE[:1], PLATEAU],
            'custom_hooks': [EMA],
            **saving(interval=1, max_keep_ckpts=1, save_best='auto'),
        },
    ),
    'persistent workers, median': (
        'faster_rcnn_lsh',
        {
            **EPOCHS,
            'model.distiller.losses.roi': [
                dict(type='LSHLoss', bias='median', loss_weight=7)
            ],
            **workers(2, True),
            'custom_hooks': [EMA, dict(type='LSHCalibrationHook')],
            **saving(interval=1, max_keep_ckpts=2),
        },
    ),
    'new workers, average': (
        'faster_rcnn_recommended',
        {
            **EPOCHS,
            **workers(1, False),
            'custom_hooks': [
                EMA,
                dict(type='AverageCheckpointsHook', num_epochs=2),
            ],
            **saving(interval=1, max_keep_ckpts=2),
        },
    ),
    'iterations, workers': (
        'faster_rcnn_lsh',
        {
            **ITERATIONS,
            **workers(2, True),
            **saving(by_epoch=False, interval=3, max_keep_ckpts=2),
        },
    ),
    'iterations, no workers': (
        'faster_rcnn_lsh',
        {**ITERATIONS, **saving(by_epoch=False, interval=4, save_best='auto')},
    ),
}


# Processes that begin with all imported: most of a start is imports.
SERVER = multiprocessing.get_context('forkserver')
SERVER.set_forkserver_preload(['lshfm_mm', 'mmdet.apis', 'mmdet.models'])


def train(config: Path, folder: Path) -> None:
    """Train, or go on with what is in a folder, in a new process."""
    os.setsid()
    with open(folder.with_suffix('.log'), 'ab') as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    os.chdir(REPO)
    torch.set_num_threads(1)
    sys.argv = ['train.py', str(config), '--work-dir', str(folder)]
    sys.argv.append('--resume')
    runpy.run_path('tools/train.py', run_name='__main__')


def start(config: Path, folder: Path) -> multiprocessing.Process:
    process = SERVER.Process(target=train, args=(config, folder))
    process.start()
    return process


def finish(config: Path, folder: Path) -> None:
    process = start(config, folder)
    process.join()
    said = folder.with_suffix('.log').read_text()
    assert process.exitcode == 0, said[-4000:]


def wait_for_training(process, folder: Path) -> None:
    """Wait for the first line of training in the log of this start."""
    log = folder.with_suffix('.log')
    seen = log.stat().st_size if log.exists() else 0
    while process.is_alive():
        if log.exists() and '(train)' in log.read_text()[seen:]:
            return
        time.sleep(0.01)


def kill(process) -> None:
    """Kill it with the workers that load its data."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:  # so young that it has no group yet
        process.kill()
    process.join()


def partials(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    return [x.name for x in os.scandir(folder) if x.name[0] == '_']


def wait_for_a_write(process, folder: Path, rng: random.Random) -> None:
    """Wait for one of the next writes, and for up to 3 ms of it."""
    for _ in range(rng.randint(1, 5)):
        while not partials(folder) and process.is_alive():
            pass
        before = partials(folder)
        time.sleep(rng.uniform(0, 0.003))
        if rng.random() < 0.4:
            break
        while partials(folder) == before and process.is_alive():
            pass


def progress(folder: Path) -> str:
    """What the log says last of its training, such as 'Epoch(train) [2]'."""
    log = folder.with_suffix('.log')  # none of one killed amid its imports
    said = log.read_text() if log.exists() else ''
    found = re.findall(r'(?:Epoch|Iter)\((?:train|val)\) +[^ ]+', said)
    return ' '.join(found[-1].split()) if found else 'start'


def left(folder: Path) -> dict[str, dict]:
    """What a finished training leaves: each checkpoint, what counts of it."""
    files = {}
    for path in sorted(folder.glob('*.pth')):
        content = torch.load(path, weights_only=True)
        files[path.name] = {k: content.get(k) for k in PARTS}
        info = content.get('message_hub', {}).get('runtime_info', {})
        for key in ('best_score', 'keep_ckpt_ids', 'evaluated_iter'):
            files[path.name][key] = info.get(key)
    return files


def assert_same(one, other, place: str = '') -> None:
    """Compare, tensors and floats bit for bit."""
    assert type(one) is type(other), place
    if isinstance(one, dict):
        assert one.keys() == other.keys(), place
        for key in one:
            assert_same(one[key], other[key], f'{place}/{key}')
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), place
        for index, pair in enumerate(zip(one, other, strict=True)):
            assert_same(*pair, f'{place}/{index}')
    elif isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype and torch.equal(one, other), place
    else:
        assert one == other, place


@pytest.fixture(scope='module')
def reference(make_config, tmp_path_factory):
    """Of a variant: its config, what it leaves, seconds of training."""
    known: dict = {}

    def make(variant: str) -> tuple[Path, dict, float]:
        if variant not in known:
            name, overrides = VARIANTS[variant]
            folder = tmp_path_factory.mktemp('reference')
            cfg = make_config(name, copy.deepcopy(overrides))
            cfg.work_dir = None
            config = folder / 'config.py'
            cfg.dump(config)
            process = start(config, folder / 'run')
            wait_for_training(process, folder / 'run')
            began = time.monotonic()
            process.join()
            seconds = time.monotonic() - began
            assert process.exitcode == 0
            known[variant] = config, left(folder / 'run'), seconds
            assert all(known[variant][1].values())
        return known[variant]

    return make


@pytest.mark.slow
@pytest.mark.parametrize('run', range(RUNS))
def test_a_killed_training_equals_an_uninterrupted_one(
    run, reference, tmp_path
):
    variant = list(VARIANTS)[run % len(VARIANTS)]
    config, expected, seconds = reference(variant)
    rng = random.Random(run)
    folder = tmp_path / 'run'
    said = []
    wanted, share = rng.choice([1, 1, 2, 3]), 0.9
    while len(said) < wanted:
        old = partials(folder)
        process = start(config, folder)
        if aimed := rng.random() < 0.5:
            wait_for_a_write(process, folder, rng)
        else:
            if rng.random() < 0.8:  # else while it gets ready, too
                wait_for_training(process, folder)
            process.join(rng.uniform(0, share) * seconds)
        if not process.is_alive():
            assert process.exitcode == 0
            if said:
                break
            shutil.rmtree(folder)  # missed it: once more, and sooner
            share /= 2
            continue
        kill(process)
        where = [x.split('_', 3)[-1] for x in partials(folder) if x not in old]
        if (record := folder / 'last_checkpoint').exists():
            named = Path(record.read_text())
            torch.load(named, weights_only=True)
            saved = {x.stat().st_mtime_ns: x for x in folder.glob('[ei]*.pth')}
            if saved[max(saved)] != named:
                where.append(f'last_checkpoint of {saved[max(saved)].name}')
        where = f'amid {where[0]}' if where else f'at {progress(folder)}'
        said.append(f'{"aimed" if aimed else "timed"} kill {where}')
    finish(config, folder)
    assert_same(left(folder), expected)
    assert not partials(folder)
    print(f'\nrun {run:2} ({variant}): {"; ".join(said)}; equal')
