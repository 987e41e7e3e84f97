"""Which runs the study needs, from its grid and what was recorded."""

from collections.abc import Iterator, Mapping
from fnmatch import fnmatch

import grid
from runs import Record, Run

from lshfm_mm.errors import ConfigError


def needed() -> Iterator[list[Run]]:
    """Yield runs that others start from, those first that others need."""
    for arms in grid.NEEDED:
        yield [Run('needed', k, 0, 'test', 1.0, v) for k, v in arms.items()]


def chosen(only: str) -> Iterator[tuple[str, str, grid.Arm]]:
    """Yield experiment, name and arm of those whose path fits a pattern."""
    for experiment, spec in grid.EXPERIMENTS.items():
        for name, arm in spec.arms.items():
            if fnmatch(f'{experiment}/{name}', only):
                yield experiment, name, arm


def tuning(only: str) -> list[Run]:
    """Runs that choose factors, on validation images."""
    return [
        Run(experiment, name, grid.TUNING_SEED, 'val', factor, arm)
        for factor in grid.FACTORS
        for experiment, name, arm in chosen(only)
        if arm.tuned_as == f'{experiment}/{name}'
    ]


def final(
    only: str, records: Mapping[str, Record], seeds: list[int] | None
) -> list[Run]:
    """Runs that count, a seed of all arms before the next."""
    found = [
        (seed, experiment, name, arm)
        for experiment, name, arm in chosen(only)
        for seed in seeds or range(grid.EXPERIMENTS[experiment].seeds)
    ]
    return [
        Run(experiment, name, seed, 'test', factor_of(arm, records), arm)
        for seed, experiment, name, arm in sorted(found, key=lambda x: x[0])
    ]


def factor_of(arm: grid.Arm, records: Mapping[str, Record]) -> float:
    """The factor that was best on the validation images."""
    if not arm.tuned_as:
        return 1.0
    tried = [
        x
        for x in records.values()
        if x['split'] == 'val'
        and f'{x["experiment"]}/{x["arm"]}' == arm.tuned_as
    ]
    if len(tried) < len(grid.FACTORS):
        raise ConfigError(
            f'{arm.tuned_as}: its weights are not chosen yet; run the study '
            f'with --only {arm.tuned_as!r}'
        )
    return max(tried, key=lambda x: x['value'])['factor']
