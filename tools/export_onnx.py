"""python export_onnx.py STUDENT.py STUDENT.pth STUDENT.onnx.

The student as tools/export_student.py gives it, for any number of images,
normalised as its data_preprocessor does: a classifier's logits, or the maps
of scores and boxes of a one-stage detector. Decoding and NMS are not in it.
Needs pip install onnx onnxscript.
"""

import importlib
import sys

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import load_checkpoint

if __name__ == '__main__':
    cfg = Config.fromfile(sys.argv[1])
    init_default_scope(cfg.default_scope)  # mmdet or mmpretrain
    utils = importlib.import_module(f'{cfg.default_scope}.utils')
    utils.register_all_modules()
    model = MODELS.build(cfg.model).eval()
    if hasattr(model, 'roi_head'):  # its RoIs come from an NMS
        sys.exit('error: a two-stage detector needs mmdeploy')
    load_checkpoint(model, sys.argv[2], 'cpu', strict=True)
    side = 224 if cfg.default_scope == 'mmpretrain' else 800  # of your images
    image = torch.zeros(2, 3, side, side)
    free = dict(dynamic_shapes=({0: torch.export.Dim('images')},))
    torch.onnx.export(model, image, sys.argv[3], input_names=['image'], **free)
