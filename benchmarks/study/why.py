"""What goes with the accuracy of a student: direction, length, distance.

Of Faster R-CNN's students with the teacher's head, at the input of the class
layer; what the log had last of it. A mean of an arm's seeds is a point.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import grid
import matplotlib.pyplot as plt
import numpy as np
from arm import Arm
from markdown_tables import said
from results import Row, difference, is_ablation, measured, rows
from runs import Record
from scipy import stats

from lshfm_mm.insight.charts import GRID, MUTED, SERIES, STYLE
from lshfm_mm.utils.files import atomic_write

TAP = 'roi'
NAMES = {'LSHLoss': 'LSH', 'RelativeL2Loss': 'L2'}
COLOURS = {'LSH': SERIES[3], 'LSHL2': SERIES[4], 'L2': SERIES[0]}
FAR = '0.1 times that of the class layer'  # the arm that the picture explains


class Point(NamedTuple):
    """An arm.

    Attributes:
        title (str): Of the arm.
        kind (str): Which losses it has at the tap, a key of ``COLOURS``.
        value (float): AP, in %.
        angle (float): To the teacher's feature, in degrees.
        norm (float): In units of the teacher's.
        distance (float): Of features with that angle and norm, in units of
            the teacher's norm.
    """

    title: str
    kind: str
    value: float
    angle: float
    norm: float
    distance: float


def points(records: Mapping[str, Record]) -> list[Point]:
    """All arms that compare the input of the class layer."""
    found = []
    for name, spec in grid.EXPERIMENTS.items():
        if name != 'faster_rcnn' and not is_ablation(name):
            continue
        arms = {x.title: x for x in spec.arms.values()}
        for row in rows(records, name):
            arm = arms.get(row.title)  # a baseline is of another experiment
            if arm is not None and arm.options.get('model.inherit'):
                found += _point(row, arm)
    return sorted(found, key=lambda x: -x.value)


def _point(row: Row, arm: Arm) -> list[Point]:
    assert arm.method is not None
    losses = arm.method.losses.get(TAP, [])
    logged = [x['alignment'] for x in row.records]
    if not losses or f'{TAP}.angle' not in logged[0]:
        return []
    kind = ''.join(NAMES[x['type']] for x in losses)
    angle, norm = (
        float(np.mean([x[f'{TAP}.{key}'] for x in logged]))
        for key in ('angle', 'norm_ratio')
    )
    square = 1 + norm**2 - 2 * norm * np.cos(np.radians(angle))
    value = float(np.mean(row.values))
    return [Point(row.title, kind, value, angle, norm, float(square**0.5))]


def correlations(found: list[Point]) -> dict[str, float]:
    """Spearman's rank correlation of AP with being near to the teacher."""
    values = [x.value for x in found]
    near = {
        'angle': [-x.angle for x in found],
        'norm': [-abs(np.log(x.norm)) for x in found],
        'distance': [-x.distance for x in found],
    }
    return {k: float(stats.spearmanr(values, v)[0]) for k, v in near.items()}


def sentence(records: Mapping[str, Record]) -> str:
    """The correlations, and LSH alone beside L2 alone, in words."""
    found = points(records)
    told = correlations(found)
    lines = [
        f'Over these {len(found)} arms the rank correlation of AP with the '
        f'angle is {told["angle"]:.2f}, with the distance '
        f'{told["distance"]:.2f}, with the norm {told["norm"]:.2f}. It is 1 '
        f'where nearer to the teacher is always better.'
    ]
    for head, words in (
        ('+inherit', "the teacher's head"),
        ('', 'a head of its own'),
    ):
        lsh, l2 = (
            {
                seed: x['alignment'][f'{TAP}.angle']
                for seed, x in measured(
                    records, f'faster_rcnn/{loss}{head}'
                ).items()
            }
            for loss in ('lsh', 'l2')
        )
        if nearer := difference(l2, lsh):
            lines.append(
                f'With {words} the angle of L2 alone is greater than that of '
                f'LSH alone by {said(nearer)} degrees.'
            )
    return ' '.join(lines)


def plot(records: Mapping[str, Record], out: Path, description: str) -> None:
    """Draw AP over angle and distance, with a description in the file."""
    found = points(records)
    axis = {
        'angle': 'angle to the teacher, degrees',
        'distance': "distance, in units of the teacher's norm (log scale)",
    }
    told = correlations(found)
    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(
            1, 2, figsize=(7.2, 3.1), sharey=True, layout='constrained'
        )
        for axes, (key, label) in zip(panels, axis.items(), strict=True):
            for kind, colour in COLOURS.items():
                chosen = [x for x in found if x.kind == kind]
                axes.plot(
                    [getattr(x, key) for x in chosen],
                    [x.value for x in chosen],
                    'o',
                    ms=4.5,
                    alpha=0.8,
                    color=colour,
                    label=kind if key == 'angle' else None,
                )
            axes.set_xlabel(label)
            axes.set_title(
                f'nearer is better: rank correlation {told[key]:.2f}'
            )
            axes.grid(color=GRID)
        panels[1].set_xscale('log')
        panels[1].set_xticks([0.5, 1, 2, 5, 10], ['0.5', '1', '2', '5', '10'])
        panels[1].minorticks_off()
        panels[0].set_ylabel('COCO box AP in %, shapes')
        (far,) = (x for x in found if x.title.startswith(FAR))
        for axes, key in zip(panels, axis, strict=True):
            axes.annotate(
                f'hash functions of\na tenth of the std,\n'
                f'norm x {far.norm:.0f}',
                (getattr(far, key), far.value),
                xytext=(-14, 14),
                textcoords='offset points',
                ha='right',
                arrowprops=dict(arrowstyle='-', color=MUTED, lw=0.6),
                fontsize=8,
                color=MUTED,
            )
        figure.legend(
            loc='outside lower right',
            ncols=3,
            title='a dot: mean over the seeds of an arm that mimics by',
        )
        with atomic_write(out) as partial:
            drawn = {'Description': description}
            figure.savefig(partial, dpi=110, facecolor='white', metadata=drawn)
        plt.close(figure)
