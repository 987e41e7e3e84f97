"""Random numbers as a function of the seed, the rank and the progress."""

import itertools
import pickle
import random
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.dataset import BaseDataset, ConcatDataset, RepeatDataset
from mmengine.model import BaseModel
from mmengine.registry import DATA_SAMPLERS
from mmengine.runner import Runner
from torch.utils.data import BatchSampler, DataLoader

from lshfm_mm.compat import stacks
from lshfm_mm.errors import ConfigError
from lshfm_mm.training.seeding import (
    DATA,
    seed_batches,
    seed_data,
    seed_random,
)

EXACT = [dict(type='ExactResumeHook')]
ITERATIONS = 10


class Drawing(BaseDataset):
    """Each item draws of all three generators."""

    METAINFO = dict(classes=('a',))

    def __init__(self) -> None:
        super().__init__(serialize_data=False)  # collects garbage, slowly

    def load_data_list(self) -> list[dict]:
        return [
            dict(width=60 + 20 * (index % 3), height=80) for index in range(8)
        ]

    def __getitem__(self, index: int) -> tuple:
        return index, random.random(), np.random.rand(), float(torch.rand(()))


class Drawn(BaseModel):
    """Its weight depends on all batches, their order, and draws of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(4))
        self.seen: list[list[tuple]] = []

    def forward(self, *batch: list, mode: str) -> dict:
        self.seen.append(list(zip(*batch, strict=True)))
        target = torch.tensor(self.seen[-1]).mean(0) + torch.rand(4)
        return dict(loss=(self.weight - target).square().sum())


def draws() -> tuple:
    return Drawing()[0]


def epochs_of(dataset, epochs, **options) -> list:
    """All batches of some epochs, of a new dataloader."""
    begun: list[int] = []
    loader = DataLoader(dataset, 2, collate_fn=list, **options)
    seed_batches(loader, (3, 0), lambda: (begun[-1], 0))
    found = []
    for epoch in epochs:
        begun.append(epoch)
        found.append(list(loader))
    return found


def test_all_generators_are_a_function_of_the_key():
    seed_random(1, 2)
    first = draws(), draws()
    assert first[0] != first[1]
    seed_random(1, 2)
    assert (draws(), draws()) == first
    for other in ((1, 3), (2, 2), (1, 2, 0)):
        seed_random(*other)
        assert not {*draws()[1:]} & {*first[0][1:]}


@pytest.mark.parametrize(
    'options',
    [
        dict(num_workers=1, persistent_workers=True),
        dict(num_workers=2, persistent_workers=True),
        dict(num_workers=2),
        pytest.param(
            dict(num_workers=1, multiprocessing_context='spawn'),
            marks=pytest.mark.slow,
        ),
    ],
    ids=str,
)
def test_batches_are_the_same_in_however_many_workers(options):
    """And in an epoch that a new process begins with."""
    expected = epochs_of(Drawing(), range(3))
    items = [x for epoch in expected for batch in epoch for x in batch]
    assert len({x[1:] for x in items}) == 24  # none twice
    assert epochs_of(Drawing(), range(3), **options) == expected
    assert epochs_of(Drawing(), [2], **options) == expected[2:]


def test_a_process_that_is_not_forked_gets_what_it_needs():
    """It gets the dataset and the indices by pickle, which draws nothing."""
    dataset = Drawing()
    loader = DataLoader(dataset, 2)
    seed_batches(loader, (3, 0), lambda: (1, 4))
    batch = next(iter(loader.batch_sampler))
    seed_random(5)
    expected = draws()
    seed_random(5)
    copies = pickle.loads(pickle.dumps((dataset, batch)))
    assert draws() == expected
    found = [copies[0][index] for index in copies[1]]
    assert found == [dataset[index] for index in batch]


WAYS = {  # of a dataset's __getitems__ to read the indices
    'iterate': list,
    'index': lambda batch: [batch[i] for i in range(len(batch))],
    'slice': lambda batch: batch[:1] + batch[1:],
    'array': np.asarray,
    'tensor': lambda batch: torch.arange(8)[batch].tolist(),
    'twice': lambda batch: [*batch, batch[-1]][: len(batch)],
}


@pytest.mark.parametrize('way', WAYS)
@pytest.mark.parametrize('workers', [0, 1])
def test_who_reads_a_whole_batch_draws_its_numbers(way, workers):
    class Whole(Drawing):
        def __getitems__(self, indices):
            indices = WAYS[way](indices)
            return [self[int(index)] for index in indices]

    expected = epochs_of(Drawing(), range(2))
    assert epochs_of(Whole(), range(2), num_workers=workers) == expected
    assert epochs_of(Whole(), [1], num_workers=workers) == expected[1:]


@pytest.mark.parametrize('kind', ['plain', 'concat', 'repeat', 'batches'])
def test_any_dataset_stays_what_it_is(kind):
    class Batches(Drawing):
        def __getitems__(self, indices):
            return [('batch', *self[index]) for index in indices]

    dataset = {
        'plain': Drawing,
        'concat': lambda: ConcatDataset([Drawing(), Drawing()]),
        'repeat': lambda: RepeatDataset(Drawing(), 2),
        'batches': Batches,
    }[kind]()
    before, members = type(dataset), dict(vars(dataset))
    (found,) = epochs_of(dataset, [1])
    assert type(dataset) is before and vars(dataset) == members
    items = [x for batch in found for x in batch]
    assert len(items) == len(dataset)
    if kind == 'batches':
        assert {x[0] for x in items} == {'batch'}


def trained(
    folder: Path, sampler: str, ratios: bool, workers: int, **settings
) -> Runner:
    """Train by iterations, or go on with what is in the folder."""
    runner = Runner(
        Drawn(),
        str(folder),
        dict(
            batch_size=2,
            num_workers=workers,
            persistent_workers=workers > 0,
            dataset=Drawing(),
            sampler=dict(type=sampler, shuffle=True),
            batch_sampler=dict(type='AspectRatioBatchSampler')
            if ratios
            else None,
            collate_fn=dict(type='default_collate'),
        ),
        train_cfg=dict(by_epoch=False, max_iters=settings.pop('iters')),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9)),
        default_hooks=dict(
            checkpoint=dict(type='CheckpointHook', interval=5, by_epoch=False),
        ),
        custom_hooks=EXACT,
        randomness=dict(seed=3),
        experiment_name=f'{folder.name}_{settings}',
        default_scope='mmdet',
        **settings,
    )
    runner.train()
    return runner


def expected_batches(sampler: str, ratios: bool) -> Iterator[list[tuple]]:
    """As a loop without workers, which is never interrupted, makes them."""
    dataset = Drawing()
    sampler = DATA_SAMPLERS.build(
        dict(type=sampler, dataset=dataset, seed=3, shuffle=True)
    )
    if ratios:
        batches = DATA_SAMPLERS.build(
            dict(type='AspectRatioBatchSampler', sampler=sampler, batch_size=2)
        )
    else:
        batches = BatchSampler(sampler, 2, drop_last=False)
    number = itertools.count()
    for epoch in itertools.count():
        sampler.set_epoch(epoch)
        for indices in batches:
            seed_random(3, 0, DATA, 0, next(number))
            yield [dataset[index] for index in indices]


@pytest.mark.parametrize('sampler', ['DefaultSampler', 'InfiniteSampler'])
@pytest.mark.parametrize('ratios', [False, True], ids=['plain', 'ratios'])
@pytest.mark.parametrize('workers', [0, 2])
def test_iterations_go_on_as_if_there_were_no_interruption(
    sampler, ratios, workers, tmp_path, monkeypatch
):
    # MMEngine waits two seconds before each pass.
    monkeypatch.setattr(
        'mmengine.runner.loops.time', SimpleNamespace(sleep=lambda _: None)
    )
    given = sampler, ratios, workers
    expected = list(
        itertools.islice(expected_batches(sampler, ratios), ITERATIONS)
    )
    whole = trained(tmp_path / 'whole', *given, iters=ITERATIONS)
    assert whole.model.seen == expected
    first = trained(tmp_path / 'parts', *given, iters=5)
    assert first.model.seen == expected[:5]
    rest = trained(tmp_path / 'parts', *given, iters=ITERATIONS, resume=True)
    assert rest.model.seen == expected[5:]
    one, two = whole.model.state_dict(), rest.model.state_dict()
    assert one.keys() == two.keys()
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_no_sample_is_read_again(tmp_path, monkeypatch):
    given = tmp_path / 'run', 'InfiniteSampler', True, 0
    trained(*given, iters=5)
    read = []
    monkeypatch.setattr(
        Drawing,
        '__getitem__',
        lambda self, index: read.append(index) or (index, 0.0, 0.0, 0.0),
    )
    trained(*given, iters=7, resume=True)
    assert len(read) == 2 * 2


def test_samplers_begin_anew_and_the_dataset_stays(tmp_path):
    runner = trained(tmp_path / 'run', 'InfiniteSampler', False, 0, iters=1)
    before = runner.train_loop.dataloader
    seed_data(runner, 0)
    after = runner.train_loop.dataloader
    assert after.sampler is not before.sampler
    assert after.dataset is before.dataset


@pytest.mark.parametrize('workers', [0, 1])
def test_a_dataloader_that_is_an_object(workers, tmp_path):
    """It is taken as it is where no worker has begun to read."""
    dataset = Drawing()
    sampler = DATA_SAMPLERS.build(
        dict(type='InfiniteSampler', dataset=dataset, seed=3)
    )
    loader = DataLoader(dataset, 2, sampler=sampler, num_workers=workers)
    runner = Runner(
        Drawn(),
        str(tmp_path),
        loader,
        train_cfg=dict(by_epoch=False, max_iters=5),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        custom_hooks=EXACT,
        randomness=dict(seed=3),
        experiment_name=f'{tmp_path.name}_object',
        default_scope='mmdet',
    )
    # OneDL's loop starts no workers before the first batch.
    if workers and stacks.choose() is stacks.OPENMMLAB:
        with pytest.raises(ConfigError, match='train_dataloader: .* DataLo'):
            runner.train()
        return
    runner.train()
    batches = expected_batches('InfiniteSampler', False)
    assert runner.model.seen == list(itertools.islice(batches, 5))
