"""Angles and norms of features as regions of a half circle."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import matplotlib
import numpy as np
from matplotlib.figure import Figure

from .charts import (
    GRID,
    INK,
    MUTED,
    NAMES,
    STYLE,
    group_of,
    groups_of,
    intervals,
)

REGIONS = (0.9, 0.7, 0.5, 0.25)  # shares of the samples in nested regions


def polar(axes: Any, tap: Mapping[str, Any], name: str) -> None:
    """Draw where a student's features lie, seen from the teacher's.

    The teacher's feature is the arrow for each sample. Angles are true. The
    distance from the origin is ``log2(1 + norm ratio)``, so that ratios far
    from 1 fit in.
    """
    group = group_of(tap)
    student = tap['students'][name]
    colour = f'C{list(tap["students"]).index(name)}'
    widest, farthest = extent(tap)
    norms = [x for x in 2.0 ** np.arange(-1, 5) if x <= farthest]
    axes.set_thetamax(widest)
    axes.set_rlim(0, _radius(farthest))
    axes.set_thetagrids(np.arange(0, widest + 1, 30))
    axes.set_rgrids(_radius(norms), [f'{x:g}' for x in norms])
    axes.tick_params(labelsize=8, pad=1)
    axes.annotate(
        NAMES['norm_ratio'],
        (0, _radius(farthest) / 2),
        xytext=(0, -15),
        textcoords='offset points',
        color=MUTED,
        fontsize=8,
        ha='center',
        va='top',
        annotation_clip=False,
    )
    axes.spines[:].set_color(GRID)
    turn = np.deg2rad(np.linspace(0, widest, 181))
    axes.plot(turn, np.full(181, _radius(1)), color=MUTED, linewidth=0.9)

    angle, ratio = (np.array(tap['bins'][x]) for x in ('angle', 'norm_ratio'))
    density = smoothed(np.array(student['joint'][group]['counts'], float))
    for level in sorted(set(region_levels(density, REGIONS))):
        axes.contourf(
            np.deg2rad((angle[1:] + angle[:-1]) / 2),
            _radius(np.sqrt(ratio[1:] * ratio[:-1])),
            density.T,
            levels=[level, density.max() + 1],
            colors=[colour],
            alpha=0.24,
        )
    axes.annotate(
        '',
        (0, _radius(1)),
        (0, 0),
        arrowprops=dict(
            arrowstyle='-|>', color=INK, linewidth=1.8, shrinkA=0, shrinkB=0
        ),
        annotation_clip=False,
    )
    middle = [student[group][x]['median'] for x in ('angle', 'norm_ratio')]
    if None in middle:
        axes.set_title(name)
        return
    axes.plot(
        np.deg2rad(middle[0]),
        _radius(middle[1]),
        marker='+',
        markersize=11,
        markeredgewidth=1.8,
        color=INK,
    )
    axes.set_title(f'{name}: {middle[0]:.0f}°, norm × {middle[1]:.2f}')


def extent(tap: Mapping[str, Any]) -> tuple[float, float]:
    """Angle and norm ratio up to which almost all samples of a tap lie.

    Returns:
        tuple[float, float]: 90 or 180 degrees, and a ratio of 2 or more.
    """
    ends: dict[str, list[float]] = {'angle': [90.0], 'norm_ratio': [2.0]}
    for student in tap['students'].values():
        counts = np.array(student['joint'][group_of(tap)]['counts'], float)
        if not counts.sum():
            continue
        for axis, name in ((1, 'angle'), (0, 'norm_ratio')):
            below = counts.sum(axis=axis).cumsum()
            last = 1 + np.searchsorted(below, 0.99 * counts.sum())
            ends[name].append(tap['bins'][name][last])
    widest = 180.0 if max(ends['angle']) > 90 else 90.0
    return widest, max(ends['norm_ratio'])


def smoothed(counts: np.ndarray) -> np.ndarray:
    """Counts, (X, Y), smoothed over about two cells; their sum stays.

    Only at the edges some are lost.
    """
    return cv2.GaussianBlur(
        counts, (9, 9), 2**0.5, borderType=cv2.BORDER_CONSTANT
    )


def region_levels(density: np.ndarray, shares: Sequence[float]) -> list[float]:
    """Densities above which given shares, 0 .. 1, of the samples lie.

    Without samples there are none.
    """
    falling = np.sort(density.flatten())[::-1]
    total = falling.cumsum()
    if not len(total) or total[-1] <= 0:
        return []
    places = np.searchsorted(total / total[-1], shares)
    return falling[np.minimum(places, len(falling) - 1)].tolist()


def _radius(ratio: Any) -> Any:
    """Distance from the origin at which a norm ratio is drawn."""
    return np.log2(1 + np.asarray(ratio))


def draw_directions(analysis: Mapping[str, Any], out: Path) -> None:
    """Draw directions and norms of all students at the first tap, as PNG."""
    tap = next(iter(analysis['taps'].values()))
    names, groups = list(tap['students']), groups_of(tap)
    columns = min(len(names), 3)
    rows = -(-len(names) // columns)
    height = 2.2 if extent(tap)[0] > 90 else 3.7  # inches, of a row
    heights = [rows * height + 0.9, 0.42 * len(names) + 1.2]
    with matplotlib.rc_context(STYLE):
        figure = Figure((columns * 3.4, sum(heights)), layout='constrained')
        halves: Any = figure.subfigures(2, 1, height_ratios=heights)
        top, bottom = halves
        top.suptitle(
            "Where the students' features lie; the arrow is the teacher's.\n"
            f'{groups[0].capitalize()} {tap["samples"]}: medians, and regions '
            f'of 25, 50, 70 and 90 %',
            x=0.01,
            ha='left',
            fontsize=11,
            linespacing=1.5,
        )
        for place, name in enumerate(names, start=1):
            axes = top.add_subplot(rows, columns, place, projection='polar')
            polar(axes, tap, name)
        left, right = bottom.subplots(1, 2, sharey=True)
        intervals(left, tap, 'angle')
        intervals(right, tap, 'norm_ratio')
        marks = zip('●◆', groups, strict=False)
        left.set_title(
            ', '.join(f'{mark}: {group}' for mark, group in marks)
            + '; thick: middle half, thin: 5 to 95 %',
            color=MUTED,
        )
        figure.savefig(out, dpi=110)
