"""Sketches against the exact mean and median."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lshfm_mm.calibration.sketches import MeanSketch, MedianSketch
from lshfm_mm.errors import ConfigError


def rank_error(values, medians):
    """How far the ranks of medians are from the middle, in parts of N."""
    medians = medians[:, None].to(values)
    below = (values < medians).double().mean(dim=1)
    up_to = (values <= medians).double().mean(dim=1)
    off = torch.maximum(below - 0.5, 0.5 - up_to).clamp(min=0)
    return float(off.max())


def draw(kind, num_streams, count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(num_streams, count, generator=generator)
    if kind == 'heavy tails':
        values = values**15
    elif kind == 'few values':
        values = values.round()
    elif kind == 'ascending':
        values = values.sort(dim=1).values
    elif kind == 'descending':
        values = values.sort(dim=1, descending=True).values
    elif kind == 'zigzag':  # against sketches that keep every other value
        values = values.sort(dim=1).values
        values[:, 1::2] = values[:, 1::2].flip(1)
    return values


KINDS = (
    'normal',
    'heavy tails',
    'few values',
    'ascending',
    'descending',
    'zigzag',
)


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('parts', [1, 2, 4])
def test_median_of_merged_parts_lies_within_its_bound(kind, parts):
    values = draw(kind, 5, 40_000)
    sketches = []
    for part in values.chunk(parts, dim=1):
        sketch = MedianSketch(5, size=256)
        for batch in part.split(777, dim=1):
            sketch.update(batch)
        sketches.append(sketch)
    for other in sketches[1:]:
        sketches[0].merge(other)
    bound = sketches[0].rank_error()
    assert sketches[0].count == 40_000
    assert bound < 0.02
    assert rank_error(values, sketches[0].result()) <= bound


@given(
    st.lists(st.integers(0, 90), min_size=1, max_size=20),
    st.sampled_from([2, 4, 6, 16]),
    st.integers(0, 5),
    st.sampled_from(KINDS),
    st.booleans(),
)
@settings(deadline=None, max_examples=150)
def test_bound_holds_for_any_batches(sizes, size, seed, kind, merged):
    values = draw(kind, 3, sum(sizes), seed)
    sketches = [MedianSketch(3, size), MedianSketch(3, size)]
    for index, batch in enumerate(values.split(sizes, dim=1)):
        sketches[index % 2 if merged else 0].update(batch)
    sketches[0].merge(sketches[1])
    assert sketches[0].count == values.shape[1]
    if not values.shape[1]:
        return
    weight = sum(
        part.shape[1] * 2**level
        for level, parts in enumerate(sketches[0].levels)
        for part in parts
    )
    assert weight == values.shape[1]
    # Half a value of rounding: the rank of a value among N.
    slack = 0.5 / values.shape[1] + 1e-9
    bound = sketches[0].rank_error() + slack
    assert rank_error(values, sketches[0].result()) <= bound


def test_few_values_give_the_exact_median():
    values = draw('normal', 7, 101)
    sketch = MedianSketch(7)
    sketch.update(values)
    assert sketch.rank_error() == 0
    assert torch.equal(sketch.result(), values.median(dim=1).values)


def test_default_bound_for_a_million_values():
    """As the docstring says."""
    values = draw('normal', 1, 1_000_000)
    sketch = MedianSketch(1)
    sketch.update(values)
    assert sketch.rank_error() < 0.0045
    assert rank_error(values, sketch.result()) <= sketch.rank_error()


def test_memory_is_half_a_level_per_doubling():
    sketch = MedianSketch(1, size=64)
    for _ in range(1000):
        sketch.update(draw('normal', 1, 500))
    held = [sum(x.shape[1] for x in parts) for parts in sketch.levels]
    assert held[0] < 64 and all(x in (0, 32) for x in held[1:])
    assert len(held) <= 14  # log2(500_000 / 64) + 1


def test_mean_and_its_merge():
    values = 1e4 + draw('normal', 6, 30_000)
    sketches = [MeanSketch(6), MeanSketch(6)]
    for index, batch in enumerate(values.split(1000, dim=1)):
        sketches[index % 2].update(batch)
    sketches[0].merge(sketches[1])
    expected = values.double().mean(dim=1)
    torch.testing.assert_close(
        sketches[0].result(), expected, rtol=1e-12, atol=0
    )


@pytest.mark.parametrize('sketch', [MeanSketch(2), MedianSketch(2)])
def test_without_values_there_is_no_result(sketch):
    with pytest.raises(ConfigError, match='no sample'):
        sketch.result()


def test_odd_size_is_refused():
    with pytest.raises(ConfigError, match='size: must be even'):
        MedianSketch(2, size=5)
