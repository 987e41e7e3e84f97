"""Training that goes on after an interruption as if there were none.

MMEngine's checkpoints hold no states of random number generators, and could
not: those of the workers that load data are in other processes. Here random
numbers are a function of the seed, the rank and the progress instead, so that
nothing needs to be saved.
"""

import random
import re
import sys
import zipfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from torch.utils.data import DataLoader, get_worker_info

from .errors import ConfigError
from .teacher import check_finite, forked_rng, read_checkpoint

EPOCHS, STEPS, DATA = range(3)  # what random numbers are for
NEEDED = ('meta', 'state_dict', 'message_hub', 'optimizer')


def seed_random(*key: int) -> None:
    """Seed Python's, numpy's and torch's generators, those of GPUs too.

    Args:
        key (int): Numbers >= 0; of other numbers come other seeds.
    """
    # It takes (1, 2) and (1, 2, 0) for the same.
    words = np.random.SeedSequence((len(key), *key)).generate_state(8)
    random.seed(words.tobytes())
    np.random.seed(words)
    torch.manual_seed(int.from_bytes(words.tobytes()[:8], 'little'))


class BatchSeeder:
    """Has each batch made from random numbers of its own.

    Those are a function of the key, the epoch and the number of the batch in
    it, and so the same in however many workers, persistent or not.

    Args:
        key (int): Numbers >= 0, such as a seed and a rank.

    Attributes:
        epoch (Tensor): To set before a dataloader is iterated, (1,); in
            memory that workers share.
    """

    def __init__(self, *key: int) -> None:
        self.key = key
        self.epoch = torch.zeros(1, dtype=torch.int64).share_memory_()

    def attach(self, loader: DataLoader) -> None:
        """Seed the batches of a dataloader.

        Args:
            loader (DataLoader): It has started no workers yet. Its dataset
                stays what it is, and ``dataset[i]`` draws as before.
        """
        if loader.num_workers:
            loader.worker_init_fn = partial(
                self._attach_in_worker, loader.worker_init_fn
            )
        else:
            self._attach(loader.dataset)

    def _attach_in_worker(
        self, init: Callable[[int], None] | None, worker: int
    ) -> None:
        if init is not None:
            init(worker)
        info = get_worker_info()
        assert info is not None
        self._attach(info.dataset, info.id, info.num_workers)

    def _attach(self, dataset: Any, first: int = 0, step: int = 1) -> None:
        """Make batch ``first``, ``first + step``, ... of each epoch."""
        seeder = self
        # In the main process training draws from the same generators; in a
        # worker the function that collates may draw on.
        guard = nullcontext if get_worker_info() else forked_rng
        epoch, number = -1, first

        class Seeded(type(dataset)):  # type: ignore[misc]
            """A dataset that is asked for a batch at a time."""

            def __getitems__(self, indices: Sequence[Any]) -> list[Any]:
                nonlocal epoch, number
                if epoch != int(seeder.epoch):
                    epoch, number = int(seeder.epoch), first
                with guard():
                    seed_random(*seeder.key, DATA, epoch, number)
                    number += step
                    if hasattr(super(), '__getitems__'):
                        return super().__getitems__(indices)
                    return [self[index] for index in indices]

        Seeded.__name__ = type(dataset).__name__
        dataset.__class__ = Seeded


class Progress:
    """Ties the random numbers of a training to its progress.

    Args:
        runner (Runner): Its checkpoint, if any, is loaded.
        rank (int): Of this process.
    """

    def __init__(self, runner: Runner, rank: int) -> None:
        # As MMEngine: the data differ from rank to rank, and what the model
        # draws is the same unless the user says otherwise.
        self.batches = BatchSeeder(runner.seed, rank)
        differs = runner._randomness_cfg.get('diff_rank_seed', False)
        self.key = (runner.seed, rank if differs else 0)
        loop = runner.train_loop
        # The workers of an IterBasedTrainLoop have been at work since it was
        # built. They are seeded then, and it makes them do again what they
        # had done: they need no help.
        if isinstance(loop, EpochBasedTrainLoop) or not (
            loop.dataloader.num_workers
        ):
            self.batches.attach(loop.dataloader)

    def start_epoch(self, runner: Runner) -> None:
        """Seed what draws between epochs, such as samplers.

        Args:
            runner (Runner): Before it iterates its dataloader.
        """
        self.batches.epoch.fill_(runner.epoch)
        seed_random(*self.key, EPOCHS, runner.epoch)

    def start_iteration(self, runner: Runner) -> None:
        """Seed a training step.

        Args:
            runner (Runner): It has its batch.
        """
        seed_random(*self.key, STEPS, runner.iter)


def obstacles(runner: Runner) -> list[str]:
    """Tell why a resumed run would not equal an uninterrupted one.

    Args:
        runner (Runner): Its checkpoint, if any, is loaded.

    Returns:
        list[str]: A reason with its remedy each.
    """
    found = []
    loop, saving = runner.train_loop, _checkpoint_settings(runner.cfg)
    if not isinstance(loop, EpochBasedTrainLoop | IterBasedTrainLoop):
        found.append(
            f'train_cfg: {type(loop).__name__} is not known; use '
            f'EpochBasedTrainLoop or IterBasedTrainLoop'
        )
        return found
    by_epoch = saving.get('by_epoch', True)
    if isinstance(loop, EpochBasedTrainLoop) and not by_epoch:
        found.append(
            'default_hooks.checkpoint.by_epoch: is False, and MMEngine '
            'begins the epoch of such a checkpoint once more; set it to True'
        )
    elif isinstance(runner.optim_wrapper, OptimWrapper):
        steps = saving.get('interval', 1)
        steps *= len(loop.dataloader) if by_epoch else 1
        count = runner.optim_wrapper._accumulative_counts
        if steps % count:
            found.append(
                f'optim_wrapper.accumulative_counts: is {count}, and a '
                f'checkpoint comes after {steps} iterations, amid a sum of '
                f'gradients that is not saved; use a divisor'
            )
    seed = (runner.cfg.get('randomness') or {}).get('seed')
    if runner.iter and seed != runner._randomness_cfg.get('seed'):
        found.append(
            f'randomness.seed: is {seed}, the interrupted run had '
            f'{runner._randomness_cfg["seed"]}; set that'
        )
    return found


def evaluation_is_due(runner: Runner) -> bool:
    """Tell whether an interruption has cut off an evaluation.

    Args:
        runner (Runner): It has been resumed, and has not trained since.

    Returns:
        bool: Whether its checkpoint was saved before an evaluation.
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


def find_whole(cfg: Config, folder: str) -> tuple[str, dict[str, Any]] | None:
    """Find the newest checkpoint of a training that is whole.

    Args:
        cfg (Config): Of the training.
        folder (str): Its work_dir.

    Returns:
        tuple[str, dict], optional: The file and what it holds; None where
        there is no checkpoint at all. One that is skipped is warned of.

    Raises:
        ConfigError: If there are checkpoints, and none is whole.
    """
    found = _checkpoints(cfg, Path(folder))
    for path in found:
        try:
            return str(path), read_resumable(str(path))
        except ConfigError as error:
            print(f'warning: {error}', file=sys.stderr, flush=True)
    if found:
        raise ConfigError(
            f'resume: none of the {len(found)} checkpoints in {folder} is '
            f'whole; remove them to start anew'
        )
    return None


def read_resumable(path: str) -> dict[str, Any]:
    """Read a checkpoint that a training can go on from.

    Args:
        path (str): The file.

    Returns:
        dict: What it holds.

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
    found = [
        path
        for place in folders
        for path in place.glob('*')
        if pattern.fullmatch(path.name)
    ]

    def number(path: Path) -> int:
        return int(re.findall(r'\d+', path.name)[-1])

    found.sort(key=number, reverse=True)
    record = folder / 'last_checkpoint'
    named = None
    if record.is_file():  # in the encoding in which MMEngine writes it
        named = Path(record.read_text(encoding=None).strip())
    if named is not None and not named.is_file():
        named = folder / named.name
    if named is None or not named.is_file():
        return found
    others = [path for path in found if not path.samefile(named)]
    if not pattern.fullmatch(named.name):
        return [named, *others]
    # Greater numbers may be of an older training in this folder.
    others.sort(key=lambda path: number(path) > number(named))
    return [named, *others]


def _checkpoint_settings(cfg: Config) -> Mapping[str, Any]:
    return (cfg.get('default_hooks') or {}).get('checkpoint') or {}
