"""Charts of an analysis, for its page and as a PNG.

There is one set of colours. The page inverts the charts where it is dark.
"""

import html
import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from cycler import cycler
from matplotlib import ticker
from matplotlib.figure import Figure

from .curves import Curve

PANEL = (3.7, 3.1)  # inches, of a chart on the page: readable on a phone
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
        draw (Callable): Such as those below; it gets axes and ``args``.
        args: Its other arguments.
        label (str): What the chart shows, for those who do not see it.
        size (tuple): Width and height in inches.
        projection (str, optional): That of the axes.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size, layout='constrained')
        draw(figure.add_subplot(projection=projection), *args)
        file = io.StringIO()
        nothing = dict.fromkeys(('Creator', 'Date', 'Format', 'Type'))
        figure.savefig(file, format='svg', transparent=True, metadata=nothing)
    _, text = file.getvalue().split('<svg', 1)
    # The ids of groups would be the same in all charts of a page.
    text = re.sub(r'<g id="[^"]*">', '<g>', text)
    return f'<svg role="img" aria-label="{html.escape(label)}"{text}'


def intervals(axes: Any, tap: Mapping[str, Any], what: str) -> None:
    """Draw the spread of a statistic, a line for each student and group.

    ``what`` is 'angle', 'norm_ratio' or 'equal_codes'.
    """
    groups, names = groups_of(tap), list(tap['students'])
    for row, name in enumerate(names):
        for step, group in enumerate(groups):
            stats = tap['students'][name][group][what]
            if stats['median'] is None:
                continue
            y = row + 0.34 * (step - (len(groups) - 1) / 2)
            for low, high, width in (
                ('q05', 'q95', 1),
                ('q25', 'q75', 2.2 if step else 4.5),
            ):
                ends = stats[low], stats[high]
                axes.hlines(y, *ends, color=f'C{row}', linewidth=width)
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

    Of a group: 'all', 'foreground' or 'background'.
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
        title (str): What the statistic is.
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


def group_of(tap: Mapping[str, Any]) -> str:
    """The group of samples that matters most."""
    return groups_of(tap)[0]


def groups_of(tap: Mapping[str, Any]) -> list[str]:
    """Foreground and background where they are told apart, else all."""
    student = next(iter(tap['students'].values()))
    groups = [x for x in ('foreground', 'background') if x in student]
    return groups or ['all']


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
