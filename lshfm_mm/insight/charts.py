"""Charts of an analysis, for its page and as a PNG.

There is one set of colours. The page inverts the charts where it is dark.
"""

import html
import io
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import matplotlib
import numpy as np
from cycler import cycler
from matplotlib import ticker
from matplotlib.figure import Figure

from .curves import Curve

PANEL = (3.7, 3.1)  # inches, of a chart on the page: readable on a phone
REGIONS = (0.9, 0.7, 0.5, 0.25)  # shares of the samples in nested regions
NAMES = {
    'angle': 'angle to the teacher, degrees',
    'norm_ratio': "norm, in units of the teacher's",
    'equal_codes': 'share of equal hash codes',
}
SAME = {'angle': 0.0, 'norm_ratio': 1.0, 'equal_codes': 1.0}
DASHES = ('-', (0, (6, 2)), (0, (2, 1.5)), (0, (7, 2, 2, 2)), (0, (1, 1.2)))
INK, MUTED, GRID = '#1c1e21', '#5c626a', '#dcdfe3'
# A student has the colour of its place, modulo their number: 'C0', 'C1', ...
SERIES = ('#6b6f76', '#c4560b', '#2164c4', '#7a45b8', '#0b7f57', '#b3296b')
STYLE: dict[Any, Any] = {
    'svg.fonttype': 'none',
    'svg.hashsalt': 'lshfm_mm',
    'font.family': 'DejaVu Sans',
    'font.size': 9,
    'text.color': INK,
    'axes.prop_cycle': cycler(color=SERIES),
    'axes.titlesize': 10,
    'axes.titlelocation': 'left',
    'axes.labelcolor': MUTED,
    'axes.edgecolor': MUTED,
    'axes.linewidth': 0.8,
    'axes.spines.top': False,
    'axes.spines.right': False,
    'axes.axisbelow': True,
    'xtick.color': MUTED,
    'ytick.color': MUTED,
    'grid.color': GRID,
    'grid.linewidth': 0.6,
    'legend.frameon': False,
    'legend.fontsize': 8.5,
}


def svg(
    draw: Callable[..., None],
    *args: Any,
    label: str,
    size: tuple[float, float] = PANEL,
    projection: str | None = None,
) -> str:
    """Draw one chart as an SVG element.

    Args:
        draw (Callable): A function below; it gets axes and ``args``.
        args: Its other arguments.
        label (str): What the chart shows, for those who do not see it.
        size (tuple): Width and height in inches.
        projection (str, optional): That of the axes.

    Returns:
        str: The SVG element.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size, layout='constrained')
        draw(figure.add_subplot(projection=projection), *args)
        file = io.StringIO()
        nothing = dict.fromkeys(('Creator', 'Date', 'Format', 'Type'))
        figure.savefig(file, format='svg', transparent=True, metadata=nothing)
    text = file.getvalue()
    text = text[text.index('<svg') :]
    # The ids of groups would be the same in all charts of a page.
    text = re.sub(r'<g id="[^"]*">', '<g>', text)
    named = f'<svg role="img" aria-label="{html.escape(label)}"'
    return text.replace('<svg', named, 1)


def polar(axes: Any, tap: Mapping[str, Any], name: str) -> None:
    """Draw where a student's features lie, seen from the teacher's.

    The teacher's feature is the arrow for each sample. Angles are true. The
    distance from the origin is ``log2(1 + norm ratio)``, so that ratios far
    from 1 fit in.

    Args:
        axes (PolarAxes): Where to draw.
        tap (dict): Of an analysis.
        name (str): Name of the student.
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

    Args:
        tap (dict): Of an analysis.

    Returns:
        tuple[float, float]: 90 or 180 degrees, and a ratio of 2 or more.
    """
    widest, farthest = 90.0, 2.0
    for student in tap['students'].values():
        counts = np.array(student['joint'][group_of(tap)]['counts'], float)
        if not counts.sum():
            continue
        angle, ratio = (
            tap['bins'][name][
                1 + np.searchsorted(part.cumsum(), 0.99 * counts.sum())
            ]
            for name, part in (
                ('angle', counts.sum(axis=1)),
                ('norm_ratio', counts.sum(axis=0)),
            )
        )
        widest = 180.0 if angle > 90 else widest
        farthest = max(farthest, ratio)
    return widest, farthest


def intervals(axes: Any, tap: Mapping[str, Any], what: str) -> None:
    """Draw the spread of a statistic, a line for each student and group.

    Args:
        axes (Axes): Where to draw.
        tap (dict): Of an analysis.
        what (str): 'angle', 'norm_ratio' or 'equal_codes'.
    """
    groups, names = groups_of(tap), list(tap['students'])
    for row, name in enumerate(names):
        for step, group in enumerate(groups):
            stats = tap['students'][name][group][what]
            if stats['median'] is None:
                continue
            y = row + 0.34 * (step - (len(groups) - 1) / 2)
            for ends, width in (
                (('q05', 'q95'), 1),
                (('q25', 'q75'), 2.2 if step else 4.5),
            ):
                axes.hlines(
                    y,
                    *(stats[x] for x in ends),
                    color=f'C{row}',
                    linewidth=width,
                )
            axes.plot(
                stats['median'],
                y,
                marker='D' if step else 'o',
                markersize=4.5 if step else 6,
                color=INK,
            )
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    _scale(axes, what)
    axes.grid(axis='x')


def histograms(
    axes: Any, tap: Mapping[str, Any], what: str, group: str
) -> None:
    """Draw distributions of a statistic, a line for each student.

    Args:
        axes (Axes): Where to draw.
        tap (dict): Of an analysis.
        what (str): 'angle', 'norm_ratio' or 'equal_codes'.
        group (str): 'all', 'foreground' or 'background'.
    """
    edges = np.array(tap['bins'][what])
    used = np.zeros(len(edges) - 1, bool)
    for place, (name, student) in enumerate(tap['students'].items()):
        bins = student[group][what]['histogram']
        counts = np.array(bins['counts'], float)
        total = counts.sum() + bins['below'] + bins['above']
        share = counts / max(total, 1)
        used |= share > 1e-3
        axes.stairs(100 * share, edges, label=name, **_line(place))
    if used.any():
        low, high = used.nonzero()[0][[0, -1]]
        axes.set_xlim(edges[low], edges[high + 1])
    axes.set_ylim(bottom=0)
    _scale(axes, what)
    axes.set_ylabel('% of samples')
    _legend(axes)


def curves(
    axes: Any, lines: Mapping[str, Curve], order: Sequence[str], title: str
) -> None:
    """Draw a statistic over a training, a line for each student.

    Args:
        axes (Axes): Where to draw.
        lines (dict): Name of a student -> its curve.
        order (list[str]): All students, whose places give the colours.
        title (str): What it is.
    """
    for name, curve in lines.items():
        axes.plot(
            *zip(*curve, strict=True),
            marker='o' if len(curve) < 20 else None,
            markersize=3.5,
            label=name,
            **_line(order.index(name)),
        )
    values = [y for curve in lines.values() for _, y in curve]
    if min(values) > 0 and max(values) > 20 * min(values):
        axes.set_yscale('log')
    axes.set(xlabel='iteration', xlim=(0, None), title=title)
    axes.grid(axis='y')
    _legend(axes)


def draw_directions(analysis: Mapping[str, Any], out: Path) -> None:
    """Draw directions and magnitudes of all students, as one picture.

    Args:
        analysis (dict): Of :func:`lshfm_mm.insight.analyze`.
        out (Path): The PNG file to write. The first tap is drawn.
    """
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
            polar(
                top.add_subplot(rows, columns, place, projection='polar'),
                tap,
                name,
            )
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


def group_of(tap: Mapping[str, Any]) -> str:
    """The group of samples that matters most."""
    return groups_of(tap)[0]


def groups_of(tap: Mapping[str, Any]) -> list[str]:
    """Foreground and background where they are told apart, else all."""
    student = next(iter(tap['students'].values()))
    groups = [x for x in ('foreground', 'background') if x in student]
    return groups or ['all']


def smoothed(counts: np.ndarray) -> np.ndarray:
    """Counts, smoothed over about two cells; their sum stays, but for edges.

    Args:
        counts (np.ndarray): float64, (X, Y).

    Returns:
        np.ndarray: (X, Y).
    """
    return cv2.GaussianBlur(
        counts, (9, 9), 2**0.5, borderType=cv2.BORDER_CONSTANT
    )


def region_levels(density: np.ndarray, shares: Sequence[float]) -> list[float]:
    """Densities above which given shares of the samples lie.

    Args:
        density (np.ndarray): Of any shape.
        shares (list[float]): In 0 .. 1.

    Returns:
        list[float]: A level for each share; none without samples.
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


def _line(place: int) -> dict[str, Any]:
    """Colour and dashes of the student of a place."""
    dashes = DASHES[place % len(DASHES)]
    return dict(color=f'C{place}', linestyle=dashes, linewidth=1.5)


def _legend(axes: Any) -> None:
    """Below the axes, where it hides no line."""
    axes.figure.legend(
        loc='outside lower center',
        ncols=3,
        handlelength=2.4,
        columnspacing=1.2,
    )


def _scale(axes: Any, what: str) -> None:
    """Axis of a statistic, and a line where the teacher is."""
    axes.set_xlabel(NAMES[what])
    if what == 'norm_ratio':
        axes.set_xscale('log', base=2)
        low, high = axes.get_xlim()
        between = (1, 1.5) if high < 4 * low else (1,)
        axes.xaxis.set(
            major_locator=ticker.LogLocator(2, between, numticks=20),
            major_formatter=ticker.FuncFormatter(lambda x, _: f'{x:.3g}'),
            minor_locator=ticker.NullLocator(),
        )
    low, high = axes.get_xlim()
    if low <= SAME[what] <= high:
        axes.axvline(SAME[what], color=INK, linewidth=0.9, zorder=0.5)
