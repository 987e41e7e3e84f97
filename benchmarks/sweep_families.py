"""Try make_config on a small pair of every detector family of mmdet.

For each config folder of the installed mmdet: one config is the teacher (80
classes, random weights); its copy for the 6 classes of shapes, with a narrower
backbone where that is a plain ResNet, is the student. make_config pairs them,
and the result trains for one iteration on shapes. Goes on where it stopped.
"""

import argparse
import json
import logging
import re
import signal
import time
import warnings
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import mmdet
import torch
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config, ConfigDict
from mmengine.runner import Runner
from tqdm import tqdm

from lshfm_mm import cli
from lshfm_mm.datasets import shapes
from lshfm_mm.errors import ConfigError
from lshfm_mm.pairing import write_config

CONFIGS = Path(mmdet.__file__).parent / '.mim' / 'configs'
REPO = Path(__file__).resolve().parent.parent
IMAGE = 128  # side in pixels; other sides where a network is made for one
IMAGES = {'ssd': 300, 'ddod': 512}
SECONDS = 300  # that a config may take
TRIES = 3  # configs of a family, until one passes
ORDER = {'passes': 0, 'fails': 1, 'not counted': 2}
NARROWER = 4
BASE_CHANNELS = 64  # of ResNet


def configs_of(family: str) -> list[Path]:
    """The configs that may stand for a family: R50, 1x, COCO, and short."""
    order = [r'r50', r'1x_coco', r'coco']

    def rank(path: Path) -> tuple[Any, ...]:
        return (
            *(not re.search(x, path.stem) for x in order),
            len(path.stem),
            path.stem,
        )

    paths = sorted((CONFIGS / family).glob('*.py'), key=rank)
    return list(islice((p for p in paths if 'model' in safe_read(p)), TRIES))


def safe_read(path: Path) -> Config | dict[str, Any]:
    """A config, or nothing where mmdet's own file cannot be read."""
    try:
        return Config.fromfile(path)
    except (ImportError, FileNotFoundError, KeyError):
        return {}


def walk(node: Any, change: Callable[[dict], None]) -> None:
    """Apply a change to all dicts in a config."""
    if isinstance(node, dict):
        change(node)
        for value in node.values():
            walk(value, change)
    elif isinstance(node, list | tuple):
        for value in node:
            walk(value, change)


def without_downloads(node: dict) -> None:
    """Take out the weights that a model would fetch."""
    init = node.get('init_cfg')
    if isinstance(init, dict) and init.get('type') == 'Pretrained':
        node['init_cfg'] = None
    for key in ('pretrained', 'teacher_ckpt'):
        if isinstance(node.get(key), str):
            node[key] = None


def six_classes(node: dict) -> None:
    """Set the number of classes."""
    if 'num_classes' in node:
        node['num_classes'] = len(shapes.CLASSES)


def narrow(model: ConfigDict) -> None:
    """Give a plain ResNet fewer channels, and the neck what it asks for."""
    backbone, neck = model.backbone, model.get('neck')
    widths = isinstance(neck, dict) and neck.get('in_channels')
    grouped = (backbone.get('norm_cfg') or {}).get('type') == 'GN'
    if backbone.type == 'ResNet' and isinstance(widths, list) and not grouped:
        if backbone.get('base_channels', BASE_CHANNELS) == BASE_CHANNELS:
            backbone.base_channels = BASE_CHANNELS // NARROWER
            neck.in_channels = [x // NARROWER for x in widths]


def student_config(model: ConfigDict, data: Path, size: int) -> Config:
    """The student with data and schedule for one iteration."""
    cfg = Config.fromfile(REPO / 'configs/_base_/shapes.py')
    # An RPN keeps its one class.
    walk({k: v for k, v in model.items() if k != 'rpn_head'}, six_classes)
    narrow(model)
    cfg.model = model
    loader = cfg.train_dataloader
    loader.update(batch_size=2, num_workers=0, persistent_workers=False)
    loader.dataset.data_root = str(data)
    load, annotations, resize, *_ = loader.dataset.pipeline
    annotations.with_mask = 'mask' in str(model).lower()
    resize.scale = (size, size)
    for key in ('val', 'test'):
        for part in ('_dataloader', '_evaluator', '_cfg'):
            cfg[key + part] = None
    cfg.train_cfg = dict(by_epoch=False, max_iters=1)
    cfg.param_scheduler = None
    cfg.default_hooks = dict(checkpoint=None)
    cfg.log_level = 'ERROR'
    return cfg


def check_gradients(runner: Runner) -> None:
    """Raise unless each mimicking loss moves the student's backbone."""
    model = runner.model
    batch = next(iter(runner.train_dataloader))
    losses = model(**model.data_preprocessor(batch, True), mode='loss')
    weights = [p for p in model.student.backbone.parameters()]
    weights = [p for p in weights if p.requires_grad]
    mimic = {k: v for k, v in losses.items() if k.startswith('distill.')}
    if not mimic:
        raise ConfigError('losses: none mimics')
    for name, loss in mimic.items():
        if not (loss.isfinite() and loss > 0):
            raise ConfigError(f'{name}: is {float(loss)}')
        found = torch.autograd.grad(
            loss, weights, retain_graph=True, allow_unused=True
        )
        grads = [x for x in found if x is not None]
        finite = all(x.isfinite().all() for x in grads)
        if not (finite and any(x.any() for x in grads)):
            raise ConfigError(f'{name}: does not move the backbone')


def try_family(path: Path, work: Path, data: Path) -> str:
    """Pair and train for one iteration; what was chosen."""
    family = path.parent.name
    size = IMAGES.get(family, IMAGE)
    model = Config.fromfile(path).model
    walk(model, without_downloads)
    teacher, student = work / 'teacher.py', work / 'student.py'
    Config(dict(model=model, default_scope='mmdet')).dump(teacher)
    torch.manual_seed(0)
    built = MODELS.build(model)
    built.init_weights()
    torch.save({'state_dict': built.state_dict()}, work / 'teacher.pth')
    student_config(Config.fromfile(teacher).model, data, size).dump(student)
    out = work / 'distilled.py'
    chosen = write_config(
        str(teacher), str(student), str(out), str(work / 'teacher.pth'),
        force=True,
    )  # fmt: skip
    cfg = Config.fromfile(out)
    cfg.work_dir = str(work / 'run')
    runner = Runner.from_cfg(cfg)
    runner.model.init_weights()
    before = [p.detach().clone() for p in runner.model.parameters()]
    runner.train()
    after = list(runner.model.parameters())
    if not all(p.isfinite().all() for p in after):
        raise ConfigError('student: is not finite after the iteration')
    if all(torch.equal(x, y) for x, y in zip(before, after, strict=True)):
        raise ConfigError('student: is as it was before the iteration')
    check_gradients(runner)
    return chosen.split(': ', 1)[1]


def outcome(path: Path, work: Path, data: Path) -> list[str]:
    """'passes', 'fails' or 'not counted', and what or why."""
    model = Config.fromfile(path).model
    if model.get('neck') is None and model.get('roi_head') is None:
        return ['not counted', 'no neck, no RoI head']
    signal.alarm(SECONDS)
    try:
        return ['passes', try_family(path, work, data)]
    except Exception as error:  # the table is of what goes wrong
        return ['fails', reason(error)]
    finally:
        signal.alarm(0)


def reason(error: BaseException) -> str:
    """An error in a table cell."""
    text = ' '.join(str(error).split()) or type(error).__name__
    name = (
        '' if isinstance(error, ConfigError) else f'{type(error).__name__}: '
    )
    return (name + text)[:200].replace('|', '/')


def stop(*_: Any) -> None:
    """End a family that takes too long."""
    raise TimeoutError(f'took more than {SECONDS} s')


def sweep(work: Path, only: list[str]) -> dict[str, list[str]]:
    """Family -> config, 'passes', 'fails' or 'not counted', and why."""
    log = work / 'families.json'
    results = json.loads(log.read_text('utf-8')) if log.exists() else {}
    data = work / 'shapes'
    shapes.generate(data, 4, 2, IMAGE, seed=0)
    signal.signal(signal.SIGALRM, stop)
    families = sorted(p.name for p in CONFIGS.iterdir() if p.is_dir())
    todo = only or [x for x in families if x not in results]
    for family in tqdm(todo, desc='families', unit='family'):
        tried: list[list[str]] = []
        for path in configs_of(family):
            tried.append([path.name, *outcome(path, work, data)])
            if tried[-1][1] == 'passes':
                break
        none = ['', 'not counted', 'no config of one model']
        results[family] = min(tried, key=lambda x: ORDER[x[1]], default=none)
        log.write_text(json.dumps(results, indent=1), 'utf-8')
    return results


def table(results: dict[str, list[str]]) -> str:
    """The results as a page of the documentation."""
    counts = [x[1] for x in results.values()]
    lines = [
        '# Detector families',
        '',
        f'`make families` pairs a small student with a teacher of each config '
        f'folder of mmdet {mmdet.__version__} by `tools/make_config.py` and '
        f'trains it for one iteration on shapes: {counts.count("passes")} '
        f'pass, {counts.count("fails")} fail, '
        f'{counts.count("not counted")} have no detector with a neck or RoI '
        f'head. Teacher: the config as it is, 80 classes, random weights. '
        f'Student: 6 classes, a quarter of the channels where the backbone is '
        f'a ResNet.',
        '',
    ]
    for kind, title in (
        ('passes', '| family | config | what is mimicked |'),
        ('fails', '| family that fails | config | why |'),
        ('not counted', '| not counted | config | why |'),
    ):
        lines += [title, '|---|---|---|']
        lines += [
            f'| {family} | {config} | {text} |'
            for family, (config, found, text) in sorted(results.items())
            if found == kind
        ]
        lines.append('')
    return '\n'.join(lines)


def main() -> None:
    """Sweep and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('families', nargs='*', help='only these, again')
    parser.add_argument('--work-dir', default='work_dirs/families')
    parser.add_argument('--out', default='docs/families.md')
    args = parser.parse_args()
    warnings.simplefilter('ignore')
    logging.disable(logging.WARNING)
    register_all_modules(init_default_scope=True)
    work = Path(args.work_dir)
    work.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    results = sweep(work, args.families)
    Path(args.out).write_text(table(results), 'utf-8')
    print(f'{args.out}: {(time.monotonic() - start) / 60:.1f} min')


if __name__ == '__main__':
    cli.run_main(main)
