"""Charts of an analysis, for a page of either theme and for a PNG.

On a page colours are CSS variables: matplotlib draws with stand-ins, which
are replaced in its SVG.
"""

import io
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np

from .curves import Curve

PANEL = (3.7, 3.1)  # inches, of a chart on the page: readable on a phone
REGIONS = (0.9, 0.7, 0.5, 0.25)  # shares of the samples in nested regions
NAMES = {
    'angle': 'angle to the teacher, degrees',
    'norm_ratio': "norm, in units of the teacher's",
    'equal_codes': 'share of equal hash codes',
}
DASHES = ('-', (0, (6, 2)), (0, (2, 1.5)), (0, (7, 2, 2, 2)), (0, (1, 1.2)))
STYLE: dict[Any, Any] = {
    'svg.fonttype': 'none',
    'svg.hashsalt': 'lshfm_mm',
    'font.family': 'sans-serif',
    'font.size': 9,
    'axes.titlesize': 10,
    'axes.spines.top': False,
    'axes.spines.right': False,
    'axes.linewidth': 0.8,
    'legend.frameon': False,
    'legend.fontsize': 8.5,
}


class Theme(NamedTuple):
    """Colours; a student has that of its place, modulo their number."""

    ink: str
    muted: str
    grid: str
    series: tuple[str, ...]


LIGHT = Theme(
    '#1c1e21',
    '#5c626a',
    '#dcdfe3',
    ('#6b6f76', '#c4560b', '#2164c4', '#7a45b8', '#0b7f57', '#b3296b'),
)
DARK = Theme(
    '#e8eaed',
    '#a3a9b1',
    '#3a3e44',
    ('#a9aeb6', '#f2975a', '#74aaf5', '#b895ee', '#43c795', '#f083b4'),
)
# Stand-ins for CSS variables, on the page.
PAGE = Theme(
    '#010101',
    '#010102',
    '#010103',
    tuple(f'#0102{i:02x}' for i in range(len(LIGHT.series))),
)
Draw = Callable[[Any, Theme], None]


def css(theme: Theme) -> str:
    """The colours of a theme as CSS variables."""
    named = {**theme._asdict(), **_series(theme)}
    named.pop('series')
    return ' '.join(f'--{name}: {colour};' for name, colour in named.items())


def svg(draw: Draw, label: str, size: tuple[float, float] = PANEL) -> str:
    """Draw one chart as inline SVG that follows the theme of the page.

    Args:
        draw (Callable): Draws on axes, in the colours of a theme.
        label (str): What the chart shows, for those who do not see it.
        size (tuple): Width and height, inches.

    Returns:
        str: The SVG element.
    """
    pyplot = _pyplot()
    with matplotlib.rc_context(STYLE):
        figure, axes = pyplot.subplots(figsize=size, layout='constrained')
        _ink(axes, PAGE)
        draw(axes, PAGE)
        text = io.StringIO()
        figure.savefig(
            text, format='svg', transparent=True, metadata={'Date': None}
        )
        pyplot.close(figure)
    found = text.getvalue()
    found = found[found.index('<svg') :]
    found = re.sub(r'<metadata>.*?</metadata>', '', found, flags=re.DOTALL)
    found = re.sub(r'<g id="[^"]*">', '<g>', found)
    found = re.sub(r'font: ([\d.]+)px [^;\"]*', r'font-size: \1px', found)
    found = re.sub(r'font-family: [^;"]*;?', '', found)
    for name, colour in {**PAGE._asdict(), **_series(PAGE)}.items():
        if name != 'series':
            found = found.replace(colour, f'var(--{name})')
    head = re.search(r'viewBox="[^"]*"', found)
    assert head is not None
    body = found[found.index('>') + 1 :]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" '
        f'xmlns:xlink="http://www.w3.org/1999/xlink" {head[0]} role="img" '
        f'aria-label="{_escaped(label)}">{body}'
    )


def polar(tap: Mapping[str, Any], student: str, place: int) -> Draw:
    """Where a student's features lie, seen from the teacher's.

    The teacher's feature is the arrow for each sample. Angles are true; the
    distance from the origin is ``log2(1 + norm ratio)``, for the sake of
    ratios far from 1.

    Args:
        tap (dict): Of an analysis.
        student (str): Name of the student.
        place (int): Its place among the students.

    Returns:
        Callable: Draws on axes.
    """
    group = group_of(tap)
    found = tap['students'][student]
    density = smoothed(np.array(found['joint'][group]['counts'], float))
    angle, ratio = (np.array(tap['bins'][x]) for x in ('angle', 'norm_ratio'))
    middles = (angle[1:] + angle[:-1]) / 2, np.sqrt(ratio[1:] * ratio[:-1])
    x, y = _place(middles[0][:, None], middles[1][None])
    widest, farthest = extent(tap)

    def draw(axes: Any, theme: Theme) -> None:
        colour = theme.series[place % len(theme.series)]
        turn = np.linspace(0, widest, 181)
        for norm in 2.0 ** np.arange(-1, 5):
            if norm <= farthest:
                axes.plot(
                    *_place(turn, norm),
                    color=theme.muted if norm == 1 else theme.grid,
                    linewidth=0.9,
                    zorder=1,
                )
                axes.text(
                    _place(0, norm)[0],
                    -0.03 * _place(0, farthest)[0],
                    f'{norm:g}',
                    color=theme.muted,
                    ha='center',
                    va='top',
                    fontsize=8,
                )
        for degrees in range(0, int(widest) + 1, 30):
            axes.plot(
                *_place(degrees, np.array([0, farthest])),
                color=theme.grid,
                linewidth=0.9,
                zorder=1,
            )
            axes.text(
                *(1.06 * z for z in _place(degrees, farthest)),
                f'{degrees}°',
                color=theme.muted,
                ha='center',
                va='center',
                fontsize=8,
            )
        for level in sorted(set(region_levels(density, REGIONS))):
            axes.contourf(
                x,
                y,
                density,
                levels=[level, density.max() + 1],
                colors=[colour],
                alpha=0.24,
                zorder=2,
            )
        axes.annotate(
            '',
            _place(0, 1),
            (0, 0),
            arrowprops=dict(
                arrowstyle='-|>',
                color=theme.ink,
                linewidth=1.8,
                shrinkA=0,
                shrinkB=0,
            ),
            zorder=4,
            annotation_clip=False,
        )
        middle = [found[group][k]['median'] for k in ('angle', 'norm_ratio')]
        title = student
        if None not in middle:
            axes.plot(
                *_place(*middle),
                marker='+',
                markersize=11,
                markeredgewidth=1.8,
                color=theme.ink,
                zorder=5,
            )
            title = f'{student}: {middle[0]:.0f}°, norm × {middle[1]:.2f}'
        axes.set_title(title, color=theme.ink, loc='left')
        rim = _place(0, farthest)[0]
        axes.set(
            xlim=(-rim * (1.12 if widest > 90 else 0.02), 1.12 * rim),
            ylim=(-0.12 * rim, 1.12 * rim),
            aspect='equal',
        )
        axes.axis('off')

    return draw


def extent(tap: Mapping[str, Any]) -> tuple[float, float]:
    """Angle and norm ratio up to which almost all samples of a tap lie.

    Args:
        tap (dict): Of an analysis.

    Returns:
        tuple[float, float]: 90 or 180 degrees, and a ratio of 2 or more.
    """
    widest, farthest = 90.0, 2.0
    for found in tap['students'].values():
        counts = np.array(found['joint'][group_of(tap)]['counts'], float)
        if not counts.sum():
            continue
        shares = [counts.sum(axis=x).cumsum() / counts.sum() for x in (1, 0)]
        reached = [
            tap['bins'][name][1 + int(np.searchsorted(share, 0.99))]
            for name, share in zip(
                ('angle', 'norm_ratio'), shares, strict=True
            )
        ]
        widest = 180.0 if reached[0] > 90 else widest
        farthest = max(farthest, reached[1])
    return widest, farthest


def _place(angle: Any, ratio: Any) -> tuple[Any, Any]:
    """Where a feature is drawn: of degrees and a norm ratio."""
    turn, length = np.deg2rad(angle), np.log2(1 + np.asarray(ratio))
    return length * np.cos(turn), length * np.sin(turn)


def intervals(tap: Mapping[str, Any], what: str) -> Draw:
    """Spread of a statistic, a line for each student and group.

    Args:
        tap (dict): Of an analysis.
        what (str): 'angle', 'norm_ratio' or 'equal_codes'.

    Returns:
        Callable: Draws on axes.
    """
    groups = groups_of(tap)

    def draw(axes: Any, theme: Theme) -> None:
        names = list(tap['students'])
        for row, name in enumerate(names):
            colour = theme.series[row % len(theme.series)]
            for step, group in enumerate(groups):
                stats = tap['students'][name][group][what]
                if stats['median'] is None:
                    continue
                y = row + 0.34 * (step - (len(groups) - 1) / 2)
                line = dict(color=colour, solid_capstyle='butt')
                axes.plot(
                    [stats['q05'], stats['q95']], [y, y], linewidth=1, **line
                )
                axes.plot(
                    [stats['q25'], stats['q75']],
                    [y, y],
                    linewidth=4.5 if step == 0 else 2.2,
                    **line,
                )
                axes.plot(
                    stats['median'],
                    y,
                    marker='o' if step == 0 else 'D',
                    markersize=6 if step == 0 else 4.5,
                    color=theme.ink,
                )
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.4, -0.6)
        _scale(axes, what, theme)
        axes.grid(axis='x', color=theme.grid, linewidth=0.6)
        axes.set_axisbelow(True)

    return draw


def histograms(tap: Mapping[str, Any], what: str, group: str) -> Draw:
    """Distributions of a statistic, a line for each student.

    Args:
        tap (dict): Of an analysis.
        what (str): 'angle', 'norm_ratio' or 'equal_codes'.
        group (str): 'all', 'foreground' or 'background'.

    Returns:
        Callable: Draws on axes.
    """
    edges = np.array(tap['bins'][what])

    def draw(axes: Any, theme: Theme) -> None:
        used = np.zeros(len(edges) - 1, bool)
        for row, (name, found) in enumerate(tap['students'].items()):
            bins = found[group][what]['histogram']
            counts = np.array(bins['counts'], float)
            share = counts / max(
                counts.sum() + bins['below'] + bins['above'], 1
            )
            used |= share > 1e-3
            axes.stairs(
                100 * share,
                edges,
                color=theme.series[row % len(theme.series)],
                linestyle=DASHES[row % len(DASHES)],
                linewidth=1.5,
                label=name,
            )
        if used.any():
            low, high = used.nonzero()[0][[0, -1]]
            axes.set_xlim(edges[low], edges[high + 1])
        axes.set_ylim(bottom=0)
        _scale(axes, what, theme)
        axes.set_ylabel('% of samples')
        _legend(axes, theme)

    return draw


def curves(
    found: Mapping[str, Curve], order: Sequence[str], title: str
) -> Draw:
    """A statistic over a training, a line for each student.

    Args:
        found (dict): Name of a student -> its curve.
        order (list[str]): All students, whose places give the colours.
        title (str): What it is.

    Returns:
        Callable: Draws on axes.
    """

    def draw(axes: Any, theme: Theme) -> None:
        for name, curve in found.items():
            row = order.index(name)
            axes.plot(
                *zip(*curve, strict=True),
                color=theme.series[row % len(theme.series)],
                linestyle=DASHES[row % len(DASHES)],
                linewidth=1.5,
                marker='o' if len(curve) < 20 else None,
                markersize=3.5,
                label=name,
            )
        values = [y for curve in found.values() for _, y in curve]
        if min(values) > 0 and max(values) > 20 * min(values):
            axes.set_yscale('log')
        axes.set(xlabel='iteration', xlim=(0, None))
        axes.set_title(title, color=theme.ink, loc='left')
        axes.grid(axis='y', color=theme.grid, linewidth=0.6)
        axes.set_axisbelow(True)
        _legend(axes, theme)

    return draw


def draw_directions(analysis: Mapping[str, Any], out: Path) -> None:
    """Draw directions and magnitudes of all students, as one picture.

    Args:
        analysis (dict): Of :func:`lshfm_mm.analysis.analyze`.
        out (Path): The PNG file to write. The first tap is drawn.
    """
    pyplot = _pyplot()
    tap = next(iter(analysis['taps'].values()))
    names, group = list(tap['students']), group_of(tap)
    columns = min(len(names), 3)
    rows = -(-len(names) // columns)
    width = 3.4
    shape = 0.56 if extent(tap)[0] > 90 else 1.05
    heights = [rows * (width * shape + 0.2) + 0.9, 0.42 * len(names) + 1.2]
    with matplotlib.rc_context(STYLE):
        figure = pyplot.figure(
            figsize=(columns * width, sum(heights)), layout='constrained'
        )
        top, bottom = figure.subfigures(2, 1, height_ratios=heights)
        top.suptitle(
            "Where the students' features lie; the arrow is the teacher's.\n"
            f'{group.capitalize()} {tap["samples"]}: medians, and regions of '
            f'25, 50, 70 and 90 %',
            x=0.01,
            ha='left',
            fontsize=11,
            linespacing=1.5,
            color=LIGHT.ink,
        )
        grid = top.subplots(rows, columns, squeeze=False).flatten()
        for place, (axes, name) in enumerate(zip(grid, names, strict=False)):
            polar(tap, name, place)(axes, LIGHT)
        for axes in grid[len(names) :]:
            axes.axis('off')
        line = bottom.subplots(1, 2)
        for axes, what in zip(line, ('angle', 'norm_ratio'), strict=True):
            _ink(axes, LIGHT)
            intervals(tap, what)(axes, LIGHT)
        line[0].set_title(_key(groups_of(tap)), color=LIGHT.muted, loc='left')
        line[1].set_yticklabels([])
        figure.savefig(out, dpi=110, facecolor='white')
        pyplot.close(figure)


def _key(groups: Sequence[str]) -> str:
    """What marks and lines of the intervals are."""
    marks = ', '.join(
        f'{mark}: {x}' for mark, x in zip('●◆', groups, strict=False)
    )
    return f'{marks}; thick: middle half, thin: 5 to 95 %'


def group_of(tap: Mapping[str, Any]) -> str:
    """The group of samples that matters most."""
    return groups_of(tap)[0]


def groups_of(tap: Mapping[str, Any]) -> list[str]:
    """Foreground and background where they are told apart, else all."""
    found = next(iter(tap['students'].values()))
    groups = [x for x in ('foreground', 'background') if x in found]
    return groups or ['all']


def smoothed(counts: np.ndarray) -> np.ndarray:
    """Counts, smoothed over about two cells; their sum stays, but for edges.

    Args:
        counts (np.ndarray): (X, Y).

    Returns:
        np.ndarray: (X, Y).
    """
    kernel = np.array([1, 4, 6, 4, 1]) / 16
    for axis in (0, 1, 0, 1):
        counts = np.apply_along_axis(np.convolve, axis, counts, kernel, 'same')
    return counts


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


def _legend(axes: Any, theme: Theme) -> None:
    """Below the axes, where it hides no line."""
    axes.figure.legend(
        loc='outside lower center',
        ncols=3,
        labelcolor=theme.ink,
        handlelength=2.4,
        columnspacing=1.2,
    )


def _scale(axes: Any, what: str, theme: Theme) -> None:
    """Axis of a statistic, and a line where the teacher is."""
    axes.set_xlabel(NAMES[what])
    if what == 'norm_ratio':
        axes.set_xscale('log', base=2)
        low, high = axes.get_xlim()
        ticker = matplotlib.ticker
        axes.xaxis.set_major_locator(
            ticker.LogLocator(
                base=2, subs=(1, 1.5) if high < 4 * low else (1,), numticks=20
            )
        )
        axes.xaxis.set_major_formatter(
            ticker.FuncFormatter(lambda x, _: f'{x:.3g}')
        )
        axes.xaxis.set_minor_locator(ticker.NullLocator())
    same = {'angle': 0.0, 'norm_ratio': 1.0, 'equal_codes': 1.0}[what]
    low, high = axes.get_xlim()
    if low <= same <= high:
        axes.axvline(same, color=theme.ink, linewidth=0.9, zorder=0.5)


def _ink(axes: Any, theme: Theme) -> None:
    axes.tick_params(color=theme.muted, labelcolor=theme.muted)
    for spine in axes.spines.values():
        spine.set_color(theme.muted)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_color(theme.muted)


def _series(theme: Theme) -> dict[str, str]:
    return {f's{i}': x for i, x in enumerate(theme.series)}


def _escaped(text: str) -> str:
    for sign, name in (('&', '&amp;'), ('"', '&quot;'), ('<', '&lt;')):
        text = text.replace(sign, name)
    return text


def _pyplot() -> Any:
    matplotlib.use('Agg')
    from matplotlib import pyplot, ticker  # noqa: F401

    return pyplot
