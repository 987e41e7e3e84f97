"""Evaluate a model: the test tool of mmdet or mmpretrain, same arguments.

With the config of a distillation it evaluates the student alone, from a
training checkpoint or an exported one; no teacher is built.
"""

import sys
import tempfile
from pathlib import Path

from lshfm_mm import cli


def main() -> None:
    """Put the student in the place of a distillation, then test."""
    args = cli.parse_upstream('test')
    cli.check_files(dict(config=args.config), dict(checkpoint=args.checkpoint))
    cli.load_stack()
    from lshfm_mm.cli.training import start_processes
    from lshfm_mm.cli.upstream import fit_machine, upstream_tool
    from lshfm_mm.datasets.check_files import check_data
    from lshfm_mm.export import export_student
    from lshfm_mm.export.student import check_weights, student_config
    from lshfm_mm.utils.configs import read_config

    tool = upstream_tool('test', sys.argv[1:])
    args = tool.parse_args()
    cfg = read_config('config', args.config, args.cfg_options)
    args.config = cfg.filename  # also of 'package::path'
    fit_machine(args, cfg)
    check_data(cfg, ('test_dataloader',))
    check_weights(cfg, args.checkpoint)
    with tempfile.TemporaryDirectory() as folder:
        student = student_config(cfg)
        if student is not cfg:
            # The name of the config names the folder of the results.
            config = Path(folder) / Path(args.config).name
            student.dump(config)
            args.config = str(config)
            args.cfg_options = None
        checkpoint = Path(folder) / 'student.pth'
        export_student(args.checkpoint, str(checkpoint), fold=False)
        args.checkpoint = str(checkpoint)
        start_processes(args, cfg)
        tool.parse_args = lambda: args
        tool.main()


if __name__ == '__main__':
    cli.run_main(main)
