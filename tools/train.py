"""Train a model or a distillation: the train tool of mmdet or mmpretrain.

Beside its arguments there are two flags.
"""

import argparse
import sys
import tempfile

from lshfm_mm import cli


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
    try:
        args = cli.parse_upstream('train')
    except SystemExit:
        if {'-h', '--help'} & {*sys.argv}:  # upstream has printed its own
            parser.print_help()
        raise
    wanted = {} if args.resume == 'auto' else dict(resume=args.resume)
    cli.check_files(dict(config=args.config), wanted)
    cli.load_stack()
    from lshfm_mm.cli import training
    from lshfm_mm.cli.upstream import fit_machine, upstream_tool
    from lshfm_mm.datasets.check_files import check_data, check_weights_files
    from lshfm_mm.utils.configs import read_config

    tool = upstream_tool('train', sys.argv[1:])
    args = tool.parse_args()
    cfg = read_config('config', args.config, args.cfg_options)
    args.config = cfg.filename  # also of 'package::path'
    fit_machine(args, cfg)
    check_data(cfg, ('train_dataloader', 'val_dataloader'))
    check_weights_files(cfg)
    training.prepare_training(args, cfg, trains=not flags.check)
    training.start_processes(args, cfg)
    if flags.check_teacher:
        training.evaluate_teacher(cfg, args.launcher)
    tool.parse_args = lambda: args
    if not flags.check:
        tool.main()
        return
    options = training.audit_options(cfg)
    args.cfg_options = {**(args.cfg_options or {}), **options}
    with tempfile.TemporaryDirectory() as args.work_dir:
        tool.main()
    print('check: passed, nothing was trained')


if __name__ == '__main__':
    cli.run_main(main)
