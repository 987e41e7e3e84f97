"""Which runs the study needs, from its grid and what was recorded."""

import math
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from types import MappingProxyType

import grid
import runs
from arm import FACTORS, TUNING_SEED, Arm
from runs import Record, Run

from lshfm_mm.errors import ConfigError

Patterns = Sequence[str]  # of EXPERIMENT/ARM
ALL = ('*',)
SHAPES = tuple(
    f'{name}/*'
    for name, spec in grid.EXPERIMENTS.items()
    if not spec.on_photographs
)


def chosen(only: Patterns = ALL) -> Iterator[tuple[str, str, Arm]]:
    """Yield experiment, name and arm of those whose path fits a pattern."""
    for experiment, spec in grid.EXPERIMENTS.items():
        for name, arm in spec.arms.items():
            if any(fnmatch(f'{experiment}/{name}', x) for x in only):
                yield experiment, name, arm


def check_photographs(only: Patterns) -> None:
    """Raise if photographs are not there that are seen for these arms."""
    arms = [arm for _, _, arm in chosen(only)]
    arms += [x.spec for stage in needed(only) for x in stage]
    for name in sorted({arm.folder for arm in arms}):
        if name != 'shapes' and not Path('data', name).is_dir():
            raise ConfigError(
                f'--only: no such folder: data/{name}; python -m lshfm_mm '
                f'get_photographs {name} data/{name} makes it, and '
                f'get_weights data what their teachers start from'
            )


def needed(only: Patterns = ALL) -> Iterator[list[Run]]:
    """Yield runs that others start from, those first that others need."""
    names = set()
    for experiment, _, arm in chosen(only):
        names |= {grid.EXPERIMENTS[experiment].teacher, *arm.starts_from}
    stages = []
    for arms in reversed(grid.NEEDED):
        stages.append([x for x in arms if x in names])
        names |= {y for x in stages[-1] for y in arms[x].starts_from}
    for stage in reversed(stages):
        yield [runs.needed(x) for x in stage]


def images(only: Patterns = ALL) -> list[str]:
    """Names of the generated images that these arms see."""
    planned = [x for stage in needed(only) for x in stage] + [
        Run(experiment, name, 0, split, 1.0, arm)
        for experiment, name, arm in chosen(only)
        for split in ('val', 'test')
    ]
    seen = {x for run in planned for x in run.images}
    return [x for x in grid.DATA if x in seen]


def tuning(
    only: Patterns = ALL, records: Mapping[str, Record] = MappingProxyType({})
) -> list[Run]:
    """Runs that choose the factors of arms, on validation images.

    Args:
        only (Sequence[str]): Patterns of EXPERIMENT/ARM.
        records (dict): What was recorded, of the grid as it is. Defaults to
            nothing.

    Returns:
        list[Run]: These, and where records tell that the best factor is at an
        end, the one beyond.
    """
    paths = dict.fromkeys(arm.tuned_as for _, _, arm in chosen(only))
    return [
        Run(*path.split('/'), TUNING_SEED, 'val', factor, arm_of(path))
        for path in paths
        if path
        for factor in factors_of(path, records)
    ]


def factors_of(path: str, records: Mapping[str, Record]) -> tuple[float, ...]:
    """Factors to try of EXPERIMENT/ARM, by what was recorded."""
    values = tried(path, records)
    if not set(FACTORS) <= set(values):
        return FACTORS
    best = best_of({x: values[x] for x in FACTORS})
    return FACTORS if best == 1 else (*FACTORS, best**2)


def best_of(values: Mapping[float, float]) -> float:
    """The factor of the greatest value; of equals that nearest to 1.

    Of those that are as near, the smaller.
    """
    return max(values, key=lambda x: (values[x], -abs(math.log(x)), -x))


def arm_of(path: str) -> Arm:
    """What EXPERIMENT/ARM trains."""
    experiment, _, name = path.partition('/')
    return grid.EXPERIMENTS[experiment].arms[name]


def final(
    only: Patterns,
    records: Mapping[str, Record],
    seeds: Sequence[int] | None = None,
) -> list[Run]:
    """Runs that count, a seed of all arms before the next.

    Args:
        only (Sequence[str]): Patterns of EXPERIMENT/ARM.
        records (dict): What was recorded, of the grid as it is.
        seeds (Sequence[int], optional): Others than the grid's; then with
            what the arms are compared to.

    Returns:
        list[Run]: These.
    """
    paths = [f'{experiment}/{name}' for experiment, name, _ in chosen(only)]
    if seeds:
        names = dict.fromkeys(x for x, _, _ in chosen(only))
        paths += [grid.EXPERIMENTS[x].baseline for x in names]
    found = [
        (seed, path)
        for path in dict.fromkeys(paths)
        for seed in seeds or range(seeds_of(path))
    ]
    return [
        run_of(path, seed, records)
        for seed, path in sorted(found, key=lambda x: x[0])
    ]


def seeds_of(path: str) -> int:
    """How many seeds the grid has of EXPERIMENT/ARM."""
    return grid.EXPERIMENTS[path.partition('/')[0]].seeds


def run_of(path: str, seed: int, records: Mapping[str, Record]) -> Run:
    """A run that counts, with the weights that were chosen."""
    arm = arm_of(path)
    factor = factor_of(arm, records)
    return Run(*path.split('/'), seed, 'test', factor, arm)


def tried(path: str, records: Mapping[str, Record]) -> dict[float, float]:
    """Factors of EXPERIMENT/ARM -> what they gave on validation images."""
    return {
        x['factor']: x['value']
        for x in records.values()
        if (f'{x["experiment"]}/{x["arm"]}', x['split']) == (path, 'val')
    }


def factor_of(arm: Arm, records: Mapping[str, Record]) -> float:
    """The factor that was best on the validation images."""
    if not arm.tuned_as:
        return 1.0
    if missing := missing_of(arm, records):
        raise ConfigError(
            f'{arm.tuned_as}: factors {sorted(missing)} are not tried yet; '
            f'run the study with --only {arm.tuned_as!r}'
        )
    return best_of(tried(arm.tuned_as, records))


def missing_of(arm: Arm, records: Mapping[str, Record]) -> set[float]:
    """Factors that have to be tried before one is chosen."""
    if not arm.tuned_as:
        return set()
    values = tried(arm.tuned_as, records)
    return set(factors_of(arm.tuned_as, records)) - set(values)


def current(records: Mapping[str, Record]) -> dict[str, Record]:
    """What was recorded of the grid as it is, with the weights as chosen."""
    fixed = [*(x for stage in needed() for x in stage), *tuning()]
    found = _recorded(fixed, records)
    found |= _recorded(tuning(ALL, found), records)
    paths = {f'{experiment}/{name}' for experiment, name, _ in chosen()}
    for record in records.values():
        path = f'{record["experiment"]}/{record["arm"]}'
        if path not in paths or record['split'] != 'test':
            continue
        arm = arm_of(path)
        if not missing_of(arm, found):
            run = run_of(path, record['seed'], found)
            found |= _recorded([run], records)
    return found


def _recorded(
    planned: Sequence[Run], records: Mapping[str, Record]
) -> dict[str, Record]:
    """Records of these runs that are of the same config."""
    return {
        x.name: records[x.name]
        for x in planned
        if x.name in records and records[x.name]['config'] == x.fingerprint
    }
