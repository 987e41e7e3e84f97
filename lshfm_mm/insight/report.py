"""The page of an analysis: one HTML file that needs no other."""

import base64
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import jinja2
import numpy as np

from ..utils.files import atomic_write
from . import charts, polar
from .curves import ALIGNED

SMALL = 320  # pixels of the longer side up to which an image is kept as it is
LARGE = 720  # pixels of the longer side to which larger ones are shrunk
TITLES = {
    'angle': 'Angle',
    'norm_ratio': 'Norm ratio',
    'equal_codes': 'Equal codes',
}
PARTS = ('_s', '_m', '_l', '_50', '_75')  # of a metric, which get no curve


def write_report(
    analysis: Mapping[str, Any], images: Sequence[np.ndarray], folder: Path
) -> list[Path]:
    """Write numbers, picture and page, each of them whole or not at all.

    Args:
        analysis (dict): Of :func:`lshfm_mm.insight.analyze`.
        images (list[np.ndarray]): Its images to show, BGR, (H, W, 3).
        folder (Path): Where the files go.

    Returns:
        list[Path]: ``analysis.json``, ``directions.png``, ``report.html``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = 'analysis.json', 'directions.png', 'report.html'
    numbers, picture, report = files = [folder / x for x in names]
    with atomic_write(numbers) as partial:
        text = json.dumps(analysis, allow_nan=False) + '\n'
        partial.write_text(text, 'utf-8')
    with atomic_write(picture) as partial:
        polar.draw_directions(analysis, partial)
    with atomic_write(report) as partial:
        partial.write_text(page(analysis, images), 'utf-8')
    return files


def page(analysis: Mapping[str, Any], images: Sequence[np.ndarray]) -> str:
    """The page: HTML with all styles, charts and images in it."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters['label'] = _label
    evaluated = [k for k, v in analysis['metrics'].items() if len(v) > 1]
    return environment.get_template('report.html').render(
        analysis=analysis,
        metrics=_metrics(analysis),
        findings=_findings(analysis),
        taps={name: _tap(tap) for name, tap in analysis['taps'].items()},
        others={k: _others(analysis, x) for k, x in analysis['taps'].items()},
        curves=_curves(analysis),
        images=[_embedded(image) for image in images],
        models=evaluated,
        foreign=[x for x in analysis['metrics'] if x not in evaluated],
        means=_means,
    )


def _metrics(analysis: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Head and rows of the table of metrics."""
    rows = analysis['metrics']
    keys = [
        key
        for key in dict.fromkeys(key for row in rows.values() for key in row)
        # mmdet says -1 where there is no object of a size.
        if key != 'parameters'
        and any(row.get(key, -1) != -1 for row in rows.values())
    ]
    head = [key.partition('/')[2] or key for key in keys] + ['parameters']
    for name in analysis['taps']:
        more = '' if len(analysis['taps']) == 1 else f' {name}'
        head += [f'{x}{more}' for x in ('angle', 'norm ratio', 'equal codes')]
    body = []
    for model, row in rows.items():
        line = [model, *(_number(row.get(key)) for key in keys)]
        line.append(f'{row["parameters"] / 1e6:.2f} M')
        for tap in analysis['taps'].values():
            student = tap['students'].get(model)
            line += (
                _means(student[charts.group_of(tap)]) if student else ['–'] * 3
            )
        body.append(line)
    return {'head': ['', *head], 'body': body}


def _tap(tap: Mapping[str, Any]) -> dict[str, Any]:
    """Charts and tables of a tap."""
    students = tap['students']
    groups = charts.groups_of(tap)
    return {
        'polars': [_polar(tap, name) for name in students],
        'spreads': [(TITLES[x], _intervals(tap, x, groups)) for x in TITLES],
        'histograms': [
            _histogram(tap, what, group) for what in TITLES for group in groups
        ],
        'groups': [
            [name, group, f'{x[group]["count"]:,}', *_means(x[group])]
            for name, x in students.items()
            for group in dict.fromkeys([*groups, 'all'])
        ],
    }


def _others(analysis: Mapping[str, Any], tap: Mapping[str, Any]) -> list[str]:
    """A sentence for each student that did not mimic at a tap."""
    here = f'{tap["record"]} of {tap["layer"]}'
    return [
        f'{name} has not mimicked this layer, but {" and ".join(layers)}.'
        if layers
        else f'{name} has mimicked no layer.'
        for name, layers in analysis['mimicked'].items()
        if name in tap['students'] and layers is not None
        if here not in layers
    ]


def _label(thing: Mapping[str, Any]) -> str:
    """Class and score of what was detected; the class of what is there."""
    score = f' {thing["score"]:.2f}' if 'score' in thing else ''
    return f'{thing["label"]}{score}'


def _polar(tap: Mapping[str, Any], name: str) -> tuple[str, str]:
    """Chart of a student's directions, and a note below it."""
    group = charts.group_of(tap)
    student = tap['students'][name]
    stats = student[group]
    label = (
        f'{name}: median angle {_spelt(stats, "angle")}, median norm ratio '
        f'{_spelt(stats, "norm_ratio")}'
    )
    share = student['joint'][group]['outside'] / max(stats['count'], 1)
    chart = charts.svg(polar.polar, tap, name, label=label, projection='polar')
    return chart, f'{share:.1%} outside the picture' if share else ''


def _intervals(
    tap: Mapping[str, Any], what: str, groups: Sequence[str]
) -> str:
    medians = '; '.join(
        f'{name}, {group}: median {_spelt(student[group], what)}'
        for name, student in tap['students'].items()
        for group in groups
    )
    return charts.svg(
        charts.intervals,
        tap,
        what,
        label=f'{TITLES[what]}. {medians}',
        size=(3.7, 1.1 + 0.42 * len(tap['students'])),
    )


def _histogram(
    tap: Mapping[str, Any], what: str, group: str
) -> tuple[str, str]:
    title = f'{TITLES[what]}, {group}'
    label = f'Distribution of {title}'
    return title, charts.svg(charts.histograms, tap, what, group, label=label)


def _curves(analysis: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Charts of the trainings: loss, metrics, alignment."""
    trainings = analysis['curves']
    keys = dict.fromkeys(
        key for curves in trainings.values() for key in curves
    )
    measured = {key for row in analysis['metrics'].values() for key in row}
    titles = {
        'task_loss': "loss of the task, the student's own",
        'mimic_loss': 'loss of mimicking, weighted',
    }
    for key in keys:
        if key in measured and not key.endswith(PARTS):
            titles[key] = f'{key}, validation'
    for key in sorted(keys):
        if key.endswith(ALIGNED):
            titles[key] = f'{key}, training batches'
    shown = []
    for key, title in titles.items():
        lines = {k: v[key] for k, v in trainings.items() if v.get(key)}
        if any(len(curve) > 1 for curve in lines.values()):
            ends = '; '.join(
                f'{name} ends at {curve[-1][1]:.3g}'
                for name, curve in lines.items()
            )
            chart = charts.svg(
                charts.curves,
                lines,
                analysis['students'],
                title,
                label=f'{title}. {ends}',
            )
            shown.append((title, chart))
    return shown


def _findings(analysis: Mapping[str, Any]) -> list[str]:
    """What the numbers say, a sentence for each tap."""
    lines = []
    for name, tap in analysis['taps'].items():
        group = charts.group_of(tap)
        angles, ratios = (
            {k: v[group][x]['median'] for k, v in tap['students'].items()}
            for x in ('angle', 'norm_ratio')
        )
        angles = {k: v for k, v in angles.items() if v is not None}
        ratios = {k: v for k, v in ratios.items() if v}
        if not angles or not ratios:
            continue
        nearest = min(angles, key=lambda x: angles[x])
        truest = min(ratios, key=lambda x: abs(math.log(ratios[x])))
        samples = f'{tap["samples"]} of {name}'
        if group != 'all':
            samples = f'{group} {samples}'
        if len(angles) == 1:
            lines.append(
                f'On {samples} the median angle of {nearest} is '
                f'{angles[nearest]:.0f}°, its median norm ratio '
                f'{ratios[nearest]:.2f}.'
            )
            continue
        all_angles = ', '.join(f'{k} {v:.0f}°' for k, v in angles.items())
        all_ratios = ', '.join(f'{k} {v:.2f}' for k, v in ratios.items())
        lines.append(
            f'On {samples} the direction is closest for {nearest} (median '
            f'angle {angles[nearest]:.0f}°; all: {all_angles}), and the norm '
            f'for {truest} (median ratio {ratios[truest]:.2f}; all: '
            f'{all_ratios}).'
        )
    return lines


def _means(stats: Mapping[str, Any]) -> list[str]:
    """Mean angle, ratio of mean norms and equal codes, for a table."""
    cells = (
        (stats['angle']['mean'], 1, '.1f', '°'),
        (stats['norm_ratio']['of_means'], 1, '.2f', ''),
        (stats['equal_codes']['mean'], 100, '.1f', ' %'),
    )
    return [
        '–' if value is None else f'{value * factor:{form}}{unit}'
        for value, factor, form, unit in cells
    ]


def _spelt(stats: Mapping[str, Any], what: str) -> str:
    """A median in words."""
    value = stats[what]['median']
    if value is None:
        return 'none'
    if what == 'equal_codes':
        return f'{100 * value:.0f} %'
    return f'{value:.2f}{"°" if what == "angle" else ""}'


def _number(value: float | None) -> str:
    if value is None or value == -1:
        return '–'
    return f'{value:.3f}' if abs(value) <= 1 else f'{value:.1f}'


def _embedded(image: np.ndarray) -> str:
    """An image as a data URL."""
    longest = max(image.shape[:2])
    kind = 'png' if longest <= SMALL else 'jpeg'
    if longest > LARGE:
        scale = LARGE / longest
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=3)
    _, data = cv2.imencode(f'.{kind}', image)
    text = base64.b64encode(data.tobytes()).decode()
    return f'data:image/{kind};base64,{text}'
