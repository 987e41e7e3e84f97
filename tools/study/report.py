"""Tables and plots of the study, from what was recorded alone."""

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import grid
import matplotlib.pyplot as plt
import numpy as np
import plan
from arm import FACTORS, INHERITED, METRICS, Arm
from runs import REPO, RESULTS, Record
from scipy import stats

from lshfm_mm.charts import LIGHT, STYLE
from lshfm_mm.files import written_whole

PAGE = REPO / 'docs/results.md'
IMAGES = REPO / 'docs/images'
CONFIDENCE = 0.95
NAMES = {
    'coco/bbox_mAP': 'COCO box AP',
    'accuracy/top1': 'top-1 accuracy',
    'multi-label/mAP': 'mAP',
}


class Difference(NamedTuple):
    """Mean of paired differences, and its interval; None of one pair."""

    mean: float
    low: float | None
    high: float | None


class Row(NamedTuple):
    """An arm of an experiment.

    Attributes:
        title (str): Of the arm.
        values (list[float]): Of its seeds, in %.
        gain (Difference, optional): To the student alone, seed by seed; None
            of that itself.
        closed (float, optional): Share of the gap to the teacher, in %.
        records (list[Record]): Of these seeds.
    """

    title: str
    values: list[float]
    gain: Difference | None
    closed: float | None
    records: list[Record]


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
                plan.arm_of(path).title,
                [*values.values()],
                gain,
                closed,
                [*told.values()],
            )
        )
    return listed


def is_ablation(experiment: str) -> bool:
    """Whether its arms change an arm of another experiment."""
    baseline = grid.EXPERIMENTS[experiment].baseline
    return not baseline.startswith(f'{experiment}/')


def table(records: Mapping[str, Record], experiment: str) -> str:
    """A Markdown table of an experiment."""
    more = ['angle', 'norm'] if is_ablation(experiment) else ['gap closed']
    head = ['', 'seeds', name_of(experiment), to_baseline(experiment)]
    head += [*more, 'weights']
    lines = []
    if best := teacher(records, experiment):
        lines.append([best[0], '1', f'{best[1]:.1f}', '', '', ''])
    for row in rows(records, experiment):
        spread = ''
        if len(row.values) > 1:
            spread = f' ± {np.std(row.values, ddof=1):.1f}'
        if is_ablation(experiment):
            cells = [
                logged(row, 'roi.angle', '.1f', '°'),
                logged(row, 'roi.norm_ratio', '.2f'),
            ]
        else:
            cells = ['' if row.closed is None else f'{row.closed:.0f} %']
        lines.append(
            [
                row.title,
                str(len(row.values)),
                f'{np.mean(row.values):.1f}{spread}',
                '' if row.gain is None else said(row.gain),
                *cells,
                f'{row.records[0]["factor"]:g}',
            ]
        )
    return markdown(head, lines)


def logged(row: Row, key: str, form: str, unit: str = '') -> str:
    """Mean of what the log had last of features, in words; '' of nothing."""
    found = [x['alignment'][key] for x in row.records if key in x['alignment']]
    return f'{np.mean(found):{form}}{unit}' if found else ''


def name_of(experiment: str) -> str:
    """What an experiment measures."""
    arm = next(iter(grid.EXPERIMENTS[experiment].arms.values()))
    return NAMES[arm.metric]


def to_baseline(experiment: str) -> str:
    """Head of a column of differences."""
    title = plan.arm_of(grid.EXPERIMENTS[experiment].baseline).title
    return f'to {title}'


def said(gain: Difference) -> str:
    """A difference and its interval in words."""
    if gain.low is None:
        return f'{gain.mean:+.1f}'
    return f'{gain.mean:+.1f} [{gain.low:+.1f}, {gain.high:+.1f}]'


def plot(records: Mapping[str, Record], experiment: str, out: Path) -> None:
    """Draw seeds and mean of each method, the baseline and the teacher."""
    found = rows(records, experiment)
    best = teacher(records, experiment)
    titles = [x.title.removesuffix(INHERITED) for x in found]
    lines = list(dict.fromkeys(titles))
    heads: dict[str, str] = {}
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            figsize=(7.2, 1.2 + 0.27 * len(lines)), layout='constrained'
        )
        for row, title in zip(found, titles, strict=True):
            inherits = row.title != title
            colour = LIGHT.series[1 if inherits else 2]
            heads['inherited head' if inherits else 'own head'] = colour
            place = lines.index(title)
            axes.plot(
                row.values,
                [place] * len(row.values),
                '.',
                color=colour,
                alpha=0.45,
            )
            axes.plot(np.mean(row.values), place, 'D', color=colour, ms=5)
        for label, colour in heads.items():
            axes.plot([], [], 'D', color=colour, ms=5, label=label)
        axes.axvline(
            np.mean(found[0].values), color=LIGHT.muted, ls=(0, (2, 2)), lw=0.9
        )
        if best is not None:
            axes.axvline(best[1], color=LIGHT.muted, lw=0.9, label='teacher')
        figure.legend(loc='outside lower right', ncols=3)
        axes.set_yticks(range(len(lines)), lines)
        axes.set_ylim(len(lines) - 0.5, -0.5)
        axes.grid(axis='x', color=LIGHT.grid)
        shown = [x for row in found for x in row.values]
        shown += [best[1]] if best else []
        room = 0.04 * (max(shown) - min(shown) or 1)
        axes.set_xlim(min(shown) - room, max(shown) + room)
        axes.set_axisbelow(True)
        axes.tick_params(axis='y', length=0)
        axes.set_xlabel(f'{name_of(experiment)} in %')
        axes.set_title(grid.EXPERIMENTS[experiment].title, loc='left')
        with written_whole(out) as partial:
            drawn = {'Description': content(records, experiment)}
            figure.savefig(partial, dpi=110, facecolor='white', metadata=drawn)
        plt.close(figure)


def content(records: Mapping[str, Record], experiment: str) -> str:
    """What a plot shows, for the file itself."""
    drawn = [(x.title, x.values) for x in rows(records, experiment)]
    shown = [teacher(records, experiment), *drawn]
    return hashlib.sha256(repr(shown).encode()).hexdigest()


def cost(records: Mapping[str, Record]) -> str:
    """How many runs there are, and what they took."""
    hours = sum(x['seconds'] * x['threads'] for x in records.values()) / 3600
    machines = sorted({x['machine'] for x in records.values()})
    commits = sorted({x['commit'] for x in records.values()})
    return (
        f'{len(records)} runs, {hours:.1f} hours of threads, on: '
        f'{"; ".join(machines)}. Commits: {", ".join(commits)}.'
    )


def tuning_table(records: Mapping[str, Record], experiment: str) -> str:
    """What each factor gave on the validation images, one seed."""
    columns = (FACTORS[0] ** 2, *FACTORS, FACTORS[-1] ** 2)
    head = ['', *(f'x {x:g}' for x in columns)]
    lines = []
    for name, arm in grid.EXPERIMENTS[experiment].arms.items():
        tried = {
            x['factor']: percent(arm, x['value'])
            for x in records.values()
            if (x['experiment'], x['arm'], x['split'])
            == (experiment, name, 'val')
        }
        if tried:
            cells = [f'{tried[x]:.1f}' if x in tried else '' for x in columns]
            lines.append([arm.title, *cells])
    return markdown(head, lines) if lines else ''


def new_seeds_table(records: Mapping[str, Record], experiment: str) -> str:
    """Gains with other seeds, and where such a gain is to be expected."""
    head = ['', 'seed', name_of(experiment), to_baseline(experiment)]
    head.append('expected')
    spec = grid.EXPERIMENTS[experiment]
    others = by_seed(records, spec.baseline, new=True)
    others |= by_seed(records, spec.baseline)
    known = {x: others[x] for x in range(spec.seeds) if x in others}
    lines = []
    for name, arm in spec.arms.items():
        path = f'{experiment}/{name}'
        values = by_seed(records, path)
        pairs = [values[x] - known[x] for x in values if x in known]
        if path == spec.baseline or len(pairs) < 2:
            continue
        reach = reach_of_one(pairs) * math.sqrt(1 + 1 / len(pairs))
        low, high = np.mean(pairs) - reach, np.mean(pairs) + reach
        for seed, value in by_seed(records, path, new=True).items():
            if seed in others:
                cells = [arm.title, f'{seed}', f'{value:.1f}']
                gain = f'{value - others[seed]:+.1f}'
                lines.append([*cells, gain, f'{low:+.1f} to {high:+.1f}'])
    return markdown(head, lines) if lines else ''


def pairs_table(records: Mapping[str, Record], experiment: str) -> str:
    """Differences of arms that are held against each other, seed by seed."""
    spec = grid.EXPERIMENTS[experiment]
    lines = []
    for names in spec.pairs:
        ours, theirs = (by_seed(records, f'{experiment}/{x}') for x in names)
        if found := difference(ours, theirs):
            titles = [spec.arms[x].title for x in names]
            lines.append([*titles, said(found)])
    return markdown(['', 'against', 'difference'], lines) if lines else ''


def markdown(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table."""
    return '\n'.join(
        '| ' + ' | '.join(x) + ' |'
        for x in (head, ['---'] * len(head), *lines)
    )


def parts(records: Mapping[str, Record]) -> dict[str, str]:
    """What stands between marks of the page, by their names."""
    found = {'cost': cost(records)}
    for name in grid.EXPERIMENTS:
        if len(rows(records, name)) > 1:
            found[name] = table(records, name)
        if tuned := tuning_table(records, name):
            found[f'{name} tuning'] = tuned
        if pairs := pairs_table(records, name):
            found[f'{name} pairs'] = pairs
        if again := new_seeds_table(records, name):
            found[f'{name} new seeds'] = again
    return found


def filled(page: str, found: Mapping[str, str]) -> str:
    """The page with what was recorded between its marks."""

    def part(match: re.Match[str]) -> str:
        text = found.get(match[1], '(not run yet)')
        return f'<!-- study: {match[1]} -->\n\n{text}\n\n<!-- end -->'

    pattern = r'<!-- study: (.+?) -->\n.*?<!-- end -->'
    return re.sub(pattern, part, page, flags=re.S)


def write(records: Mapping[str, Record]) -> Sequence[Path]:
    """Fill the page and draw the plots.

    Args:
        records (dict): What was recorded, by the names of the runs.

    Returns:
        list[Path]: What was written.
    """
    text = filled(PAGE.read_text(), parts(records))
    with written_whole(PAGE) as partial:
        partial.write_text(text)
    written = [RESULTS, PAGE]
    for name in grid.EXPERIMENTS:
        if len(rows(records, name)) > 1:
            written.append(IMAGES / f'study_{name}.png')
            plot(records, name, written[-1])
    return written
