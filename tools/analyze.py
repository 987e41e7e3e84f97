"""Compare students with their teacher: numbers, a picture and a page.

All are looked at on the same validation images and the same boxes. Writes
analysis.json, directions.png and report.html, which needs no other file.
"""

import argparse
from pathlib import Path

from lshfm_mm import cli


def main() -> None:
    """Parse the arguments, compare and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'config', help='of a distillation: gives teacher, taps and data'
    )
    parser.add_argument(
        'students',
        nargs='+',
        metavar='NAME=CHECKPOINT',
        help='a training checkpoint or an exported one; of the student '
        'alone, too',
    )
    parser.add_argument('--out', required=True, help='folder to write to')
    parser.add_argument(
        '--work-dirs',
        nargs='+',
        default=[],
        metavar='NAME=FOLDER',
        help="of the trainings, for the curves (default: the checkpoint's "
        'folder)',
    )
    parser.add_argument(
        '--num-images',
        type=int,
        default=200,
        help='compare the first N images (default: %(default)s)',
    )
    parser.add_argument(
        '--images',
        nargs='+',
        default=6,
        metavar='FILE',
        help='names of validation images to show (default: the first '
        '%(default)s)',
    )
    parser.add_argument(
        '--seed', type=int, default=0, help='of the boxes (default: 0)'
    )
    args = parser.parse_args()
    students = cli.parse_names('students', args.students)
    folders = cli.parse_names('work-dirs', args.work_dirs)
    cli.check_files(dict(config=args.config))
    for checkpoint in students.values():
        cli.check_files(checkpoints=dict(checkpoint=checkpoint))
    cli.load_stack()
    from lshfm_mm.insight import analyze, write_report

    analysis, images = analyze(
        args.config,
        students,
        folders,
        args.num_images,
        args.images,
        args.seed,
    )
    for path in write_report(analysis, images, Path(args.out)):
        print(path)


if __name__ == '__main__':
    cli.run_main(main)
