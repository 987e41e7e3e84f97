"""Time one training step: the plain student, this package and MMRazor.

All arms run in one process, one after another in every round, with the same
images and seeds and one student with random weights; printed are medians over
the rounds, and of ratios the median of those within a round. The floor
of an arm is the plain student's step, what it needs of the teacher, timed
alone, and the matrix products of its LSH loss, timed alone. Needs no data and
no checkpoint.
"""

import argparse
import importlib
import json
import platform
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import mmcv
import mmdet
import mmengine
import mmpretrain
import torch
from mmdet.utils import register_all_modules
from mmengine.logging import MMLogger

import lshfm_mm
from lshfm_mm import cli
from lshfm_mm.errors import ConfigError

sys.path.append(str(Path(__file__).parents[1]))
from batches import time_loading
from loss import time_loss
from machine import commit, processor
from page import page
from recipes import MODELS, REPO
from timing import time_model

LOSS_SHAPE = (20_000, 256, 4096)  # N, D, K


def machine(options: Any) -> dict[str, Any]:
    """On what this was measured, and how."""
    name = processor()
    if options.device == 'cuda':
        name = f'{torch.cuda.get_device_name()}, {name}'
    # Only once lshfm_mm is there does it import beside OneDL's mmcv.
    mmrazor = importlib.import_module('mmrazor')
    modules = (torch, mmengine, mmcv, mmdet, mmpretrain, mmrazor, lshfm_mm)
    fields = ('images', 'size', 'class_images', 'class_size', 'rounds')
    fields += ('device', 'amp', 'channels_last', 'compile')
    return {
        'hardware': name,
        'threads': torch.get_num_threads(),
        'versions': {x.__name__: x.__version__ for x in modules},
        'commit': commit(REPO),
        **{field: getattr(options, field) for field in fields},
    }


def check(options: argparse.Namespace) -> None:
    """Raise unless there is something to measure, and a place for it."""
    if options.device == 'cpu' and platform.system() != 'Linux':
        raise ConfigError(
            f"device: the CPU's memory is read from /proc, which "
            f'{platform.system()} does not have; run it on Linux, or on cuda'
        )
    if options.device == 'cpu' and options.amp:
        raise ConfigError('amp: needs a GPU; add --device cuda')
    sizes = ('images', 'size', 'class_images', 'class_size')
    for field in (*sizes, 'rounds', 'loss_shape'):
        value = getattr(options, field)
        if min(value if isinstance(value, list) else [value]) < 1:
            raise ConfigError(
                f'{field}: must be >= 1, but got {value}; raise it'
            )
    for field in ('json', 'out'):
        path = Path(getattr(options, field) or 'x')
        if not path.parent.is_dir():
            raise ConfigError(
                f'{field}: no such folder: {path.parent}; make it'
            )


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add('--device', default='cpu', choices=('cpu', 'cuda'))
    add('--images', type=int, default=2, help='of a batch')
    add(
        '--size', type=int, nargs=2, default=[400, 640],
        help='height, width',
    )  # fmt: skip
    add('--class-images', type=int, default=16, help='for classifiers')
    add('--class-size', type=int, nargs=2, default=[224, 224])
    add('--rounds', type=int, default=9)
    add('--amp', action='store_true', help='mixed precision (CUDA)')
    add('--channels-last', action='store_true', help='our teachers')
    add(
        '--compile',
        action='store_true',
        help='backbones of all students and of our teachers (torch.compile)',
    )
    add('--models', nargs='*', default=list(MODELS), choices=list(MODELS))
    add(
        '--loss-shape', type=int, nargs=3, default=list(LOSS_SHAPE),
        metavar=('N', 'D', 'K'),
    )  # fmt: skip
    add('--json', help='file for all figures')
    add('--out', help='Markdown page to write')
    return parser


def main() -> None:
    """Measure, print and write."""
    parser = arguments()
    options = parser.parse_args()
    cli.load_stack()
    check(options)
    warnings.simplefilter('ignore')
    MMLogger.get_instance('benchmark', log_level='ERROR')
    register_all_modules(init_default_scope=True)
    command = 'python benchmarks/step'
    for field, value in vars(options).items():
        if value != parser.get_default(field):
            flag = f'--{field.replace("_", "-")}'
            values = value if isinstance(value, list) else [value]
            words = [] if value is True else [str(x) for x in values]
            command = ' '.join([command, flag, *words])
    result: dict[str, Any] = {
        'command': command,
        'machine': machine(options),
        'loss': time_loss(options),
        'models': {},
    }
    with tempfile.TemporaryDirectory() as folder:
        result['loading'] = time_loading(options, Path(folder))
        for model in options.models:
            found = time_model(model, options, Path(folder))
            result['models'][model] = found
            write(result, options)  # what follows may fail
    write(result, options)
    print(page(result))


def write(result: dict[str, Any], options: argparse.Namespace) -> None:
    """Write what there is so far."""
    if options.json:
        Path(options.json).write_text(json.dumps(result, indent=1), 'utf-8')
    if options.out:
        Path(options.out).write_text(page(result), 'utf-8')


if __name__ == '__main__':
    cli.run_main(main)
