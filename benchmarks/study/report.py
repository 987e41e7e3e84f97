"""The pages and plots of the study, from what was recorded alone."""

import hashlib
import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import grid
import markdown_tables as tables
import matplotlib.pyplot as plt
import numpy as np
import why
from results import Row, rows, teacher
from runs import REPO, Record

from lshfm_mm.insight.charts import GRID, MUTED, SERIES, STYLE
from lshfm_mm.utils.files import atomic_write

PAGES = tuple(
    REPO / x
    for x in (
        'docs/results.md',
        'docs/results_shapes.md',
        'docs/results_photographs.md',
        'docs/results_ablations.md',
        'docs/recipes.md',
        'README.md',
    )
)
IMAGES = REPO / 'docs/images'
WIDTH = 50  # characters of a label, so that the title has room


def plot(records: Mapping[str, Record], experiment: str, out: Path) -> None:
    """Draw seeds and mean of each method, the baseline and the teacher."""
    spec = grid.EXPERIMENTS[experiment]
    found = rows(records, experiment)
    best = teacher(records, experiment)
    labels = names_in_plot(found)
    lines = [*labels]
    height = 0.27 * '\n'.join(labels.values()).count('\n')
    heads: dict[str, str] = {}
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            figsize=(7.2, 1.47 + height), layout='constrained'
        )
        for row in found:
            inherits = row.title != row.method
            colour = SERIES[1 if inherits else 2]
            heads['inherited head' if inherits else 'own head'] = colour
            place = lines.index(row.method)
            axes.plot(
                row.values,
                [place] * len(row.values),
                '.',
                color=colour,
                alpha=0.45,
            )
            axes.plot(np.mean(row.values), place, 'D', color=colour, ms=5)
        for label, colour in heads.items():
            axes.plot([], [], 'D', color=colour, ms=5, label=f'{label}: mean')
            axes.plot([], [], '.', color=colour, alpha=0.45, label='a seed')
        # The first method is none: what it comes to, with either head.
        for row in found:
            if row.method == lines[0]:
                colour = SERIES[1 if row.title != row.method else 2]
                axes.axvline(
                    np.mean(row.values), color=colour, ls=(0, (2, 2)), lw=0.9
                )
        axes.plot([], [], color=MUTED, ls=(0, (2, 2)), label=lines[0])
        if best is not None:
            axes.axvline(
                best[1], color=MUTED, lw=0.9, label=f'teacher: {best[1]:.1f}'
            )
        figure.legend(loc='outside lower right', ncols=3)
        axes.set_yticks(range(len(lines)), labels.values())
        axes.set_ylim(len(lines) - 0.5, -0.5)
        axes.grid(axis='x', color=GRID)
        shown = [x for row in found for x in row.values]
        shown += [best[1]] if best else []
        room = 0.04 * (max(shown) - min(shown) or 1)
        axes.set_xlim(min(shown) - room, max(shown) + room)
        axes.set_axisbelow(True)
        axes.tick_params(axis='y', length=0)
        images = 'photographs' if spec.on_photographs else 'shapes'
        axes.set_xlabel(f'{tables.name_of(experiment)} in %, {images}')
        axes.set_title(spec.title, loc='left')
        with atomic_write(out) as partial:
            drawn = {'Description': content(records, experiment)}
            figure.savefig(partial, dpi=110, facecolor='white', metadata=drawn)
        plt.close(figure)


def names_in_plot(found: Sequence[Row]) -> dict[str, str]:
    """Names of methods, over several lines if they are long.

    Returns:
        dict[str, str]: Title, without that of the head -> name.
    """
    names: dict[str, str] = {}
    for row in found:
        names.setdefault(row.method, row.method)
        if row.is_recommended:
            names[row.method] += ' (recommended)'
    return {k: '\n'.join(textwrap.wrap(v, WIDTH)) for k, v in names.items()}


def content(records: Mapping[str, Record], name: str) -> str:
    """What a plot shows, for the file itself."""
    shown: list[object] = (
        [*why.points(records)]
        if name == 'why'
        else [
            teacher(records, name),
            *(
                (x.title, x.values, x.is_recommended)
                for x in rows(records, name)
            ),
        ]
    )
    return hashlib.sha256(repr(shown).encode()).hexdigest()


def parts(records: Mapping[str, Record]) -> dict[str, str]:
    """What stands between marks of the pages, by their names."""
    found = {
        'cost': tables.cost(records),
        'short': tables.short(records),
        'expected': tables.expected(records),
        'why': why.sentence(records),
    }
    for name in grid.EXPERIMENTS:
        if len(rows(records, name)) > 1:
            found[name] = tables.table(records, name)
        if tuned := tables.tuning_table(records, name):
            found[f'{name} tuning'] = tuned
        if pairs := tables.pairs_table(records, name):
            found[f'{name} pairs'] = pairs
        if again := tables.new_seeds_table(records, name):
            found[f'{name} new seeds'] = again
    return found


def unmarked(records: Mapping[str, Record]) -> list[str]:
    """Names of parts that stand on no page."""
    pages = ' '.join(page.read_text('utf-8') for page in PAGES)
    return [x for x in parts(records) if f'<!-- study: {x} -->' not in pages]


def filled(page: str, found: Mapping[str, str]) -> str:
    """A page with what was recorded between its marks."""

    def part(match: re.Match[str]) -> str:
        text = found.get(match[1], '(not run yet)')
        return f'<!-- study: {match[1]} -->\n\n{text}\n\n<!-- end -->'

    pattern = r'<!-- study: (.+?) -->\n.*?<!-- end -->'
    return re.sub(pattern, part, page, flags=re.S)


def write(records: Mapping[str, Record]) -> Sequence[Path]:
    """Fill the pages and draw the plots.

    Args:
        records (dict): What was recorded, by the names of the runs.

    Returns:
        list[Path]: What was written.
    """
    found = parts(records)
    for page in PAGES:
        text = filled(page.read_text('utf-8'), found)
        with atomic_write(page) as partial:
            partial.write_text(text, 'utf-8')
    written = [*PAGES, IMAGES / 'study_why.png']
    why.plot(records, written[-1], content(records, 'why'))
    for name in grid.EXPERIMENTS:
        if len(rows(records, name)) > 1:
            written.append(IMAGES / f'study_{name}.png')
            plot(records, name, written[-1])
    return written
