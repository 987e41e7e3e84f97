"""The student as ONNX: logits, or the maps of a one-stage detector.

Of what tools/export_student.py gives, for any number of images, normalised as
its data_preprocessor does. Decoding and NMS are not in it. Needs
pip install onnx onnxscript.
"""

import argparse
import importlib

from lshfm_mm import cli
from lshfm_mm.errors import ConfigError


def main() -> None:
    """Parse the arguments and export."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help="the student's own")
    parser.add_argument('checkpoint', help='of export_student.py')
    parser.add_argument('-o', '--out', required=True, help='file to write')
    args = parser.parse_args()
    cli.check_files(dict(config=args.config), dict(checkpoint=args.checkpoint))
    cli.load_stack()
    import torch
    from mmengine.config import Config
    from mmengine.registry import MODELS, init_default_scope
    from mmengine.runner import load_checkpoint

    cfg = Config.fromfile(args.config)
    init_default_scope(cfg.default_scope)  # mmdet or mmpretrain
    utils = importlib.import_module(f'{cfg.default_scope}.utils')
    utils.register_all_modules()
    model = MODELS.build(cfg.model)
    model.eval()
    if hasattr(model, 'roi_head'):  # its RoIs come from an NMS
        raise ConfigError('model: a two-stage detector needs mmdeploy')
    load_checkpoint(model, args.checkpoint, 'cpu', strict=True)
    side = 224 if cfg.default_scope == 'mmpretrain' else 800  # of your images
    image = torch.zeros(2, 3, side, side)
    free = dict(dynamic_shapes=({0: torch.export.Dim('images')},))
    torch.onnx.export(model, image, args.out, input_names=['image'], **free)


if __name__ == '__main__':
    cli.run_main(main)
