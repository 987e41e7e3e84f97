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

PANEL = (3.7, 2.9)  # inches, of a chart on the page: readable on a phone
REGIONS = (0.9, 0.7, 0.5, 0.25)  # shares of the samples in nested regions
NAMES = {
    'angle': 'angle to the teacher, degrees',
    'norm_ratio': "norm, in units of the teacher's",
    'equal_codes': 'share of equal hash codes',
}
DASHES = ('-', (0, (6, 2)), (0, (2, 1.5)), (0, (7, 2, 2, 2)), (0, (1, 1)))
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


def plane(tap: Mapping[str, Any], student: str, place: int) -> Draw:
    """Where a student's features lie, seen from the teacher's.

    The teacher's feature is the arrow for each sample. What differs in norm
    alone lies on its ray, and circles around its tip are equal L2 errors.

    Args:
        tap (dict): Of an analysis.
        student (str): Name of the student.
        place (int): Its place among the students.

    Returns:
        Callable: Draws on axes.
    """
    group = group_of(tap)
    found = tap['students'][student]
    counts = np.array(found['plane'][group]['counts'], float)
    x, y = (np.array(tap['plane_edges'][k]) for k in ('along', 'across'))
    far = y[-1]

    def draw(axes: Any, theme: Theme) -> None:
        colour = theme.series[place % len(theme.series)]
        turn = np.linspace(0, np.pi, 181)
        thin = dict(color=theme.grid, linewidth=0.8, zorder=1)
        for radius in np.arange(0.5, 2 * far, 0.5):
            axes.plot(1 + radius * np.cos(turn), radius * np.sin(turn), **thin)
        for degrees in (30, 60):
            end = 2 * far * np.exp(1j * np.deg2rad(degrees))
            axes.plot(
                [0, end.real],
                [0, end.imag],
                linestyle=(0, (4, 3)),
                **thin,
            )
            edge = 0.93 * far * np.exp(1j * np.deg2rad(degrees))
            axes.text(
                edge.real,
                edge.imag,
                f'{degrees}°',
                color=theme.muted,
                ha='center',
                va='center',
                fontsize=8,
            )
        density = smoothed(counts)
        middles = (x[1:] + x[:-1]) / 2, (y[1:] + y[:-1]) / 2
        for level in sorted(set(region_levels(density, REGIONS))):
            axes.contourf(
                *middles,
                density.T,
                levels=[level, density.max() + 1],
                colors=[colour],
                alpha=0.24,
                zorder=2,
            )
        axes.annotate(
            '',
            (1, 0),
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
        stats = found[group]
        angle, ratio = stats['angle']['median'], stats['norm_ratio']['median']
        if angle is not None and ratio is not None:
            point = ratio * np.exp(1j * np.deg2rad(angle))
            axes.plot(
                point.real,
                point.imag,
                marker='+',
                markersize=11,
                markeredgewidth=1.8,
                color=theme.ink,
                zorder=5,
            )
            axes.set_title(
                f'{student}: {angle:.0f}°, {ratio:.2f}',
                color=theme.ink,
                loc='left',
            )
        axes.set(
            xlim=(x[0], x[-1]),
            ylim=(0, far),
            aspect='equal',
            xlabel="along the teacher's feature",
            ylabel='across it',
        )

    return draw


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
        axes.legend(labelcolor=theme.ink, handlelength=2.4)

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
                marker='o' if len(curve) < 10 else None,
                markersize=4.5,
                label=name,
            )
        axes.set(xlabel='iteration', xlim=(0, None))
        axes.set_title(title, color=theme.ink, loc='left')
        axes.grid(axis='y', color=theme.grid, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.legend(labelcolor=theme.ink, handlelength=2.4)

    return draw


def draw_directions(analysis: Mapping[str, Any], out: Path) -> None:
    """Draw directions and magnitudes of all students, as one picture.

    Args:
        analysis (dict): Of :func:`lshfm_mm.analysis.analyze`.
        out (Path): The PNG file to write. The first tap is drawn.
    """
    pyplot = _pyplot()
    tap = next(iter(analysis['taps'].values()))
    names = list(tap['students'])
    columns = min(len(names), 3)
    rows = -(-len(names) // columns)
    edges = tap['plane_edges']
    shape = edges['across'][-1] / (edges['along'][-1] - edges['along'][0])
    width = 3.5
    with matplotlib.rc_context(STYLE):
        figure = pyplot.figure(
            figsize=(
                columns * width,
                rows * (width * shape + 0.45) + 0.5 + 0.42 * len(names) + 1.3,
            ),
            layout='constrained',
        )
        top, bottom = figure.subfigures(
            2,
            1,
            height_ratios=[
                rows * (width * shape + 0.45) + 0.5,
                0.42 * len(names) + 1.3,
            ],
        )
        top.suptitle(
            "Where the students' features lie: the teacher's is the arrow",
            x=0.01,
            ha='left',
            fontsize=12,
            color=LIGHT.ink,
        )
        grid = top.subplots(rows, columns, squeeze=False).flatten()
        for place, (axes, name) in enumerate(zip(grid, names, strict=False)):
            _ink(axes, LIGHT)
            plane(tap, name, place)(axes, LIGHT)
            axes.label_outer()
        for axes in grid[len(names) :]:
            axes.axis('off')
        line = bottom.subplots(1, 2)
        for axes, what in zip(line, ('angle', 'norm_ratio'), strict=True):
            _ink(axes, LIGHT)
            intervals(tap, what)(axes, LIGHT)
        line[1].set_yticklabels([])
        figure.savefig(out, dpi=110, facecolor='white')
        pyplot.close(figure)


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


def _scale(axes: Any, what: str, theme: Theme) -> None:
    """Axis of a statistic, and a line where the teacher is."""
    axes.set_xlabel(NAMES[what])
    if what == 'norm_ratio':
        axes.set_xscale('log', base=2)
        ticker = matplotlib.ticker
        axes.xaxis.set_major_locator(
            ticker.LogLocator(base=2, subs=(1, 1.5), numticks=20)
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
