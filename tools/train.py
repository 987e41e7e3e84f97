"""Train a model or a distillation: the train tool of mmdet or mmpretrain."""

import sys
from pathlib import Path

from mmengine.runner import find_latest_checkpoint

from lshfm_mm import cli


def main() -> None:
    """Check what the config needs, then train."""
    tool = cli.upstream_tool('train', sys.argv[1:])
    args = tool.parse_args()
    cfg = cli.read_config(args.config, args.cfg_options)
    cli.check_data(cfg, ('train_dataloader', 'val_dataloader'))
    cli.check_weights_files(cfg)
    folder = args.work_dir or cfg.get('work_dir')
    folder = folder or f'work_dirs/{Path(args.config).stem}'
    if args.resume == 'auto' and find_latest_checkpoint(folder) is None:
        # There is nothing to resume; the tools would forget load_from.
        args.resume = None
    cli.start_processes(args, cfg)
    tool.parse_args = lambda: args
    tool.main()


if __name__ == '__main__':
    cli.run(main)
