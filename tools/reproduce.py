"""Train and evaluate all models of a row of a published table.

It trains the teacher, unless its weights are there, the student alone and
the distilled ones, and prints what was published beside what came out.
Interrupted, it goes on where it was; what is finished is not done again.
Everything lies in work_dirs/, data in data/, as the configs say. Steps have
the images of the published recipe, spread over the GPUs.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

from lshfm_mm import cli
from lshfm_mm.cli.chain import Chain, table, typed
from lshfm_mm.cli.reproduction import Arm, Row, find_rows, read_row
from lshfm_mm.errors import ConfigError, nearest

WORK = Path('work_dirs')


def row_of(words: list[str]) -> str:
    """The name of a row, however it is spelt."""
    rows = [*find_rows()]
    given = ' '.join(words).replace('_', '-')
    for row in rows:
        if row.replace('_', '-') == given:
            return row
    meant = nearest(' '.join(words), rows)
    raise ConfigError(
        f'row: there is no {" ".join(words)!r}{meant or ""}; --list prints '
        f'all rows'
    )


def chosen(row: Row, only: list[str]) -> dict[str, Arm]:
    """The students to train."""
    if wrong := {*only} - {*row.arms}:
        raise ConfigError(
            f'only: this row has no {", ".join(sorted(wrong))}; it has '
            f'{", ".join(row.arms)}'
        )
    return {k: v for k, v in row.arms.items() if not only or k in only}


def commands(row: Row, arms: dict[str, Arm], chain: Chain) -> Iterator[str]:
    """What is left to do, as one would type it."""
    teacher = row.teacher
    if not (chain.is_trained(teacher.run) or teacher.is_there):
        yield from chain.commands(teacher.run)
    tests = [(teacher.run.name, teacher.config, teacher.checkpoint)]
    for arm in arms.values():
        for run in arm.runs:
            yield from chain.commands(run)
        config, model = (chain.file(run, x) for x in ('.py', '.pth'))
        tests.append((run.name, config, model))
    for test in tests:
        if not chain.is_tested(test[0]):
            yield typed(chain.testing(*test))


def reproduce(row: Row, arms: dict[str, Arm], chain: Chain) -> str:
    """Do what is not done yet; the table."""
    teacher, recipe = row.teacher, row.recipe
    if not (chain.is_trained(teacher.run) or teacher.is_there):
        chain.train(teacher.run)
    found = chain.test(teacher.run.name, teacher.config, teacher.checkpoint)
    reached = [('teacher', teacher.published, found)]
    for arm in arms.values():
        for run in arm.runs:
            chain.train(run)
        reached.append((arm.title, arm.published, chain.evaluate(run)))
    lines = []
    for title, published, metrics in reached:
        own = recipe.factor * metrics[recipe.metric]
        line = [title, '-', f'{own:.2f}', '-']
        if published is not None:
            line[1::2] = f'{published:g}', f'{own - published:+.2f}'
        lines.append(line)
    return table([recipe.metric, 'published', 'own', 'difference'], lines)


def main() -> None:
    """Do what is not done yet, then print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'row', nargs='*', help="such as 'voc faster_rcnn r101_r50'"
    )
    parser.add_argument(
        '--list', action='store_true', help='print all rows, and stop'
    )
    parser.add_argument(
        '--dry-run', action='store_true', help='print what is left, and stop'
    )
    parser.add_argument(
        '--only', nargs='+', default=[], help='students, such as lsh lshl2'
    )
    parser.add_argument('--gpus', type=int, default=1, help='of a training')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        default=[],
        metavar='KEY=VALUE',
        help='changes of all configs',
    )
    args = parser.parse_args()
    if args.list:
        print('\n'.join(find_rows()))
        return
    name = row_of(args.row)
    cli.load_stack()
    row = read_row(name)
    arms = chosen(row, args.only)
    batch = row.recipe.batch
    if args.gpus < 1 or batch % args.gpus:
        raise ConfigError(
            f'gpus: {args.gpus} cannot share the {batch} images of a step; '
            f'take a number that divides them'
        )
    chain = Chain(WORK, gpus=args.gpus, batch=batch, options=args.cfg_options)
    print(
        f'each training: {row.epochs} epochs, {row.steps} steps of '
        f'{batch} images',
        flush=True,
    )
    if args.dry_run:
        print('\n'.join(commands(row, arms, chain)))
    else:
        print(reproduce(row, arms, chain))


if __name__ == '__main__':
    cli.run_main(main, stopped='reproduce: stopped')
