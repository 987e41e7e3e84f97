"""Features at a tap, after the connectors of both models."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from math import log
from typing import Any

from mmengine.logging import print_log
from torch import Tensor, nn

from ..connectors import ConvConnector, ResampleConnector, TokensToMap
from ..errors import ConfigError, nearest
from ..teachers.settings import split_source
from ..utils.patches import patch_layer
from .queries import check_matched
from .records import Records
from .taps import check_sources, find_sources

Pairs = list[tuple[int, int]]


class ConnectedFeatures:
    """Takes the features at a tap from the records through its connectors.

    Args:
        records (Records): What both models have left.
        connectors (dict[str, nn.Module]): Name of a tap -> the student's
            connector, or several of them one after another.
        teacher_connectors (dict[str, nn.Module]): The teacher's, likewise.
    """

    def __init__(
        self,
        records: Records,
        connectors: Mapping[str, nn.Module],
        teacher_connectors: Mapping[str, nn.Module],
    ) -> None:
        self.records = records
        self._connectors = {True: connectors, False: teacher_connectors}
        self._logged: set[str] = set()

    def steps(self, tap: str, student: bool = True) -> list[nn.Module]:
        """The connectors of a model at a tap, in their order."""
        return steps_at(self._connectors[student], tap)

    def find_layers(self, owner: str, model: nn.Module) -> None:
        """Show the recorders of a model their layers.

        They must not be attached yet.

        Args:
            owner (str): 'student' or 'teacher'.
            model (nn.Module): The model.

        Raises:
            ConfigError: If a layer is not there, sees queries, or must tell
                where tokens are and does not.
        """
        is_student = owner == 'student'
        manager = self.records.student if is_student else self.records.teacher
        check_sources(owner, model, manager)
        self._record_grids(model, is_student)
        find_sources(model, manager)
        check_matched(self.records.taps, owner, model)

    def _record_grids(self, model: nn.Module, student: bool) -> None:
        """Have recorded where the tokens of a model are."""
        for name, tap in self.records.taps.items():
            for step in self.steps(name, student):
                if isinstance(step, TokensToMap):
                    source = tap.student if student else tap.teacher
                    whose, layer = split_source(source)
                    network = model.get_submodule(whose)
                    grid = step.grid or _grid_layer(network, layer)
                    if grid is None:
                        raise ConfigError(
                            f'TokensToMap.grid: cannot be found for the tap '
                            f'{name}, {type(network).__name__} cuts no image '
                            f'into patches; give the layer'
                        )
                    layers = dict(network.named_modules())
                    if grid not in layers:
                        raise ConfigError(
                            f'TokensToMap.grid: for the tap {name}, '
                            f'{type(network).__name__} has no layer {grid!r}'
                            f'{nearest(grid, layers)}'
                        )
                    grid = f'{whose}:{grid}' if whose else grid
                    self.records.record_grid(name, grid, student)

    def of(self, tap: str, features: Sequence[list[Tensor]]) -> Any:
        """Pass the features of both models at a tap through connectors.

        Returns:
            tuple[list[Tensor], list[Tensor], Pairs | None]: The student's,
            the teacher's, and where maps were resampled, which belong
            together.
        """
        sides = [self.steps(tap), self.steps(tap, student=False)]
        before, after = zip(*map(_at_resampling, sides), strict=True)
        maps = [
            self._through(before[i], tap, features[i], i == 0) for i in (0, 1)
        ]
        moved = next((i for i in (0, 1) if after[i]), None)
        if moved is None:
            return *maps, None
        resampler, *rest = after[moved]
        pairs = self._meet(tap, resampler, maps, moved)
        maps[moved] = self._through(rest, tap, maps[moved], moved == 0)
        return *maps, pairs

    def of_teacher(self, tap: str) -> list[Tensor]:
        """The teacher's features, on its own grid."""
        features = self.records.features(tap, student=False)
        steps = [
            x
            for x in self.steps(tap, student=False)
            if not isinstance(x, ResampleConnector)
        ]
        return self._through(steps, tap, features, student=False)

    def _through(
        self,
        steps: Sequence[nn.Module],
        tap: str,
        features: list[Tensor],
        student: bool,
    ) -> list[Tensor]:
        for step in steps:
            if isinstance(step, TokensToMap):
                grids = self.records.grids(tap, student)
                levels = [step.to_maps(x, grids) for x in features]
                features = [x for maps in levels for x in maps]
            elif isinstance(step, ConvConnector):
                features = step.forward_levels(features)
            else:
                features = [step(x) for x in features]
        return features

    def _meet(
        self,
        tap: str,
        resampler: ResampleConnector,
        maps: list[list[Tensor]],
        moved: int,
    ) -> Pairs:
        """Resample the maps of one model, in place; tell the pairs."""
        for feature in [*maps[0], *maps[1]]:
            if feature.dim() != 4:
                raise ConfigError(
                    f'taps.{tap}: ResampleConnector takes maps (B, C, H, W), '
                    f'but got {tuple(feature.shape)}; put TokensToMap before '
                    f'it, or tap a layer that gives maps'
                )
        sizes = [[(x.shape[2], x.shape[3]) for x in y] for y in maps]
        pairs = pair_by_size(*sizes)
        for pair in pairs:
            index = pair[moved]
            size = sizes[1 - moved][pair[1 - moved]]
            maps[moved][index] = resampler.resample(maps[moved][index], size)
        if tap not in self._logged:
            self._logged.add(tap)
            owner, other = ('student', 'teacher')[:: 1 - 2 * moved]
            which = ', '.join(
                f'{sizes[moved][x[moved]]} -> {sizes[1 - moved][x[1 - moved]]}'
                for x in pairs
            )
            print_log(
                f'taps.{tap}: maps of the {owner} are resampled to the grid '
                f'of the {other} ({resampler.mode}): {which}',
                'current',
            )
        return pairs


def steps_at(connectors: Mapping[str, nn.Module], tap: str) -> list[nn.Module]:
    """The connectors at a tap, one after another; none where it has none."""
    if tap not in connectors:
        return []
    connector = connectors[tap]
    if isinstance(connector, nn.Sequential):
        return [*connector]
    return [connector]


def pair_by_size(
    students: Sequence[tuple[int, int]], teachers: Sequence[tuple[int, int]]
) -> Pairs:
    """Pair the maps of two pyramids by nearest size, each at most once.

    Both go from fine to coarse, and so do the pairs. Of the fewer maps each
    gets a partner: those for which the ratios of sizes, all together, are
    nearest to 1.

    Example:
        >>> pair_by_size([(8, 8), (4, 4), (2, 2)], [(5, 5)])
        [(1, 0)]
    """
    if len(students) > len(teachers):
        return [(s, t) for t, s in pair_by_size(teachers, students)]

    def apart(chosen: Iterable[int]) -> float:
        partners = [teachers[x] for x in chosen]
        pairs = zip(students, partners, strict=True)
        return sum(abs(log(a * b / (c * d))) for (a, b), (c, d) in pairs)

    ways = combinations(range(len(teachers)), len(students))
    return [*enumerate(min(ways, key=apart))]


def _at_resampling(
    steps: Sequence[nn.Module],
) -> tuple[Sequence[nn.Module], Sequence[Any]]:
    """What comes before a connector that resamples, and from it on."""
    for index, step in enumerate(steps):
        if isinstance(step, ResampleConnector):
            return steps[:index], steps[index:]
    return steps, []


def _grid_layer(model: nn.Module, source: str) -> str | None:
    """The layer whose output tells where the tokens of another one are."""
    if source.split('.')[0] == 'encoder':
        return 'positional_encoding'
    found = patch_layer(model)
    return found and found[0]
