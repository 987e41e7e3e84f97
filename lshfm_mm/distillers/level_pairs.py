"""Which levels of the student are compared with which of the teacher."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from mmengine.logging import print_log
from torch import Tensor

from ..connectors import ConvConnector
from ..errors import ConfigError
from ..losses.functional import scale_or_one
from .connected import ConnectedFeatures, Pairs
from .records import Records


class Level(NamedTuple):
    """Features of one level, and its index among those of each model."""

    student: Tensor
    teacher: Tensor
    s_index: int
    t_index: int


class TapObservation(NamedTuple):
    """What the losses of a tap compare: levels, and weights of samples."""

    levels: list[Level]
    weights: list[Tensor] | None

    def features(self) -> list[tuple[Tensor, Tensor, Tensor | None]]:
        """Both features of each level, and which samples count; None: all."""
        weights: Sequence[Tensor | None]
        weights = self.weights or [None] * len(self.levels)
        return [
            (level.student, level.teacher, None if x is None else x > 0)
            for level, x in zip(self.levels, weights, strict=True)
        ]


class LevelPairs:
    """Takes the features at a tap from the records, and pairs their levels.

    Args:
        records (Records): What both models have left.
        connected (ConnectedFeatures): Passes it through connectors.
    """

    def __init__(self, records: Records, connected: ConnectedFeatures) -> None:
        self.records = records
        self.connected = connected
        self._warned: set[str] = set()
        # Of taps whose pairs were certain once: strides do not change.
        self._pairs: dict[str, Pairs] = {}

    def of(self, name: str, rows: Tensor | None) -> list[Level]:
        """Levels at a tap, after its connectors, in float32 or better.

        They go from fine to coarse. Where a stage of a cascade got no RoI
        there are none. ``rows`` are the student's samples that the teacher
        has seen, None if all. Tokens, (B, L, C), are samples: (B * L, C).

        Raises:
            ConfigError: If a layer does not run, or no level fits another.
        """
        tap = self.records.taps[name]
        students = self.records.features(name)
        teachers = self.records.features(name, student=False)
        if not students and not teachers and rows is not None:
            return []
        for owner, features, source in (
            ('student', students, tap.student),
            ('teacher', teachers, tap.teacher),
        ):
            if not features:
                raise ConfigError(
                    f'taps.{name}: the layer {source!r} of the {owner} does '
                    f'not run in training; tap one that does'
                )
        if rows is not None:
            students = [x[rows] for x in students]
        students, teachers, pairs = self.connected.of(
            name, (students, teachers)
        )
        how = 'are of the nearest size'
        if pairs is None:
            how = 'have the same stride in both models'
            pairs = self._pair(name, students, teachers)
        self._check_pairs(name, students, teachers, pairs, how)
        levels = []
        for s_index, t_index in pairs:
            s_feature, t_feature = (
                x.to(torch.promote_types(x.dtype, torch.float32))
                for x in (students[s_index], teachers[t_index].detach())
            )
            if s_feature.dim() == 3:
                s_feature, t_feature = (
                    x.flatten(0, 1) for x in (s_feature, t_feature)
                )
            if tap.normalize:
                scale = root_mean_square(t_feature)
                s_feature, t_feature = s_feature / scale, t_feature / scale
            levels.append(Level(s_feature, t_feature, s_index, t_index))
        return levels

    def _pair(
        self, name: str, students: list[Tensor], teachers: list[Tensor]
    ) -> Pairs:
        shapes = [[tuple(x.shape) for x in y] for y in (students, teachers)]
        pairs = self._pairs.get(name, [])
        if not pairs or not all(
            shapes[0][s] == shapes[1][t] for s, t in pairs
        ):
            pairs, many = pair_by_shape(*shapes), repeated(*shapes)
            if pairs and shapes[0][pairs[0][0]] in many:
                raise ConfigError(
                    f'taps.{name}: which levels belong together cannot be '
                    f'told, several have one size; student {shapes[0]}, '
                    f'teacher {shapes[1]}; train on larger images, or tap '
                    f'layers that give the same levels in both models'
                )
            if not many & {shapes[0][s] for s, _ in pairs}:
                self._pairs[name] = pairs
        if not pairs:
            raise ConfigError(
                f'taps.{name}: the features of the student are {shapes[0]}, '
                f'those of the teacher {shapes[1]}; tap layers that run in '
                f'both models, at the same strides or with a '
                f'ResampleConnector, and where only widths differ add a '
                f'connector'
            )
        return pairs

    def _check_pairs(
        self,
        name: str,
        students: list[Tensor],
        teachers: list[Tensor],
        pairs: Pairs,
        how: str,
    ) -> None:
        """Raise at a convolution without a partner; tell what is left out."""
        shapes = [[tuple(x.shape) for x in y] for y in (students, teachers)]
        own = {
            index
            for step in self.connected.steps(name)
            if isinstance(step, ConvConnector)
            for index in step.own
        }
        alone = sorted(own - {student for student, _ in pairs})
        if alone:
            raise ConfigError(
                f'connectors.{name}: has convolutions for the levels {alone} '
                f'of the student, which have no partner in the teacher '
                f'{shapes[1]}; set their channels to None'
            )
        if name not in self._warned:
            self._warned.add(name)
            lost = [
                f'level {index} of the {owner}, {shape[2:]}'
                for side, owner in enumerate(('student', 'teacher'))
                for index, shape in enumerate(shapes[side])
                if index not in {pair[side] for pair in pairs}
            ]
            if lost:
                print_log(
                    f'taps.{name}: {len(pairs)} levels {how}; without a '
                    f'partner, and not mimicked: {"; ".join(lost)}',
                    'current',
                    level=30,
                )


def pair_by_shape(
    students: Sequence[tuple[int, ...]], teachers: Sequence[tuple[int, ...]]
) -> Pairs:
    """Pair the levels of two pyramids by shape; give ascending indices.

    Of several levels of one size, which small images have, the finest come
    first: that is right behind a finer level, if no stride is left out.

    Example:
        >>> pair_by_shape([(8, 8), (4, 4), (2, 2)], [(4, 4), (2, 2), (1, 1)])
        [(1, 0), (2, 1)]
    """
    pairs, start = [], 0
    for s_index, shape in enumerate(students):
        if shape in teachers[start:]:
            t_index = list(teachers).index(shape, start)
            pairs.append((s_index, t_index))
            start = t_index + 1
    return pairs


def repeated(
    students: Sequence[tuple[int, ...]], teachers: Sequence[tuple[int, ...]]
) -> set[tuple[int, ...]]:
    """Shapes that not as many levels of one pyramid have as of the other."""
    shapes = {*students} & {*teachers}
    return {x for x in shapes if students.count(x) != teachers.count(x)}


def root_mean_square(feature: Tensor) -> Tensor:
    """Root mean square, (); 1 where the feature is as good as 0."""
    return scale_or_one(feature.square().mean()).sqrt()
