"""What the records say: a row an arm, paired differences, intervals."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import grid
import numpy as np
import plan
from arm import INHERITED, METRICS, Arm
from runs import Record
from scipy import stats

CONFIDENCE = 0.95


class Difference(NamedTuple):
    """Mean of paired differences, and its interval; None of one pair."""

    mean: float
    low: float | None
    high: float | None


class Row(NamedTuple):
    """What is told of an arm of an experiment.

    Attributes:
        arm (Arm): As it was run.
        values (list[float]): Of its seeds, in %.
        gain (Difference, optional): To the experiment's baseline, seed by
            seed; None of that itself.
        closed (float, optional): Share of the gap to the teacher, in %.
        records (list[Record]): Of these seeds.
        is_recommended (bool): Whether it is as we recommend.
    """

    arm: Arm
    values: list[float]
    gain: Difference | None
    closed: float | None
    records: list[Record]
    is_recommended: bool

    @property
    def title(self) -> str:
        """Of the arm."""
        return self.arm.title

    @property
    def method(self) -> str:
        """Its title, without that of the head."""
        return self.title.removesuffix(INHERITED)


def measured(
    records: Mapping[str, Record], path: str, new: bool = False
) -> dict[int, Record]:
    """Seed -> what was recorded of EXPERIMENT/ARM on the test images.

    Args:
        records (dict): What was recorded.
        path (str): EXPERIMENT/ARM.
        new (bool): Whether the seeds are those that are not of the grid.
            Defaults to False.
    """
    experiment, _, arm = path.partition('/')
    seeds = range(grid.EXPERIMENTS[experiment].seeds)
    return {
        x['seed']: x
        for x in records.values()
        if (x['experiment'], x['arm'], x['split']) == (experiment, arm, 'test')
        and (x['seed'] not in seeds) is new
    }


def by_seed(
    records: Mapping[str, Record], path: str, new: bool = False
) -> dict[int, float]:
    """Seed -> the metric of EXPERIMENT/ARM, in %; as :func:`measured`."""
    return values_of(path, measured(records, path, new))


def values_of(path: str, found: Mapping[int, Record]) -> dict[int, float]:
    """Seed -> the metric, in %, of records of EXPERIMENT/ARM."""
    spec = plan.arm_of(path)
    return {seed: percent(spec, x['value']) for seed, x in found.items()}


def percent(arm: Arm, value: float) -> float:
    """A metric in %: mmdet's are shares, mmpretrain's are not."""
    return value if arm.metric in METRICS.values() else 100 * value


def difference(
    values: Mapping[int, float], others: Mapping[int, float]
) -> Difference | None:
    """Mean difference of the seeds that both have, with Student's interval.

    Args:
        values (dict): Seed -> value.
        others (dict): Seed -> what is subtracted.

    Returns:
        Difference, optional: None if they share no seed; without interval if
        they share but one.
    """
    pairs = [values[x] - others[x] for x in values if x in others]
    if not pairs:
        return None
    mean = float(np.mean(pairs))
    if len(pairs) == 1:
        return Difference(mean, None, None)
    reach = reach_of_one(pairs) / math.sqrt(len(pairs))
    return Difference(mean, mean - reach, mean + reach)


def reach_of_one(values: Sequence[float]) -> float:
    """Half of Student's interval of one value: (1 + c) / 2 quantile x s."""
    quantile = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1))
    return quantile * float(np.std(values, ddof=1))


def teacher(
    records: Mapping[str, Record], experiment: str
) -> tuple[str, float] | None:
    """Title of an experiment's teacher, and what it measured, in %.

    None of experiments that change an arm of another one.
    """
    if is_ablation(experiment):
        return None
    name = grid.EXPERIMENTS[experiment].teacher
    arms = {k: v for stage in grid.NEEDED for k, v in stage.items()}
    for record in records.values():
        if record['experiment'] == 'needed' and record['arm'] == name:
            return arms[name].title, percent(arms[name], record['value'])
    return None


def rows(records: Mapping[str, Record], experiment: str) -> list[Row]:
    """The baseline and the arms that have been run, in the grid's order."""
    spec = grid.EXPERIMENTS[experiment]
    arms = [f'{experiment}/{x}' for x in spec.arms]
    ours = [f'{experiment}/{x}' for x in spec.recommended]
    found = {}
    for path in [spec.baseline, *arms]:
        told = measured(records, path)
        found[path] = {k: told[k] for k in sorted(told) if k < spec.seeds}
    others = values_of(spec.baseline, found[spec.baseline])
    best = teacher(records, experiment)
    listed = []
    for path, told in found.items():
        if not told:
            continue
        values = values_of(path, told)
        gain = closed = None
        if path != spec.baseline:
            gain = difference(values, others)
        if gain and best:
            start = float(np.mean([others[x] for x in values if x in others]))
            closed = 100 * gain.mean / (best[1] - start)
        listed.append(
            Row(
                plan.arm_of(path),
                [*values.values()],
                gain,
                closed,
                [*told.values()],
                path in ours,
            )
        )
    return listed


def is_ablation(experiment: str) -> bool:
    """Whether its arms change an arm of another experiment."""
    baseline = grid.EXPERIMENTS[experiment].baseline
    return not baseline.startswith(f'{experiment}/')
