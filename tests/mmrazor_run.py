"""One of MMRazor's own configs: trained, resumed, tested, exported.

Our tools run on it as they are, on the data in a folder ``data``. Only sizes
and schedules are smaller, and what the config would download is made here,
with random weights.
"""

import os
import runpy
import sys
from functools import cache
from pathlib import Path

import torch
import torchvision
from mmengine.config import Config, config
from mmengine.hub import hub
from mmengine.registry import DefaultScope
from mmengine.utils import ManagerMixin
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


def forget(kind: type) -> None:
    """Drop what MMEngine keeps by name: loggers, visualizers, scopes."""
    kind._instance_dict.clear()
    for part in kind.__subclasses__():
        forget(part)


def run_tool(name: str, *args: object) -> None:
    """Run a tool, as if in a process of its own."""
    forget(ManagerMixin)
    sys.argv = [name, *map(str, args)]
    runpy.run_path(str(TOOLS / name), run_name='__main__')


def save_time() -> None:
    """Half of it goes into reading metafiles and laying out configs."""
    Config._get_cfg_path = staticmethod(cache(Config._get_cfg_path))
    hub._get_cfg_metainfo = cache(hub._get_cfg_metainfo)
    config.FormatCode = lambda text, **_: (text, True)


def main(path: str, folder: Path, torch_home: Path) -> None:
    """Go all the way, in a process that ends with this.

    Args:
        path (str): The config.
        folder (Path): To work in; what is printed goes to a file ``log``.
        torch_home (Path): Where downloads are kept.
    """
    os.chdir(folder)
    os.environ['TORCH_HOME'] = str(torch_home)
    log = os.open('log', os.O_WRONLY | os.O_CREAT)
    for stream in (1, 2):
        os.dup2(log, stream)
    sys.stdout, sys.stderr = (open(x, 'w', buffering=1) for x in (1, 2))
    torch.set_num_threads(1)
    torch.manual_seed(0)  # some draws of random weights diverge
    save_time()
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
    options = options_of(cfg, name) | {'randomness.seed': 0}
    more = ['--work-dir', 'run', '--cfg-options']

    def written() -> list[str]:
        return [f'{k}={v}'.replace(' ', '') for k, v in options.items()]

    run_tool('train.py', path, *more, *written())
    for key in ('max_epochs', 'max_iters'):
        if f'train_cfg.{key}' in options:
            options[f'train_cfg.{key}'] += 1
    run_tool('train.py', path, '--resume', *more, *written())
    last = Path('run/last_checkpoint').read_text(encoding=None)
    run_tool(
        *('test.py', path, last, '--work-dir', 'test'),
        *('--cfg-options', *written()),
    )
    # The config that the run left has the options.
    left = Path('run') / name
    run_tool(
        *('export_student.py', last, '-o', 'student.pth', '--config', left)
    )
