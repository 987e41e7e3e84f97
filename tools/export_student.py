"""Write the student of a training checkpoint as a plain checkpoint."""

import argparse

from lshfm_mm import cli


def main() -> None:
    """Parse the arguments and export."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('checkpoint', help='training checkpoint, or its URL')
    parser.add_argument('-o', '--out', required=True, help='file to write')
    parser.add_argument(
        '--force', action='store_true', help='overwrite an existing file'
    )
    parser.add_argument(
        '--config',
        help="config of the training: writes the student's own beside OUT, "
        'and folds its embedding',
    )
    args = parser.parse_args()
    cli.check_files(dict(config=args.config), dict(checkpoint=args.checkpoint))
    cli.load_stack()
    from lshfm_mm.export import export_student

    print(export_student(**vars(args)))


if __name__ == '__main__':
    cli.run_main(main)
