"""Train a model or a distillation: the train tool of mmdet or mmpretrain."""

import sys

from lshfm_mm import cli


def main() -> None:
    """Check what the config needs, then train."""
    tool = cli.upstream_tool('train', sys.argv[1:])
    args = tool.parse_args()
    cfg = cli.read_config(args.config, args.cfg_options)
    cli.check_data(cfg, ('train_dataloader', 'val_dataloader'))
    cli.check_weights_files(cfg)
    cli.prepare_training(args, cfg)
    tool.parse_args = lambda: args
    tool.main()


if __name__ == '__main__':
    cli.run(main)
