"""Markdown tables of what the records say."""

import math
from collections.abc import Collection, Mapping, Sequence

import grid
import numpy as np
import plan
from arm import FACTORS, INHERITED, weights_in_words
from results import (
    Difference,
    Row,
    by_seed,
    difference,
    is_ablation,
    percent,
    reach_of_one,
    rows,
    teacher,
)
from runs import Record

NAMES = {
    'coco/bbox_mAP': 'COCO box AP',
    'accuracy/top1': 'top-1 accuracy',
    'multi-label/mAP': 'mAP',
}


def short(records: Mapping[str, Record]) -> str:
    """A row an experiment: our best arm beside its control and others.

    Means are of the seeds that ours, its control and the student alone have.
    The gain is that of mimicking alone: over a student that starts alike.
    """
    head = ['', 'seeds', 'student alone', 'same start, no mimicking', 'ours']
    head += ['teacher', 'gain of mimicking', 'to the best other loss']
    lines = []
    for name, spec in grid.EXPERIMENTS.items():
        if not spec.short:
            continue
        alone, ours, *others = spec.short
        inherits = spec.arms[ours].title.endswith(INHERITED)
        control = 'alone+inherit' if inherits else alone
        found = {
            x: by_seed(records, f'{name}/{x}') for x in (*spec.short, control)
        }
        seeds = {*found[ours]} & {*found[control]} & {*found[alone]}
        held = {
            x: against
            for x in others
            if (against := difference(found[ours], found[x]))
        }
        best = teacher(records, name)
        gain = difference(found[ours], {x: found[control][x] for x in seeds})
        if not held or not gain or not best or len(seeds) < 2:
            continue
        other = min(held, key=lambda x: held[x].mean)
        titles = {x: spec.arms[x].title.removesuffix(INHERITED) for x in found}
        means = {x: mean_of(found[x], seeds) for x in (alone, control, ours)}
        head_of = "teacher's head" if inherits else 'own head'
        lines.append(
            [
                f'{spec.title}: {name_of(name)}',
                *(str(len(seeds)), means[alone]),
                f'{means[control]} ({head_of})',
                f'{means[ours]} ({titles[ours]})',
                f'{best[1]:.1f}',
                said(gain),
                f'{said(held[other])} ({titles[other]})',
            ]
        )
    return markdown(head, lines)


def expected(records: Mapping[str, Record]) -> str:
    """A row an experiment with a recipe of ``make_config``: what it gave."""
    head = ['', 'setting', 'recipe', 'student alone', 'distilled', 'teacher']
    head.append('gap closed')
    lines = []
    for name, spec in grid.EXPERIMENTS.items():
        best = teacher(records, name)
        if not spec.setting or best is None:
            continue
        closed = {x.title: x.closed for x in rows(records, name)}
        start = by_seed(records, f'{name}/{spec.short[0]}')
        for arm in spec.recommended:
            ours = by_seed(records, f'{name}/{arm}')
            if not start or len(ours) < 2:  # one seed is no expectation
                continue
            title = spec.arms[arm].title
            lines.append(
                [
                    f'{spec.title}: {name_of(name)}',
                    f'{spec.setting}; {len(ours)} seeds',
                    title,
                    mean_of(start, ours),
                    mean_of(ours, ours),
                    f'{best[1]:.1f}',
                    f'{closed[title]:.0f} %',
                ]
            )
    return markdown(head, lines)


def mean_of(values: Mapping[int, float], seeds: Collection[int]) -> str:
    """The mean over those of its seeds that are among others."""
    return f'{np.mean([values[x] for x in values if x in seeds]):.1f}'


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
                logged(row, 'angle', '.1f', '°'),
                logged(row, 'norm_ratio', '.2f'),
            ]
        else:
            told = row.closed is not None and len(row.values) > 1
            cells = [f'{row.closed:.0f} %' if told else '']
        lines.append(
            [
                f'**{row.title}**' if row.is_recommended else row.title,
                str(len(row.values)),
                f'{np.mean(row.values):.1f}{spread}',
                '' if row.gain is None else said(row.gain),
                *cells,
                weights_in_words(row.arm.method, row.records[0]['factor']),
            ]
        )
    return markdown(head, lines)


def logged(row: Row, key: str, form: str, unit: str = '') -> str:
    """Mean of what the log had last of RoIs or a class tower, in words.

    '' where it had nothing.
    """
    found = [
        value
        for record in row.records
        for name, value in record['alignment'].items()
        if name in (f'roi.{key}', f'cls.{key}')
    ]
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
    head = ['', 'weights', *(f'x {x:g}' for x in columns)]
    lines = []
    for name, arm in grid.EXPERIMENTS[experiment].arms.items():
        tried = {
            factor: percent(arm, value)
            for factor, value in plan.tried(
                f'{experiment}/{name}', records
            ).items()
        }
        if tried:
            cells = [f'{tried[x]:.1f}' if x in tried else '' for x in columns]
            weights = weights_in_words(arm.method)
            lines.append([arm.title, weights, *cells])
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
            both = len({*ours} & {*theirs})
            lines.append([*titles, str(both), said(found)])
    head = ['', 'against', 'seeds', 'difference']
    return markdown(head, lines) if lines else ''


def markdown(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table."""
    return '\n'.join(
        '| ' + ' | '.join(x) + ' |'
        for x in (head, ['---'] * len(head), *lines)
    )
