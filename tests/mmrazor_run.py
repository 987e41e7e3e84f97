"""One of MMRazor's own configs: trained, resumed, tested, exported.

``python -m tests.mmrazor_run CONFIG WORK`` runs our tools on it as they are,
on the data in ``WORK/data``. Only sizes and schedules are smaller, and what
the config would download is made here with random weights.
"""

import json
import os
import runpy
import sys
import time
from functools import cache
from pathlib import Path

import torch
import torchvision
from mmengine.config import Config, config
from mmengine.hub import hub
from mmengine.registry import DefaultScope
from mmpretrain.datasets import CIFAR10
from mmrazor.registry import MODELS

from lshfm_mm.compat.mmrazor_configs import patch_config_reading
from lshfm_mm.utils import checkpoints
from lshfm_mm.utils.configs import read_config

TOOLS = Path(__file__).resolve().parent.parent / 'tools'
DETECTION = (192, 128)  # of the longer and the shorter side, in pixels
CROP, EDGE = 64, 72
BATCH = {'coco': 2, 'imagenet': 4, 'cifar10': 5, 'cifar100': 5}
STEPS = 2


def data_of(cfg: Config) -> str:
    """The folder of the data set that a config trains on."""
    dataset = cfg.test_dataloader.dataset
    path = dataset.get('data_root') or dataset.get('data_prefix')
    return Path(path).name


def options_of(cfg: Config, name: str) -> dict[str, object]:
    """What is smaller than in the config."""
    data = data_of(cfg)
    whole = name.startswith('deit')  # its position embedding is of 224 px
    options: dict[str, object] = {}
    for part in ('train', 'val', 'test'):
        loader = f'{part}_dataloader'
        batch = 2 if whole else BATCH[data]
        options[f'{loader}.batch_size'] = batch
        options[f'{loader}.num_workers'] = 0
        options[f'{loader}.persistent_workers'] = False
        if data == 'imagenet':
            count = STEPS * batch if part == 'train' else batch
            options[f'{loader}.dataset.indices'] = count
        for index, step in enumerate(cfg[loader].dataset.get('pipeline', [])):
            at = f'{loader}.dataset.pipeline.{index}'
            if data == 'coco' and 'scale' in step:
                options[f'{at}.scale'] = DETECTION
            elif data == 'imagenet' and not whole:
                if 'crop_size' in step:
                    options[f'{at}.crop_size'] = CROP
                elif 'scale' in step:
                    edge = step.type == 'ResizeEdge'
                    options[f'{at}.scale'] = EDGE if edge else CROP
    if 'max_iters' in cfg.train_cfg:
        options['train_cfg.max_iters'] = STEPS
        options['train_cfg.val_interval'] = STEPS
    else:
        options['train_cfg.max_epochs'] = 1
    options['default_hooks.logger.interval'] = 1
    options.update(early('param_scheduler', cfg.param_scheduler))
    if whole:  # timm downloads from a hub of its own
        options['model.teacher.backbone.pretrained'] = False
    return options


def early(where: str, part: object) -> dict[str, object]:
    """Parts of a schedule that begin at once, whatever is before them."""
    if isinstance(part, list):
        part = dict(enumerate(part))
    if not isinstance(part, dict):
        return {}
    options: dict[str, object] = {}
    if part.get('begin'):
        options[f'{where}.begin'] = 0
    for key, value in part.items():
        options.update(early(f'{where}.{key}', value))
    return options


def weights_of(name: str, cfg: Config) -> dict[str, torch.Tensor]:
    """Random weights for a file or URL that a config names."""
    model = cfg.model.to_dict()
    init = model.pop('init_cfg', None) or {}
    if '//download.pytorch.org' in name:
        kind = Path(name).name.partition('-')[0]
        return torchvision.models.get_model(kind).state_dict()
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        if name == init.get('checkpoint'):
            for key in ('teacher_ckpt', 'ckpt_path'):
                model.pop(key, None)
            model['teacher']['pretrained'] = False
            return MODELS.build(model).state_dict()
        teacher = model.get('teacher')
        teacher = teacher or model['teachers']['res34']['build_cfg']
        if 'cfg_path' in teacher:
            teacher['pretrained'] = False
        else:
            teacher['backbone']['pretrained'] = False
            teacher['_scope_'] = 'mmpretrain'
        return MODELS.build(teacher).state_dict()


def run_tool(name: str, *args: object) -> float:
    """Run a tool in this process; return the seconds that it took."""
    sys.argv = [name, *map(str, args)]
    start = time.monotonic()
    runpy.run_path(str(TOOLS / name), run_name='__main__')
    return round(time.monotonic() - start, 1)


def read_and_write_once() -> None:
    """Half the time goes into reading metafiles and laying out configs."""
    Config._get_cfg_path = staticmethod(cache(Config._get_cfg_path))
    hub._get_cfg_metainfo = cache(hub._get_cfg_metainfo)
    lay_out, done = config.FormatCode, {}

    def laid_out(text: str, **style: object) -> tuple[str, bool]:
        if text not in done:
            done[text] = lay_out(text, **style)
        return done[text]

    config.FormatCode = laid_out


def main() -> None:
    torch.set_num_threads(1)
    read_and_write_once()
    path = sys.argv[1]
    os.chdir(sys.argv[2])
    CIFAR10._check_integrity = lambda self: True  # made, not downloaded
    patch_config_reading()
    cfg = read_config('config', path)
    name = Path(path).name

    def make(url: str, file: str, *_: object) -> None:
        torch.save({'state_dict': weights_of(url, cfg)}, file)

    checkpoints.download_url_to_file = make
    init = cfg.model.get('init_cfg') or {}
    for file in (cfg.model.get('teacher_ckpt'), init.get('checkpoint')):
        if file and '://' not in file:  # one that the user has to bring
            Path(file).parent.mkdir(parents=True, exist_ok=True)
            make(file, file)
    options = options_of(cfg, name)
    more = ['--work-dir', 'run', '--cfg-options']

    def written() -> list[str]:
        return [f'{k}={v}'.replace(' ', '') for k, v in options.items()]

    seconds = {'train': run_tool('train.py', path, *more, *written())}
    for key in ('max_epochs', 'max_iters'):
        if f'train_cfg.{key}' in options:
            options[f'train_cfg.{key}'] += 1
    seconds['resume'] = run_tool(
        'train.py', path, '--resume', *more, *written()
    )
    last = Path('run/last_checkpoint').read_text(encoding=None)
    seconds['test'] = run_tool(
        *('test.py', path, last, '--work-dir', 'test'),
        *('--cfg-options', *written()),
    )
    # The config that the run left has the options.
    left = Path('run') / name
    seconds['export'] = run_tool(
        *('export_student.py', last, '-o', 'student.pth', '--config', left)
    )
    Path('seconds.json').write_text(json.dumps(seconds), 'utf-8')


if __name__ == '__main__':
    main()
