"""Generate shapes, a small data set for detection and classification."""

import argparse
import sys

from lshfm_mm import cli
from lshfm_mm.datasets.shapes import generate


def main() -> None:
    """Parse the arguments and generate."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument('root', help='folder to write to')
    parser.add_argument(
        '--num-train', type=int, default=800, help='training images'
    )
    parser.add_argument(
        '--num-val', type=int, default=200, help='validation images'
    )
    parser.add_argument(
        '--size', type=int, default=160, help='side of an image in pixels'
    )
    parser.add_argument('--seed', type=int, default=0, help='of the whole set')
    parser.add_argument(
        '--easy',
        action='store_true',
        help='large, upright shapes of strong colours, without clutter',
    )
    args = parser.parse_args()
    try:
        generate(**vars(args))
    except OSError as error:
        sys.exit(
            f'error: root: cannot write to {args.root} ({error}); take '
            f'another folder'
        )
    print(f'shapes: {args.root}')


if __name__ == '__main__':
    cli.run_main(main)
