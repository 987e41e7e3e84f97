"""Train a detector or a distillation: mmdet's train tool, same arguments."""

from lshfm_mm import cli


def main() -> None:
    """Check what the config needs, then train."""
    tool = cli.mmdet_tool('train')
    args = tool.parse_args()
    cfg = cli.read_config(args.config, args.cfg_options)
    cli.check_data(cfg, ('train_dataloader', 'val_dataloader'))
    tool.main()


if __name__ == '__main__':
    cli.run(main)
