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
from . import charts
from .analysis import TEACHER
from .curves import ALIGNED

SMALL = 320  # pixels of the longer side up to which an image is kept as it is
LARGE = 720  # pixels of the longer side to which larger ones are shrunk
TITLES = {
    'angle': 'Angle',
    'norm_ratio': 'Norm ratio',
    'equal_codes': 'Equal codes',
}
UNITS = {'angle': '°', 'norm_ratio': '', 'equal_codes': ' %'}


def write_report(
    analysis: Mapping[str, Any], images: Sequence[np.ndarray], folder: Path
) -> list[Path]:
    """Write numbers, picture and page.

    Args:
        analysis (dict): Of :func:`lshfm_mm.analysis.analyze`.
        images (list[np.ndarray]): Its images to show, BGR, (H, W, 3).
        folder (Path): Where ``analysis.json``, ``directions.png`` and
            ``report.html`` go; each is written whole or not at all.

    Returns:
        list[Path]: These files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = [
        folder / x for x in ('analysis.json', 'directions.png', 'report.html')
    ]
    with atomic_write(files[0]) as partial:
        text = json.dumps(analysis, allow_nan=False) + '\n'
        partial.write_text(text, 'utf-8')
    with atomic_write(files[1]) as partial:
        charts.draw_directions(analysis, partial)
    with atomic_write(files[2]) as partial:
        partial.write_text(page(analysis, images), 'utf-8')
    return files


def page(analysis: Mapping[str, Any], images: Sequence[np.ndarray]) -> str:
    """The page: HTML with all styles, charts and images in it.

    Args:
        analysis (dict): Of :func:`lshfm_mm.analysis.analyze`.
        images (list[np.ndarray]): Its images to show, BGR, (H, W, 3).

    Returns:
        str: The HTML.
    """
    environment = jinja2.Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    template = (Path(__file__).parent / 'report.html').read_text('utf-8')
    names = analysis['students']
    return environment.from_string(template).render(
        analysis=analysis,
        light=charts.css(charts.LIGHT),
        dark=charts.css(charts.DARK),
        metrics=_metrics(analysis),
        findings=_findings(analysis),
        taps={k: _tap(v) for k, v in analysis['taps'].items()},
        curves=_curves(analysis, names),
        images=[_embedded(x) for x in images],
        models=[
            x for x in [TEACHER, *names] if len(analysis['metrics'][x]) > 1
        ],
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
    head = [x.partition('/')[2] or x for x in keys]
    head = [*head, 'parameters']
    for name in analysis['taps']:
        more = '' if len(analysis['taps']) == 1 else f' {name}'
        head += [f'{x}{more}' for x in ('angle', 'norm ratio', 'equal codes')]
    body = []
    for model, row in rows.items():
        line = [
            model,
            *(_number(row.get(key)) for key in keys),
            f'{row["parameters"] / 1e6:.2f} M',
        ]
        for tap in analysis['taps'].values():
            found = tap['students'].get(model)
            stats = found and found[charts.group_of(tap)]
            line += _means(stats) if stats else ['–'] * 3
        body.append(line)
    return {'head': ['', *head], 'body': body}


def _tap(tap: Mapping[str, Any]) -> dict[str, Any]:
    """Charts and tables of a tap."""
    groups, group = charts.groups_of(tap), charts.group_of(tap)
    students = tap['students']
    polars = []
    for place, (name, found) in enumerate(students.items()):
        stats = found[group]
        outside = found['joint'][group]['outside']
        share = outside / max(stats['count'], 1)
        label = (
            f'{name}: median angle {_spelt(stats["angle"], "°")}, median '
            f'norm ratio {_spelt(stats["norm_ratio"], "")}'
        )
        note = f'{share:.1%} outside the picture' if outside else ''
        draw = charts.polar(tap, name, place)
        polars.append((charts.svg(draw, label), note))
    spreads, histograms = [], []
    for what, title in TITLES.items():
        label = '; '.join(
            f'{name}, {x}: median {_spelt(found[x][what], UNITS[what])}'
            for name, found in students.items()
            for x in groups
        )
        draw = charts.intervals(tap, what)
        high = 1.1 + 0.42 * len(students)
        spreads.append(
            (title, charts.svg(draw, f'{title}. {label}', (3.7, high)))
        )
        for part in groups:
            draw = charts.histograms(tap, what, part)
            histograms.append(
                (
                    f'{title}, {part}',
                    charts.svg(draw, f'Distribution of {title}, {part}'),
                )
            )
    classes = next(iter(students.values()))['classes'] if students else {}
    return {
        'polars': polars,
        'spreads': spreads,
        'histograms': histograms,
        'groups': [
            [name, x, f'{found[x]["count"]:,}', *_means(found[x])]
            for name, found in students.items()
            for x in dict.fromkeys([*groups, 'all'])
        ],
        'classes': [
            [
                label,
                *(
                    cell
                    for found in students.values()
                    for cell in _means(found['classes'][label])[:2]
                ),
            ]
            for label in classes
        ],
        'students': list(students),
    }


def _curves(
    analysis: Mapping[str, Any], names: Sequence[str]
) -> list[tuple[str, str]]:
    """Charts of the trainings: loss, metrics, alignment."""
    found = analysis['curves']
    keys = list(dict.fromkeys(key for x in found.values() for key in x))
    metric = [
        x
        for x in keys
        if any(x in row for row in analysis['metrics'].values())
        and not x.endswith(('_s', '_m', '_l', '_50', '_75'))
    ]
    aligned = [x for x in keys if x.endswith(ALIGNED)]
    titles = {
        'task_loss': "loss of the task, the student's own",
        'mimic_loss': 'loss of mimicking, weighted',
        **{x: f'{x}, validation' for x in metric},
        **{x: f'{x}, training batches' for x in sorted(aligned)},
    }
    shown = []
    for key, title in titles.items():
        lines = {k: v[key] for k, v in found.items() if v.get(key)}
        if any(len(x) > 1 for x in lines.values()):
            label = (
                title
                + '. '
                + '; '.join(
                    f'{k} ends at {v[-1][1]:.3g}' for k, v in lines.items()
                )
            )
            draw = charts.curves(lines, names, title)
            shown.append((title, charts.svg(draw, label)))
    return shown


def _findings(analysis: Mapping[str, Any]) -> list[str]:
    """What the numbers say, in sentences."""
    lines = []
    for name, tap in analysis['taps'].items():
        group = charts.group_of(tap)
        stats = {k: v[group] for k, v in tap['students'].items()}
        angle = {k: v['angle']['median'] for k, v in stats.items()}
        ratio = {k: v['norm_ratio']['median'] for k, v in stats.items()}
        angle = {k: v for k, v in angle.items() if v is not None}
        ratio = {k: v for k, v in ratio.items() if v}
        if not angle or not ratio:
            continue
        nearest = min(angle, key=lambda x: angle[x])
        truest = min(ratio, key=lambda x: abs(math.log(ratio[x])))
        samples = f'{tap["samples"]} of {name}'
        if group != 'all':
            samples = f'{group} {samples}'
        if len(angle) == 1:
            lines.append(
                f'On {samples} the median angle of {nearest} is '
                f'{angle[nearest]:.0f}°, its median norm ratio '
                f'{ratio[nearest]:.2f}.'
            )
            continue
        lines.append(
            f'On {samples} the direction is closest for {nearest} (median '
            f'angle {angle[nearest]:.0f}°; all: '
            + ', '.join(f'{k} {v:.0f}°' for k, v in angle.items())
            + f'), and the norm for {truest} (median ratio '
            f'{ratio[truest]:.2f}; all: '
            + ', '.join(f'{k} {v:.2f}' for k, v in ratio.items())
            + ').'
        )
    return lines


def _means(stats: Mapping[str, Any]) -> list[str]:
    """Mean angle, ratio of mean norms and equal codes, for a table."""
    found = (
        (stats['angle']['mean'], 1, '.1f', '°'),
        (stats['norm_ratio']['of_means'], 1, '.2f', ''),
        (stats['equal_codes']['mean'], 100, '.1f', ' %'),
    )
    return [
        '–' if value is None else f'{value * factor:{form}}{unit}'
        for value, factor, form, unit in found
    ]


def _spelt(stats: Mapping[str, Any], unit: str) -> str:
    """A median in words."""
    value = stats['median']
    if value is None:
        return 'none'
    return f'{100 * value:.0f} %' if unit == ' %' else f'{value:.2f}{unit}'


def _number(value: float | None) -> str:
    if value is None or value == -1:
        return '–'
    return f'{value:.3f}' if abs(value) <= 1 else f'{value:.1f}'


def _embedded(image: np.ndarray) -> str:
    """An image as a data URL."""
    longest = max(image.shape[:2])
    kind = '.png' if longest <= SMALL else '.jpg'
    if longest > LARGE:
        scale = LARGE / longest
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=3)
    _, data = cv2.imencode(kind, image)
    text = base64.b64encode(data.tobytes()).decode()
    return f'data:image/{"png" if kind == ".png" else "jpeg"};base64,{text}'
