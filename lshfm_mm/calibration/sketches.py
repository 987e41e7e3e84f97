"""Mean and median of many streams at once, in bounded memory.

Legend: K streams (one per hash function), N values of each. A sketch sees
the values once, batch by batch; two sketches of parts of the data merge into
one of the whole.
"""

import torch
from torch import Tensor

from ..errors import ConfigError

ROWS = 256  # streams that are sorted at a time


class MeanSketch:
    """Running mean of K streams in float64."""

    def __init__(self, num_streams: int) -> None:
        self.count = 0
        self.total = torch.zeros(num_streams, device='cpu').double()

    def update(self, values: Tensor) -> None:
        """Take in a batch of values, (K, n)."""
        self.total += values.double().sum(dim=1).cpu()
        self.count += values.shape[1]

    def merge(self, other: 'MeanSketch') -> None:
        """Take in all that another sketch has seen."""
        self.total += other.total
        self.count += other.count

    def result(self) -> Tensor:
        """The mean, float64, (K,)."""
        _check_count(self.count)
        return self.total / self.count

    def rank_error(self) -> float:
        """A mean has no error of rank."""
        return 0.0


class SpreadSketch(MeanSketch):
    """How far K streams lie from what is taken for their middles."""

    def __init__(self, num_streams: int) -> None:
        super().__init__(num_streams)
        self.squares = torch.zeros_like(self.total)

    def update(self, values: Tensor) -> None:
        """Take in a batch of values, (K, n)."""
        super().update(values)
        self.squares += values.double().square().sum(dim=1).cpu()

    def merge(self, other: 'MeanSketch') -> None:
        """Take in all that another sketch has seen."""
        super().merge(other)
        assert isinstance(other, SpreadSketch)
        self.squares += other.squares

    def spread(self, middle: Tensor) -> Tensor:
        """Root of the mean square distance of all values from middles, (K,).

        Returns:
            Tensor: float64, ().
        """
        middle = middle.double()
        mean, square = self.result(), self.squares / self.count
        squares = square - 2 * middle * mean + middle.square()
        return squares.mean().clamp(min=0).sqrt()  # rounded, it may be < 0


class MedianSketch:
    """Quantile sketch of Munro and Paterson for K streams in lockstep.

    Values are kept in levels; one of level h stands for ``2 ** h`` values.
    A level that holds ``size`` values is sorted, and every other value goes
    one level up: from the first on, then from the second on, in turn, so
    that the errors of two such steps point in opposite directions. All
    streams have seen the same number of values, so that one step serves all.

    The estimated median has a rank that is off by at most
    :meth:`rank_error` times N, whatever the values and their order. The
    memory is that of at most ``size * (1 + levels / 2)`` values per stream,
    with ``levels = log2(N / size)``: it grows by half a level per doubling.
    No random number is drawn.

    Args:
        num_streams (int): K.
        size (int): Values that a level holds, even. Defaults to 1280: at
            most 0.45 % of the ranks for a million values.

    Source: J. I. Munro, M. S. Paterson, Selection and sorting with limited
    storage, 1980; G. S. Manku, S. Rajagopalan, B. G. Lindsay, Approximate
    medians and other quantiles in one pass and with limited memory, 1998.

    Example:
        >>> import torch
        >>> sketch = MedianSketch(num_streams=2)
        >>> sketch.update(torch.tensor([[1.0, 5.0, 3.0], [0.0, 0.0, 9.0]]))
        >>> sketch.result().tolist()
        [3.0, 0.0]
    """

    def __init__(self, num_streams: int, size: int = 1280) -> None:
        if size < 2 or size % 2:
            raise ConfigError(f'size: must be even and >= 2, but got {size}')
        self.num_streams = num_streams
        self.size = size
        self.count = 0
        self.levels: list[list[Tensor]] = [[]]
        # How often a level sent its first, third, ... value up, and how
        # often its second, fourth, ...
        self.steps = [[0, 0]]

    def update(self, values: Tensor) -> None:
        """Take in a batch of values, (K, n); they go to the CPU."""
        self.count += values.shape[1]
        self._put(0, values.to('cpu', torch.float32))

    def merge(self, other: 'MedianSketch') -> None:
        """Take in all that a sketch of the same streams and size has seen."""
        self.count += other.count
        for level, parts in enumerate(other.levels):
            self._grow(level)
            for start, steps in enumerate(other.steps[level]):
                self.steps[level][start] += steps
            for part in parts:
                self._put(level, part)

    def result(self) -> Tensor:
        """The lower median, float32, (K,)."""
        _check_count(self.count)
        held = [part for parts in self.levels for part in parts]
        weights = torch.cat(
            [
                torch.full((self._held(level),), 2**level, device='cpu')
                for level in range(len(self.levels))
            ]
        )
        medians = []
        for rows in self._blocks():
            values = torch.cat([part[rows] for part in held], dim=1)
            values, order = values.sort(dim=1)
            ranks = weights[order].cumsum(dim=1)
            index = (2 * ranks < ranks[:, -1:]).sum(dim=1, keepdim=True)
            medians.append(values.gather(1, index)[:, 0])
        return torch.cat(medians)

    def rank_error(self) -> float:
        """Bound on how far the rank of the result is off, in parts of N."""
        # A step of level h moves a rank by at most 2 ** h, up where the
        # first value goes up, down where the second does.
        error = sum(
            max(steps) * 2**level for level, steps in enumerate(self.steps)
        )
        return error / max(self.count, 1)

    def _blocks(self) -> tuple[Tensor, ...]:
        return torch.arange(self.num_streams, device='cpu').split(ROWS)

    def _held(self, level: int) -> int:
        return sum(part.shape[1] for part in self.levels[level])

    def _grow(self, level: int) -> None:
        while len(self.levels) <= level:
            self.levels.append([])
            self.steps.append([0, 0])

    def _put(self, level: int, values: Tensor) -> None:
        """Put values into a level, and send up what gets full."""
        self._grow(level)
        while values.shape[1]:
            room = self.size - self._held(level)
            self.levels[level].append(values[:, :room].contiguous())
            values = values[:, room:]
            if self._held(level) == self.size:
                self._put(level + 1, self._half(level))

    def _half(self, level: int) -> Tensor:
        """Empty a level, and give every other value of it, in order."""
        first, second = self.steps[level]
        start = int(first > second)
        self.steps[level][start] += 1
        parts, self.levels[level] = self.levels[level], []
        half = parts[0].new_empty(self.num_streams, self.size // 2)
        for rows in self._blocks():
            joined = torch.cat([part[rows] for part in parts], dim=1)
            joined.numpy().sort(axis=1)  # in place; ten times torch's speed
            half[rows] = joined[:, start::2]
        return half


def _check_count(count: int) -> None:
    if not count:
        raise ConfigError('calibration: has seen no sample; give it data')
