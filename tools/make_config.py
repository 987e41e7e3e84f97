"""Write the config that distils one model into another."""

import argparse
import sys

from lshfm_mm import cli
from lshfm_mm.utils.choices import LOSSES, TAPS


def main() -> None:
    """Parse the arguments and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'teacher', help="its config: a file or 'mmdet::path/in/configs.py'"
    )
    parser.add_argument('student', help='likewise; its data and schedule stay')
    parser.add_argument('-o', '--out', required=True, help='file to write')
    parser.add_argument(
        '--teacher-ckpt',
        help="file or URL of the teacher's weights (default: the model zoo's)",
    )
    parser.add_argument(
        '--student-ckpt', help='weights that the student starts from'
    )
    parser.add_argument(
        '--tap',
        help=f'one of {", ".join(TAPS)} (default: the first of these that '
        f'both models have, and the necks beside RoIs or in the place of an '
        f'inherited dense head)',
    )
    parser.add_argument(
        '--loss',
        default='recommended',
        help=f'one of {", ".join(LOSSES)} (default: %(default)s); cwd '
        f"compares maps, the last three are the paper's",
    )
    parser.add_argument(
        '--beta',
        type=float,
        help='weight of the losses, a quarter of it on the necks beside RoIs '
        '(default: 4 on RoIs and class towers, 6 for classifiers, 160 for '
        "cwd, but 10 with RoIs; of the paper's losses 7 for detectors, 6 for "
        'classifiers with one label; else 1); 0 writes the control, which '
        'mimics nothing',
    )
    parser.add_argument(
        '--force', action='store_true', help='overwrite the file'
    )
    args = parser.parse_args()
    cli.check_files(
        dict(teacher=args.teacher, student=args.student),
        dict(teacher_ckpt=args.teacher_ckpt, student_ckpt=args.student_ckpt),
    )
    print('reading both models ...', file=sys.stderr, flush=True)
    cli.load_stack()
    from lshfm_mm.pairing import write_config

    print(write_config(**vars(args)))
    print(f'check with: python tools/train.py {args.out} --check')
    print(f'train with: python tools/train.py {args.out}')


if __name__ == '__main__':
    cli.run_main(main)
