"""Get photographs under free licences, to detect and to classify in."""

import argparse
import sys

from lshfm_mm import cli
from lshfm_mm.datasets.photographs import SOURCES, get_photographs


def main() -> None:
    """Parse the arguments and get them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('name', choices=SOURCES)
    parser.add_argument('out', help='folder to write to')
    parser.add_argument(
        '--source',
        help='folder, zip archive or URL of one to take (default: the '
        'published archive, from GitHub)',
    )
    args = parser.parse_args()
    try:
        print(get_photographs(**vars(args)), end='')
    except OSError as error:
        sys.exit(
            f'error: out: cannot write to {args.out} ({error}); take another '
            f'folder'
        )
    print(f'{args.name}: {args.out}')


if __name__ == '__main__':
    cli.run_main(main)
