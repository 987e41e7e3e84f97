"""Reads configs that were written for MMRazor 1.0 and its time as today's.

MMRazor's own distillations name mmcls, which became mmpretrain, and files of
mmdet and mmcls that have other names now. Our tools patch MMEngine's reading
of configs, so that bases, ``cfg_path`` and what a run leaves behind are
today's.
"""

import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log

from ..utils.configs import stem

MMCLS = re.compile(r'^mmcls(?=\.|::)')
SCOPES = ('_scope_', 'default_scope')
TYPES = {'PackClsInputs': 'PackInputs', 'ClsVisualizer': 'UniversalVisualizer'}
# Data sets whose part test_mode chose; split does now, and is 'train'.
SPLIT = ('CIFAR10', 'CIFAR100', 'MNIST', 'FashionMNIST')
# Words of file names that became another word, or none.
WORDS = {'mstrain': 'ms', 'fp16': 'amp', 'pt': '', 'ft': ''}
BATCH = re.compile(r'(?<=\dx)(?=\d)')  # 8x2 was 8 GPUs, now 8xb2


def patch_config_reading() -> None:
    """Let MMEngine read configs of MMRazor's time, however often called."""
    find, read = Config._get_cfg_path, Config._file2dict
    if read.__name__ == 'read_todays':
        return

    def find_todays(cfg_path: str, filename: str) -> tuple[str, str | None]:
        return find(todays_path(cfg_path), filename)

    def read_todays(*args: Any, **kwargs: Any) -> tuple[Any, str, Any]:
        content, text, variables = read(*args, **kwargs)
        return todays(content), text, variables

    Config._get_cfg_path = staticmethod(find_todays)
    Config._file2dict = staticmethod(read_todays)


def todays(value: Any, key: str = '') -> Any:
    """Put today's names into a value of a config.

    Args:
        value (Any): The value; dicts and lists are changed in place.
        key (str): The key that it stands at.

    Returns:
        Any: The value.
    """
    if isinstance(value, dict):
        if MMCLS.match(str(value.get('type'))):
            value.setdefault('_scope_', 'mmpretrain')  # of what is inside
        for name in value:
            value[name] = todays(value[name], name)
        kind = stem(value.get('type'))
        if kind in SPLIT and value.get('test_mode') and 'split' not in value:
            value['split'] = 'test'
            _say_once(f"{kind}: test_mode=True is read as split='test'")
    elif isinstance(value, list):
        value[:] = map(todays, value)
    elif isinstance(value, tuple):
        return tuple(map(todays, value))
    elif isinstance(value, str):
        if key in SCOPES and value == 'mmcls':
            return 'mmpretrain'
        if '::' in value:
            return todays_path(value)
        value = MMCLS.sub('mmpretrain', value)
        if key == 'type':
            scope, dot, name = value.rpartition('.')
            if scope in ('', 'mmpretrain'):
                name = TYPES.get(name, name)
            return f'{scope}{dot}{name}'
    return value


def todays_path(path: str) -> str:
    """Return today's name of a config.

    Args:
        path (str): Such as ``'mmdet::retinanet/retinanet_r50_fpn.py'``.

    Returns:
        str: The name of the one file there that differs in old spelling
        only; the path where there is none, or several.
    """
    package, separator, name = MMCLS.sub('mmpretrain', path).partition('::')
    spec = find_spec(package) if separator and package.isidentifier() else None
    if spec is None or spec.origin is None:
        return path
    configs = Path(spec.origin).parent / '.mim' / 'configs'
    wanted = configs / name
    if not wanted.is_file():
        same = [
            file
            for file in wanted.parent.glob('*.py')
            if _spelling(file.stem) == _spelling(wanted.stem)
        ]
        if len(same) == 1:
            name = same[0].relative_to(configs).as_posix()
            _say_once(f'{path} is read as {package}::{name}')
    return f'{package}::{name}'


@cache
def _say_once(text: str) -> None:
    print_log(text, 'current')


def _spelling(name: str) -> list[str]:
    """What old and new names of a config file have in common: their words."""
    words = (WORDS.get(word, word) for word in re.split('[-_]', name))
    return sorted(BATCH.sub('b', word) for word in words if word)
