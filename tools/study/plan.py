"""Which runs the study needs, from its grid and what was recorded."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatch

import grid
from arm import FACTORS, TUNING_SEED, WORK, Arm
from runs import Record, Run

from lshfm_mm.errors import ConfigError

Patterns = Sequence[str]  # of EXPERIMENT/ARM
ALL = ('*',)


def chosen(only: Patterns = ALL) -> Iterator[tuple[str, str, Arm]]:
    """Yield experiment, name and arm of those whose path fits a pattern."""
    for experiment, spec in grid.EXPERIMENTS.items():
        for name, arm in spec.arms.items():
            if any(fnmatch(f'{experiment}/{name}', x) for x in only):
                yield experiment, name, arm


def needed(only: Patterns = ALL) -> Iterator[list[Run]]:
    """Yield runs that others start from, those first that others need."""
    names = set()
    for experiment, _, arm in chosen(only):
        names |= {grid.EXPERIMENTS[experiment].teacher, *starts_from(arm)}
    stages = []
    for arms in reversed(grid.NEEDED):
        stages.append({k: v for k, v in arms.items() if k in names})
        names |= {x for arm in stages[-1].values() for x in starts_from(arm)}
    for arms in reversed(stages):
        yield [
            Run('needed', name, 0, 'test', 1.0, arm)
            for name, arm in arms.items()
        ]


def starts_from(arm: Arm) -> set[str]:
    """Names of the weights that an arm's config reads."""
    found = re.findall(rf'{WORK}/(\w+)\.pth', json.dumps(arm.options))
    return set(found)


def tuning(only: Patterns = ALL) -> list[Run]:
    """Runs that choose factors, on validation images."""
    return [
        Run(experiment, name, TUNING_SEED, 'val', factor, arm)
        for factor in FACTORS
        for experiment, name, arm in chosen(only)
        if arm.tuned_as == f'{experiment}/{name}'
    ]


def final(
    only: Patterns,
    records: Mapping[str, Record],
    seeds: Sequence[int] | None = None,
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


def factor_of(arm: Arm, records: Mapping[str, Record]) -> float:
    """The factor that was best on the validation images."""
    if not arm.tuned_as:
        return 1.0
    tried = [
        x
        for x in records.values()
        if x['split'] == 'val'
        and f'{x["experiment"]}/{x["arm"]}' == arm.tuned_as
    ]
    if len(tried) < len(FACTORS):
        raise ConfigError(
            f'{arm.tuned_as}: its weights are not chosen yet; run the study '
            f'with --only {arm.tuned_as!r}'
        )
    return max(tried, key=lambda x: x['value'])['factor']
