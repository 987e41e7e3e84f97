"""Train a model or a distillation: the train tool of mmdet or mmpretrain.

Beside its arguments there are two flags.
"""

import argparse
import sys
import tempfile

from lshfm_mm import cli
from lshfm_mm.datasets.check_files import check_data, check_weights_files
from lshfm_mm.utils.configs import read_config


def main() -> None:
    """Check what the config needs, then train."""
    parser = argparse.ArgumentParser(
        usage=argparse.SUPPRESS, add_help=False, allow_abbrev=False
    )
    ours = parser.add_argument_group('options of lshfm_mm')
    ours.add_argument(
        '--check',
        action='store_true',
        help='audit a batch, evaluate one, stop before the first update; the '
        'gradients of losses are only compared in a training',
    )
    ours.add_argument(
        '--check-teacher',
        action='store_true',
        help='evaluate the teacher of a distillation on the validation set '
        'first',
    )
    flags, sys.argv[1:] = parser.parse_known_args()
    tool = cli.upstream_tool('train', sys.argv[1:])
    try:
        args = tool.parse_args()
    except SystemExit:
        if {'-h', '--help'} & {*sys.argv}:  # upstream has printed its own
            parser.print_help()
        raise
    cfg = read_config('config', args.config, args.cfg_options)
    args.config = cfg.filename  # also of 'package::path'
    cli.fit_machine(args, cfg)
    check_data(cfg, ('train_dataloader', 'val_dataloader'))
    check_weights_files(cfg)
    cli.prepare_training(args, cfg, trains=not flags.check)
    cli.start_processes(args, cfg)
    if flags.check_teacher:
        cli.evaluate_teacher(cfg, args.launcher)
    tool.parse_args = lambda: args
    if not flags.check:
        tool.main()
        return
    options = cli.audit_options(cfg)
    args.cfg_options = {**(args.cfg_options or {}), **options}
    with tempfile.TemporaryDirectory() as args.work_dir:
        tool.main()
    print('check: passed, nothing was trained')


if __name__ == '__main__':
    cli.run_main(main)
