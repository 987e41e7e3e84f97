"""Try a pair of every model family of mmdet and mmpretrain, whole.

For each config folder of the installed packages: one config is the teacher,
with random weights; the same config, for the 6 classes of shapes, is the
student, with its own pipelines, hooks, optimizer, schedule and test settings.
``make_config`` pairs them. Then ``tools/train.py`` trains for two epochs with
evaluation, and again from the middle; the student is exported, and upstream's
own test tool scores it. Goes on where it stopped.
"""

import argparse
import json
import logging
import re
import time
import warnings
from pathlib import Path
from typing import Any

import mmdet
import mmpretrain
from mmdet.utils import register_all_modules
from mmengine.config import Config
from shrink import FIXED, LONGEST, add_maps
from tqdm import tqdm
from trial import Failure, configs, try_config

from lshfm_mm import cli
from lshfm_mm.datasets import shapes
from lshfm_mm.errors import ConfigError
from lshfm_mm.utils.configs import read_config

TRIES = 3  # configs of a family, until one passes
ORDER = {'passes': 0, 'fails': 1, 'not counted': 2}
# What a small, common config of a family has in its name, by package.
COMMON = {
    'mmdet': [r'r50', r'1x_coco', r'coco'],
    'mmpretrain': [
        r'in1k|cifar',
        r'tiny|-t|small|-s|18|b0|pico|atto|a0|x0.25|xxs|nano|p16|56|22',
        r'^(?!.*(in21k|384|deploy|distill|npu|amp|lbs|lars|-g-|-l-)).*',
    ],
}


def configs_of(package: str, family: str) -> list[tuple[Path, str]]:
    """The configs that may stand for a family, and why one does not count."""

    def rank(path: Path) -> tuple[Any, ...]:
        name = path.stem.lower()
        return (
            *(not re.search(x, name) for x in COMMON[package]),
            len(name),
            name,
        )

    found = []
    for path in sorted((configs(package) / family).glob('*.py'), key=rank):
        try:
            cfg = read_config('config', str(path))
        except ConfigError:  # mmdet's own file cannot be read
            continue
        if 'model' in cfg:
            found.append((path, not_counted(package, cfg)))
    return sorted(found, key=lambda x: x[1] != '')[:TRIES]


def not_counted(package: str, cfg: Config) -> str:
    """Why a config is no pair of a detector's or classifier's, or ''."""
    if 'train_dataloader' not in cfg or 'optim_wrapper' not in cfg:
        return 'is not trained'
    if package == 'mmpretrain':
        if cfg.model.get('type') != 'ImageClassifier':
            return f'is no classifier: {cfg.model.get("type")}'
        return ''
    if cfg.model.get('neck') is None and cfg.model.get('roi_head') is None:
        return 'no neck, no RoI head'
    for word in ('Panoptic', 'proposal_file', 'MultiBranch', 'Video', 'ReID'):
        if word in str(cfg.train_dataloader):
            return f'other data: {word}'
    return ''


def reason(error: BaseException, work: Path) -> str:
    """An error in a table cell, without the folder of the sweep."""
    text = ' '.join(str(error).replace(f'{work}/', '').split())
    text = text or type(error).__name__
    known = isinstance(error, ConfigError | Failure)
    name = '' if known else f'{type(error).__name__}: '
    return (name + text)[:240].replace('|', '/')


def sweep(work: Path, only: list[str], minutes: float) -> dict[str, list[str]]:
    """Family -> config, 'passes', 'fails' or 'not counted', and why."""
    log = work / 'families.json'
    results = json.loads(log.read_text('utf-8')) if log.exists() else {}
    until = time.monotonic() + 60 * minutes
    families = [
        f'{package}/{path.name}'
        for package in COMMON
        for path in sorted(configs(package).iterdir())
        if path.is_dir() and path.name != '_base_'
    ]
    todo = only or [x for x in families if x not in results]
    for name in tqdm(todo, desc='families', unit='family'):
        if time.monotonic() > until:
            break
        results[name] = try_family(name, work)
        log.write_text(json.dumps(results, indent=1), 'utf-8')
    return results


def try_family(name: str, work: Path) -> list[str]:
    """The best of a family's configs: its name, the outcome, what or why."""
    package, family = name.split('/')
    data = work / 'data' / (family if family in FIXED else 'shapes')
    if not (data / 'maps').exists():
        shapes.generate(data, 8, 4, FIXED.get(family, LONGEST), seed=0)
        add_maps(data)
    tried = []
    for path, why in configs_of(package, family):
        if why:
            tried.append([path.name, 'not counted', why])
            continue
        try:
            what = try_config(package, path, work / family, data)
        except Exception as error:  # the table is of what goes wrong
            tried.append([path.name, 'fails', reason(error, work)])
        else:
            return [path.name, 'passes', what]
        finally:  # all families together would fill a disk
            for weights in (work / family).rglob('*.pth'):
                weights.unlink()
    none = ['', 'not counted', 'no config of one model']
    return min(tried, key=lambda x: ORDER[x[1]], default=none)


def table(results: dict[str, list[str]]) -> str:
    """The results as a page of the documentation."""
    lines = [
        '# Model families',
        '',
        '`make families` takes a config of each config folder of mmdet '
        f'{mmdet.__version__} and mmpretrain {mmpretrain.__version__} whole: '
        'its pipelines, hooks, optimizer, schedule, loops and test settings; '
        'data, sizes, channels, batches, the rate with them, and epochs '
        'shrink. Where its data '
        'are of another format they become those of shapes. `make_config` '
        'pairs it with a teacher of the same config and random weights; two '
        'epochs with evaluation; again from the middle, which must give the '
        "same weights bit for bit; export; upstream's test tool, which must "
        'give the same metrics. AMP, which needs a GPU, is off. A sweep goes '
        'on where it stopped: what a row says is of the commit that ran it.',
        '',
        'A failure is one of these 8 steps from random weights. Where plain '
        'training fails, too, the row says so. "The export scores {}, the '
        'student {}" means that neither finds anything after them.',
        '',
    ]
    for package in COMMON:
        own = {
            name.split('/')[1]: result
            for name, result in results.items()
            if name.startswith(f'{package}/')
        }
        counts = [x[1] for x in own.values()]
        lines += [
            f'## {package}',
            '',
            f'{counts.count("passes")} pass, {counts.count("fails")} fail, '
            f'{counts.count("not counted")} do not count.',
            '',
        ]
        for kind, title in (
            (
                'passes',
                '| family | config | what is mimicked (equal metrics) |',
            ),
            ('fails', '| family that fails | config | why |'),
            ('not counted', '| not counted | config | why |'),
        ):
            lines += [title, '|---|---|---|']
            lines += [
                f'| {family} | {config} | {text} |'
                for family, (config, found, text) in sorted(own.items())
                if found == kind
            ]
            lines.append('')
    return '\n'.join(lines)


def main() -> None:
    """Sweep and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'families', nargs='*', help='only these, again; such as mmdet/yolox'
    )
    parser.add_argument('--work-dir', default='work_dirs/families')
    parser.add_argument('--out', default='docs/families.md')
    parser.add_argument(
        '--minutes', type=float, default=1e9, help='then stop, after a family'
    )
    args = parser.parse_args()
    cli.load_stack()
    warnings.simplefilter('ignore')
    logging.disable(logging.WARNING)
    register_all_modules(init_default_scope=True)
    work = Path(args.work_dir).absolute()
    work.mkdir(parents=True, exist_ok=True)
    results = sweep(work, args.families, args.minutes)
    Path(args.out).write_text(table(results), 'utf-8')
    print(f'{args.out}: {len(results)} families')


if __name__ == '__main__':
    cli.run_main(main)
