"""Training that goes on after an interruption as if there were none.

Its random numbers are those of :mod:`~lshfm_mm.training.seeding`.
"""

import re
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner

from ..errors import ConfigError
from ..utils.checkpoints import check_finite, read_checkpoint

OWNER = 'config_file.txt'  # in a work folder, with the path of its config
NEEDED = ('meta', 'state_dict', 'message_hub', 'optimizer')


def obstacles(runner: Runner) -> list[str]:
    """Tell why a resumed run would not equal an uninterrupted one.

    Each reason comes with its remedy. The runner has loaded its checkpoint.
    """
    loop, saving = runner.train_loop, _checkpoint_settings(runner.cfg)
    if not isinstance(loop, EpochBasedTrainLoop | IterBasedTrainLoop):
        return [
            f'train_cfg: {type(loop).__name__} is not known; use '
            f'EpochBasedTrainLoop or IterBasedTrainLoop'
        ]
    reasons = []
    by_epoch = saving.get('by_epoch', True)
    if isinstance(loop, EpochBasedTrainLoop) and not by_epoch:
        reasons.append(
            'default_hooks.checkpoint.by_epoch: is False, and MMEngine '
            'begins the epoch of such a checkpoint once more; set it to True'
        )
    elif isinstance(runner.optim_wrapper, OptimWrapper):
        steps = saving.get('interval', 1)
        steps *= len(loop.dataloader) if by_epoch else 1
        # One of several optimizers, as MMRazor's data-free ones, has none.
        count = getattr(runner.optim_wrapper, '_accumulative_counts', 1)
        if steps % count:
            reasons.append(
                f'optim_wrapper.accumulative_counts: is {count}, and a '
                f'checkpoint comes after {steps} iterations, amid a sum of '
                f'gradients that is not saved; use a divisor'
            )
    seed = (runner.cfg.get('randomness') or {}).get('seed')
    if runner.iter and seed != runner._randomness_cfg.get('seed'):
        reasons.append(
            f'randomness.seed: is {seed}, the interrupted run had '
            f'{runner._randomness_cfg["seed"]}; set that'
        )
    return reasons


def evaluation_is_due(runner: Runner) -> bool:
    """Tell whether the checkpoint of a runner was saved before an evaluation.

    The runner has not trained since it was resumed.
    """
    loop = runner.train_loop
    if runner.val_loop is None or not runner.iter:
        return False
    if runner.message_hub.runtime_info.get('evaluated_iter') == runner.iter:
        return False
    done, end = runner.epoch, runner.max_epochs
    if isinstance(loop, IterBasedTrainLoop):
        done, end = runner.iter, runner.max_iters
    elif runner.iter % len(loop.dataloader):
        return False  # amid an epoch
    loop._decide_current_val_interval()
    return done >= loop.val_begin and (
        done % loop.val_interval == 0 or done == end
    )


def claim_folder(folder: str, config: str, resumes: bool) -> None:
    """Note in a work folder whose it is; look whether it is another's.

    MMEngine names it by the file of the config alone, so that
    ``coco14/resnet50.py`` and ``voc07/resnet50.py`` share one.

    Args:
        folder (str): The work_dir.
        config (str): File of the config that is to be trained.
        resumes (bool): Whether to go on from what is found there.

    Raises:
        ConfigError: If that is the run of another config.
    """
    note, path = Path(folder, OWNER), Path(config).resolve()
    other = note.read_text('utf-8') if note.is_file() else ''
    # A file that is no longer there has been moved.
    is_others = Path(other).is_file() and Path(other) != path
    if is_others and Path(folder, 'last_checkpoint').is_file():
        line = (
            f'work_dir: {folder} holds the run of {other}, not of {path}; '
            f'give another --work-dir'
        )
        if resumes:
            raise ConfigError(f'{line}, or name the checkpoint to --resume')
        print(f'warning: {line}', file=sys.stderr, flush=True)
    note.parent.mkdir(parents=True, exist_ok=True)
    note.write_text(str(path), 'utf-8')


def find_whole(cfg: Config, folder: str) -> tuple[str, dict[str, Any]] | None:
    """Find the newest checkpoint of a training that is whole.

    Args:
        cfg (Config): Of the training.
        folder (str): Its work_dir.

    Returns:
        tuple[str, dict], optional: The file and what it holds; None where
        there is no checkpoint at all. It warns of those that it skips.

    Raises:
        ConfigError: If there are checkpoints, and none is whole.
    """
    checkpoints = _checkpoints(cfg, Path(folder))
    for path in checkpoints:
        try:
            return str(path), read_resumable(str(path))
        except ConfigError as error:
            print(f'warning: {error}', file=sys.stderr, flush=True)
    if checkpoints:
        raise ConfigError(
            f'resume: none of the {len(checkpoints)} checkpoints in {folder} '
            f'is whole; remove them to start anew'
        )
    return None


def read_resumable(path: str) -> dict[str, Any]:
    """Read a checkpoint that a training can go on from.

    Raises:
        ConfigError: If it is absent, damaged, or lacks what is needed.
    """
    content = read_checkpoint('resume', path)
    check_finite('resume', path, content.get('state_dict') or {})
    lacking = [key for key in NEEDED if key not in content]
    if lacking:
        raise ConfigError(
            f'resume: {path} has no {", ".join(lacking)}, a training cannot '
            f'go on from it; give an epoch_*.pth or iter_*.pth, or name it '
            f'in load_from to start from its weights'
        )
    # torch reads changed bytes without a word.
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            part = archive.testzip()
        if part is not None:
            raise ConfigError(
                f'resume: {path} is damaged, {part} in it is not what was '
                f'written; give the checkpoint before it'
            )
    return content


def _checkpoints(cfg: Config, folder: Path) -> list[Path]:
    """Those of a training: which ``last_checkpoint`` names, then the newest.

    The name counts, in this folder, if the training has been moved; and the
    number in it, since copies have ages of their own.
    """
    saving = _checkpoint_settings(cfg)
    names = saving.get('filename_tmpl') or (
        'epoch_{}.pth' if saving.get('by_epoch', True) else 'iter_{}.pth'
    )
    pattern = re.compile(re.escape(names).replace(r'\{\}', r'\d+'))
    folders = {folder}
    if saving.get('out_dir'):
        folders.add(Path(saving['out_dir']) / folder.name)
    checkpoints = [
        path
        for place in folders
        for path in place.glob('*')
        if pattern.fullmatch(path.name)
    ]

    def number(path: Path) -> int:
        return int(re.findall(r'\d+', path.name)[-1])

    checkpoints.sort(key=number, reverse=True)
    record = folder / 'last_checkpoint'
    if not record.is_file():
        return checkpoints
    # In the encoding in which MMEngine writes it.
    named = Path(record.read_text(encoding=None).strip())
    if not named.is_file():
        named = folder / named.name
    if not named.is_file():
        return checkpoints
    others = [path for path in checkpoints if not path.samefile(named)]
    if pattern.fullmatch(named.name):
        # Greater numbers may be of an older training in this folder.
        others.sort(key=lambda path: number(path) > number(named))
    return [named, *others]


def _checkpoint_settings(cfg: Config) -> Mapping[str, Any]:
    return (cfg.get('default_hooks') or {}).get('checkpoint') or {}
