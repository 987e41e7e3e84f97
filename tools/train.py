"""Train a model or a distillation: the train tool of mmdet or mmpretrain.

Beside its arguments there are two flags for distillations, see ``FLAGS``.
"""

import sys
import tempfile

from lshfm_mm import cli
from lshfm_mm.datasets.check_files import check_data, check_weights_files
from lshfm_mm.utils.configs import read_config

FLAGS = {
    '--check': 'audit a batch, evaluate one, stop before the first update',
    '--check-teacher': 'evaluate the teacher on the validation set first',
}


def main() -> None:
    """Check what the config needs, then train."""
    flags = cli.own_flags(FLAGS)
    tool = cli.upstream_tool('train', sys.argv[1:])
    args = tool.parse_args()
    cfg = read_config('config', args.config, args.cfg_options)
    check_data(cfg, ('train_dataloader', 'val_dataloader'))
    check_weights_files(cfg)
    cli.prepare_training(args, cfg)
    cli.start_processes(args, cfg)
    if '--check-teacher' in flags:
        cli.evaluate_teacher(cfg, args.launcher)
    tool.parse_args = lambda: args
    if '--check' not in flags:
        tool.main()
        return
    options = cli.audit_options(cfg)
    args.cfg_options = {**(args.cfg_options or {}), **options}
    with tempfile.TemporaryDirectory() as args.work_dir:
        tool.main()
    print('check: passed, nothing was trained')


if __name__ == '__main__':
    cli.run(main)
