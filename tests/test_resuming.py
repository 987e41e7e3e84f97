"""Trainings that go on exactly; checkpoints whole or absent."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import CheckpointHook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from lshfm_mm.cli import training
from lshfm_mm.errors import ConfigError
from lshfm_mm.export.student import plain_config
from lshfm_mm.hooks import ExactResumeHook, WholeCheckpointHook
from lshfm_mm.training.resuming import (
    evaluation_is_due,
    find_whole,
    obstacles,
    read_resumable,
)
from lshfm_mm.utils import files

REPO = Path(__file__).parent.parent
EXACT = [dict(type='ExactResumeHook')]


def test_a_config_may_name_the_hook_that_writes_whole():
    for scope in ('mmengine', 'mmdet', 'mmrazor', 'mmpretrain'):
        hook = HOOKS.build(dict(type='WholeCheckpointHook', _scope_=scope))
        assert type(hook) is WholeCheckpointHook
        hook = HOOKS.build(dict(type='CheckpointHook', _scope_=scope))
        assert type(hook) is CheckpointHook


def trained(cfg: Config, epochs: int, **overrides) -> Runner:
    """Train, or go on with what is in the work_dir."""
    cfg.merge_from_dict(
        {
            'train_cfg.max_epochs': epochs,
            'train_cfg.val_interval': 99,
            'param_scheduler': [],
            'custom_hooks': EXACT,
            'default_hooks.checkpoint.type': 'WholeCheckpointHook',
            **overrides,
        }
    )
    cfg.experiment_name = Path(cfg.work_dir).name + str(time.monotonic_ns())
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner


def weights(path: Path) -> dict:
    return torch.load(path, weights_only=True)['state_dict']


@pytest.mark.parametrize(
    'hooks', [EXACT, pytest.param([], marks=pytest.mark.slow)], ids=str
)
def test_a_resumed_training_equals_an_uninterrupted_one(make_config, hooks):
    """And without the hook it does not: else this test proves nothing."""
    loss = dict(type='LSHLoss', num_hashes=64, hashes_per_step=16)
    changed = {
        'custom_hooks': hooks,
        'model.distiller.active': None,
        'model.distiller.losses.roi': [loss],
    }
    whole, parts = (make_config('faster_rcnn_lsh') for _ in range(2))
    trained(whole, 2, **changed)
    trained(parts, 1, **changed)
    trained(parts, 2, **changed, resume=True)
    found = [weights(Path(x.work_dir) / 'epoch_2.pth') for x in (whole, parts)]
    same = [torch.equal(x, found[1][key]) for key, x in found[0].items()]
    assert all(same) == bool(hooks)


def test_batches_keep_their_size(make_config):
    """Of all images of an interval, which the interruption cuts in two."""

    def read():
        cfg = make_config('faster_rcnn_student')
        cfg.model.data_preprocessor.batch_augments = [
            dict(
                type='BatchSyncRandomResize',
                random_size_range=(96, 256),
                interval=5,  # of epochs of 6
            )
        ]
        return cfg

    whole, parts = read(), read()
    trained(whole, 2)
    trained(parts, 1)
    trained(parts, 2, resume=True)
    found = [weights(Path(x.work_dir) / 'epoch_2.pth') for x in (whole, parts)]
    for key, value in found[0].items():
        assert torch.equal(value, found[1][key])
    path = Path(whole.work_dir) / 'epoch_1.pth'
    sizes = torch.load(path, weights_only=True)['input_sizes']
    assert len(sizes) == 1 and sizes[0] != (64, 64)


def test_an_evaluation_that_was_cut_off_is_made_up_for(make_config):
    cfg = make_config(
        'faster_rcnn_student', {'default_hooks.checkpoint.save_best': 'auto'}
    )
    trained(cfg, 1)  # interrupted before the evaluation of epoch 1
    runner = trained(cfg, 1, resume=True, **{'train_cfg.val_interval': 1})
    path = Path(cfg.work_dir) / 'epoch_1.pth'
    content = torch.load(path, weights_only=True)
    noted = content['message_hub']['runtime_info']
    assert noted['evaluated_iter'] == 6
    assert Path(noted['best_ckpt']).is_file()
    assert noted['best_score'] == runner.message_hub.get_info('best_score')
    # Of one that was saved with its evaluation there is no second.
    runner = trained(cfg, 1, resume=True)
    assert evaluation_is_due(runner) is False
    del runner.message_hub.runtime_info['evaluated_iter']
    assert evaluation_is_due(runner) is True


@pytest.mark.parametrize(
    ('overrides', 'message'),
    [
        (
            {'default_hooks.checkpoint.by_epoch': False},
            'default_hooks.checkpoint.by_epoch: is False, and MMEngine begins',
        ),
        (
            {'optim_wrapper.accumulative_counts': 4},
            'optim_wrapper.accumulative_counts: is 4, and a checkpoint comes '
            'after 6 iterations',
        ),
    ],
)
def test_what_cannot_be_exact_is_said(make_config, overrides, message):
    cfg = make_config('faster_rcnn_student')
    cfg.merge_from_dict(overrides)
    runner = Runner.from_cfg(cfg)
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    (reason,) = obstacles(runner)
    assert reason.startswith(message)


DIES = """
import os
from pathlib import Path
from lshfm_mm.training import whole_files

def half(path, content):
    with path.open('wb') as file:
        file.write(content[:5000])
    os._exit(9)  # nothing more runs, as after a kill

Path.write_bytes = half
whole_files.WholeBackend().put(bytes(10000), 'epoch_1.pth')
"""


@pytest.fixture
def killed_amid_a_write(tmp_path):
    """A folder with a whole file, and a process killed writing it anew."""
    (tmp_path / 'epoch_1.pth').write_bytes(b'before')
    command = [sys.executable, '-W', 'ignore', '-c', DIES]
    path = {'PYTHONPATH': str(REPO)}
    done = subprocess.run(command, cwd=tmp_path, env={**os.environ, **path})
    assert done.returncode == 9
    return tmp_path


def test_a_kill_amid_a_write_leaves_the_file_as_it_was(killed_amid_a_write):
    folder = killed_amid_a_write
    assert (folder / 'epoch_1.pth').read_bytes() == b'before'
    (partial,) = folder.glob('_partial_*')
    assert partial.stat().st_size == 5000
    mine = folder / '_partial_notes.txt'
    mine.touch()
    files.remove_partials(folder)
    assert {x.name for x in folder.iterdir()} == {'epoch_1.pth', mine.name}


def test_the_old_goes_when_the_new_is_there(make_config, monkeypatch):
    """With room for one checkpoint there is one at each moment."""
    seen = []
    replace = os.replace

    def looking(source, target):
        folder = Path(target).parent
        if folder.samefile(cfg.work_dir):
            now = {x.name for x in folder.glob('[be]*.pth')}
            seen.append((Path(target).name, now))
        replace(source, target)

    cfg = make_config(
        'faster_rcnn_student',
        {'default_hooks.checkpoint': dict(max_keep_ckpts=1, save_best='x')},
    )
    cfg.default_hooks.checkpoint.rule = 'greater'
    monkeypatch.setattr(os, 'replace', looking)
    monkeypatch.setattr(
        'mmdet.evaluation.CocoMetric.evaluate',
        lambda self, size: {'x': float(len(seen))},
    )
    trained(cfg, 2, **{'train_cfg.val_interval': 1})
    one, two = 'best_x_epoch_1.pth', 'best_x_epoch_2.pth'
    assert seen == [
        ('epoch_1.pth', set()),
        ('last_checkpoint', {'epoch_1.pth'}),
        (one, {'epoch_1.pth'}),
        ('epoch_1.pth', {'epoch_1.pth', one}),
        ('last_checkpoint', {'epoch_1.pth', one}),
        ('epoch_2.pth', {'epoch_1.pth', one}),
        ('last_checkpoint', {'epoch_1.pth', 'epoch_2.pth', one}),
        (two, {'epoch_2.pth', one}),
        ('epoch_2.pth', {'epoch_2.pth', one, two}),
        ('last_checkpoint', {'epoch_2.pth', one, two}),
    ]
    folder = Path(cfg.work_dir)
    left = {x.name for x in folder.glob('*.pth')}
    assert left == {'epoch_2.pth', two}
    assert (folder / 'last_checkpoint').read_text() == str(
        folder / 'epoch_2.pth'
    )
    # Killed before the old were removed, and amid a write:
    for name in ('epoch_1.pth', one, '_partial_1_epoch_3.pth'):
        (folder / name).touch()
    info = torch.load(folder / 'epoch_2.pth', weights_only=True)
    info = info['message_hub']['runtime_info']
    assert info['outdated_ckpts'] == [one]
    trained(cfg, 2, resume=True)
    left = {x.name for x in folder.glob('*.pth')}
    assert left == {'epoch_2.pth', two, 'epoch_1.pth'}


@pytest.fixture
def three(tmp_path) -> Path:
    """A folder with three checkpoints, the newest named."""
    for epoch in (1, 2, 10):
        path = tmp_path / f'epoch_{epoch}.pth'
        content = dict(
            meta=dict(epoch=epoch, iter=epoch, seed=11),
            state_dict=dict(weight=torch.ones(1000)),
            message_hub={},
            optimizer={},
        )
        torch.save(content, path)
        os.utime(path, (99 - epoch, 99 - epoch))  # as copies may have
    torch.save({'state_dict': {}}, tmp_path / 'best_x_epoch_10.pth')
    (tmp_path / 'last_checkpoint').write_text(str(path))
    return tmp_path


def test_the_newest_whole_checkpoint_is_resumed(three, capsys):
    def found() -> str:
        path, content = find_whole(Config(), str(three))
        assert content['meta']['epoch'] == int(Path(path).stem[6:])
        return Path(path).name

    assert found() == 'epoch_10.pth'
    for absent in ('', str(three / 'epoch_11.pth')):
        (three / 'last_checkpoint').write_text(absent)
        assert found() == 'epoch_10.pth'
    (three / 'last_checkpoint').unlink()
    assert found() == 'epoch_10.pth'
    assert capsys.readouterr().err == ''
    newest = three / 'epoch_10.pth'
    newest.write_bytes(newest.read_bytes()[:3000])  # cut off
    assert found() == 'epoch_2.pth'
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f'warning: resume: {newest} is not a readable')
    content = bytearray((three / 'epoch_2.pth').read_bytes())
    content[2000] ^= 1  # torch would load it
    (three / 'epoch_2.pth').write_bytes(content)
    assert found() == 'epoch_1.pth'
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and 'epoch_2.pth is damaged' in lines[1]
    (three / 'epoch_1.pth').write_bytes(b'')
    with pytest.raises(ConfigError, match='none of the 3 checkpoints in'):
        found()
    for path in three.glob('epoch_*'):
        path.unlink()
    assert find_whole(Config(), str(three)) is None


def test_a_training_that_was_moved_goes_on(three):
    """last_checkpoint names a file of the old place."""
    (three / 'last_checkpoint').write_text('gone/epoch_2.pth')
    assert find_whole(Config(), str(three))[0] == str(three / 'epoch_2.pth')


def test_what_an_older_training_left_comes_last(three):
    """Begun anew in the same folder: epoch_10 is of the run before."""
    newest = three / 'epoch_2.pth'
    (three / 'last_checkpoint').write_text(str(newest))
    newest.write_bytes(b'cut off')
    assert find_whole(Config(), str(three))[0] == str(three / 'epoch_1.pth')


def test_weights_that_are_not_finite_are_not_resumed(three):
    path = three / 'epoch_10.pth'
    content = torch.load(path, weights_only=True)
    content['state_dict'] = dict(x=torch.tensor([1.0, torch.nan]))
    torch.save(content, path)
    assert find_whole(Config(), str(three))[0] == str(three / 'epoch_2.pth')


def test_files_that_cannot_be_resumed_are_refused(three):
    student = three / 'student.pth'
    torch.save({'meta': {}, 'state_dict': dict(x=torch.ones(1))}, student)
    for path, message in (
        (student, 'has no message_hub, optimizer, a training cannot go on'),
        (three / 'nowhere.pth', 'resume: no such file'),
        (three / 'last_checkpoint', 'is not a readable checkpoint'),
    ):
        with pytest.raises(ConfigError, match=message) as error:
            read_resumable(str(path))
        assert '\n' not in str(error.value)


class Arguments:
    """Of a train tool."""

    def __init__(self, folder: Path, resume: str | None) -> None:
        self.config, self.work_dir, self.resume = 'a.py', str(folder), resume
        self.cfg_options = {'optim_wrapper.x': 1}


def test_the_tool_resumes_and_adds_the_hook(three):
    median = dict(type='LSHCalibrationHook')
    args = Arguments(three, 'auto')
    cfg = Config(
        dict(
            custom_hooks=[median],
            randomness=dict(seed=None),
        )
    )
    training.prepare_training(args, cfg)
    assert args.resume == str(three / 'epoch_10.pth')
    cfg.merge_from_dict(args.cfg_options)
    assert cfg.custom_hooks[0] == median
    added, _ = cfg.custom_hooks[1:]
    for scope in ('mmdet', 'mmpretrain'):
        hook = HOOKS.build(dict(added, _scope_=scope))
        assert type(hook) is ExactResumeHook
        hook = HOOKS.build(dict(cfg.default_hooks.checkpoint, _scope_=scope))
        assert type(hook) is WholeCheckpointHook
        assert hook.interval == 1  # MMEngine's, where none is given
    assert cfg.randomness.seed == 11  # of the interrupted run
    assert cfg.optim_wrapper.x == 1
    # A config that names it is left as it is.
    cfg.custom_hooks = [*EXACT, dict(type='DataCheckHook')]
    args = Arguments(three / 'new', 'auto')
    cfg.load_from = 'start.pth'
    training.prepare_training(args, cfg)
    assert args.resume is None
    assert args.cfg_options == {'optim_wrapper.x': 1, 'resume': False}
    args = Arguments(three, None)
    cfg.merge_from_dict(dict(resume=True, load_from=None))
    training.prepare_training(args, cfg)
    assert args.resume == str(three / 'epoch_10.pth')
    with pytest.raises(ConfigError, match='resume: no such file: no.pth'):
        training.prepare_training(Arguments(three, 'no.pth'), cfg)


@pytest.mark.parametrize(
    'settings',
    [
        dict(add_hooks=False),
        dict(default_hooks=dict(checkpoint=None)),
        dict(default_hooks=dict(checkpoint=dict(type='MyHook'))),
    ],
)
def test_the_tool_takes_the_place_of_mmengines_hook_alone(three, settings):
    args = Arguments(three / 'new', None)
    training.prepare_training(args, Config(settings))
    assert 'default_hooks.checkpoint' not in args.cfg_options


def test_an_exported_config_has_none_of_these_hooks(make_config):
    cfg = make_config('faster_rcnn_recommended')
    args = Arguments(Path(cfg.work_dir), None)
    training.prepare_training(args, cfg)
    cfg.merge_from_dict(args.cfg_options)
    assert cfg.custom_hooks
    plain = plain_config(cfg)
    assert plain.default_hooks.checkpoint.type == 'CheckpointHook'
    assert not plain.custom_hooks
    assert 'lshfm_mm.hooks' not in plain.pretty_text
