"""The levels of features that both models have."""

from typing import NamedTuple

from torch import Tensor


class Level(NamedTuple):
    """Features of one level, and its index among those of each model."""

    student: Tensor
    teacher: Tensor
    s_index: int
    t_index: int


class Seen(NamedTuple):
    """What the losses of a tap compare: levels, and weights of samples."""

    levels: list[Level]
    weights: list[Tensor] | None

    def counting(self) -> list[Tensor | None]:
        """Which samples of each level count, bool; None for all."""
        if self.weights is None:
            return [None] * len(self.levels)
        return [x > 0 for x in self.weights]
