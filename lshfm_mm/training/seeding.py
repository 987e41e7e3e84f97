"""Random numbers as a function of the seed, the rank and the progress.

MMEngine's checkpoints hold no states of random number generators, and could
not: those of the workers that load data are in other processes. Here nothing
needs to be saved.
"""

import copy
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mmengine.runner import IterBasedTrainLoop, Runner
from mmengine.runner.loops import _InfiniteDataloaderIterator
from torch.utils.data import DataLoader

from ..errors import ConfigError

EPOCHS, STEPS, DATA = range(3)  # what random numbers are for


def seed_random(*key: int) -> None:
    """Seed the generators of Python, numpy and torch, with numbers >= 0.

    Other numbers, or more of them, give other seeds.
    """
    # SeedSequence takes (1, 2) and (1, 2, 0) for the same.
    words = np.random.SeedSequence((len(key), *key)).generate_state(8)
    random.seed(words.tobytes())
    np.random.seed(words)
    torch.manual_seed(int.from_bytes(words.tobytes()[:8], 'little'))


class SeededBatch(Sequence[Any]):
    """The indices of a batch, which come with random numbers of its own.

    Whoever reads them, in whichever process, draws these numbers from there
    on: a dataloader iterates over them; a dataset with ``__getitems__`` may
    index them or make an array of them, too. No list, for what is written in
    C reads a list unseen.
    """

    def __init__(self, indices: Sequence[Any], key: tuple[int, ...]) -> None:
        self.indices = indices
        self.key = key
        self.is_read = False

    def __iter__(self) -> Iterator[Any]:
        self._seed()
        return iter(self.indices)

    def __getitem__(self, index: Any) -> Any:
        if not self.is_read:  # once: each sample needs draws of its own
            self._seed()
        return self.indices[index]

    def _seed(self) -> None:
        self.is_read = True
        seed_random(*self.key)

    def __len__(self) -> int:
        return len(self.indices)


class SeededBatches:
    """A batch sampler whose batches come with random numbers of their own.

    Those are a function of the key, the epoch and the number of the batch in
    it, and so the same in however many workers, persistent or not.

    Args:
        batches (Any): The batch sampler.
        key (tuple[int, ...]): Numbers >= 0, such as a seed and a rank.
        start (Callable): Asked at the beginning of each pass for the epoch
            and the number of the first batch.
    """

    def __init__(
        self,
        batches: Any,
        key: tuple[int, ...],
        start: Callable[[], tuple[int, int]],
    ) -> None:
        self.batches = batches
        self.sampler = batches.sampler  # MMEngine tells it the epoch
        self.key = key
        self.start = start
        self.rest: Iterator[Any] | None = None

    def __iter__(self) -> Iterator[SeededBatch]:
        batches = iter(self.batches) if self.rest is None else self.rest
        self.rest = None
        epoch, first = self.start()
        for number, indices in enumerate(batches, first):
            yield SeededBatch(indices, (*self.key, DATA, epoch, number))

    def __len__(self) -> int:
        return len(self.batches)

    def skip(self, number: int) -> int:
        """Have the next pass begin behind so many batches of all passes.

        No sample is read. Returns how many passes are over.
        """
        passes = 0
        self.rest = iter(self.batches)
        for _ in range(number):
            if next(self.rest, None) is None:
                passes += 1
                if hasattr(self.sampler, 'set_epoch'):
                    self.sampler.set_epoch(passes)
                self.rest = iter(self.batches)
                next(self.rest)
        return passes


def seed_batches(
    loader: DataLoader,
    key: tuple[int, ...],
    start: Callable[[], tuple[int, int]],
) -> SeededBatches:
    """Seed the batches of a dataloader that has started no workers yet.

    See :class:`SeededBatches`, which is its batch sampler from here on.
    """
    batches = SeededBatches(loader.batch_sampler, key, start)
    # A dataloader refuses another one, for it may be at work already.
    object.__setattr__(loader, 'batch_sampler', batches)
    return batches


class EndlessBatches(_InfiniteDataloaderIterator):
    """Stands for what an IterBasedTrainLoop takes its batches from.

    Of what was trained on before an interruption it reads no sample again.

    Args:
        loader (DataLoader): Its next pass begins behind what was trained on.
        done (int): How many batches that was.
        passes (int): How many passes are over.
    """

    def __init__(self, loader: DataLoader, done: int, passes: int) -> None:
        super().__init__(loader)
        self._epoch = passes
        # OneDL's loop calls skip_iter, OpenMMLab's asks for all once more.
        self.replayed = 0 if hasattr(super(), 'skip_iter') else done

    def __next__(self) -> Any:
        if self.replayed:
            self.replayed -= 1
            return None
        return super().__next__()

    def skip_iter(self, num_iters: int) -> None:
        """Do nothing: they have been skipped."""


class _SameDataset(dict):
    """Settings of a dataloader whose copies share the dataset."""

    def __deepcopy__(self, memo: dict[int, Any]) -> dict[str, Any]:
        memo[id(self['dataset'])] = self['dataset']
        return copy.deepcopy(dict(self), memo)


def seed_data(runner: Runner, rank: int) -> tuple[int, int]:
    """Tie the random numbers of a training's batches to its progress.

    Args:
        runner (Runner): Its checkpoint, if any, is loaded.
        rank (int): Of this process.

    Returns:
        tuple[int, int]: What seeds all but the data. As in MMEngine, the
        data differ from rank to rank, and what the model draws is the same
        unless the user says otherwise.
    """
    differs = runner._randomness_cfg.get('diff_rank_seed', False)
    loop = runner.train_loop
    by_iteration = isinstance(loop, IterBasedTrainLoop)
    if by_iteration:
        loop.dataloader = _at_its_beginning(runner, differs)
    batches = seed_batches(
        loop.dataloader,
        (runner.seed, rank),
        # By iterations the training is one epoch.
        lambda: (0, runner.iter) if by_iteration else (runner.epoch, 0),
    )
    if by_iteration:
        loop.dataloader_iterator = EndlessBatches(
            loop.dataloader, runner.iter, batches.skip(runner.iter)
        )
    return runner.seed, rank if differs else 0


def _at_its_beginning(runner: Runner, differs: bool) -> DataLoader:
    """Return a dataloader whose samplers are where they were at first.

    It is built anew from its settings. One that was given as an object is
    there already, unless OpenMMLab's loop has had workers at it since the
    loop was built.
    """
    loop, settings = runner.train_loop, runner._train_dataloader
    if not isinstance(settings, Mapping):
        begun = loop.dataloader_iterator._iterator is not None
        if begun and loop.dataloader.num_workers:
            raise ConfigError(
                f'train_dataloader: its workers are ahead already, and '
                f'ExactResumeHook needs its settings to build it anew, but '
                f'got {type(settings).__name__}; give a dict, or num_workers=0'
            )
        return loop.dataloader
    loop.dataloader_iterator = None  # its workers end
    return runner.build_dataloader(
        _SameDataset(settings, dataset=loop.dataloader.dataset),
        seed=runner.seed,
        diff_rank_seed=differs,
    )
