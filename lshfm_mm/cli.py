"""What the command-line tools share.

Training and testing are the tools of mmdet or mmpretrain, as they lie in
their packages, with their arguments. Around them: the imports that make them
run on today's torch, a look at the files a config needs before any work is
done, and errors of one line.
"""

import importlib.util
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import mmdet
import mmengine.registry
from mmengine.config import Config
from mmengine.registry import DATASETS, Registry

from . import teacher
from .annotations import check_annotations
from .errors import ConfigError
from .taps import check_arguments, nearest

REGISTRIES = {
    x.name: x
    for x in vars(mmengine.registry).values()
    if isinstance(x, Registry)
}
# Data sets of mmpretrain that download what is absent.
SELF_LOADING = ('CIFAR10', 'CIFAR100', 'MNIST', 'FashionMNIST')


def upstream_tool(name: str, arguments: Sequence[str]) -> ModuleType:
    """Load a tool of mmdet, or of mmpretrain for its configs.

    Args:
        name (str): Its name, such as 'train'.
        arguments (list[str]): Of the command line. The first that names a
            config tells by its ``default_scope`` whose tool it is.

    Returns:
        ModuleType: The module, with ``parse_args`` and ``main``; nothing has
        run.

    Raises:
        ConfigError: If a package is absent, or has no such tool.
    """
    paths = [x for x in arguments if x.endswith('.py') and Path(x).is_file()]
    try:
        cfg = teacher.read_config('config', paths[0]) if paths else Config()
    except ModuleNotFoundError as error:
        raise ConfigError(
            f'config: {paths[0]} needs a package that is not installed '
            f"({error}); for classifiers pip install -e '.[cls]'"
        ) from error
    scope = cfg.get('default_scope')
    package = 'mmpretrain' if scope == 'mmpretrain' else 'mmdet'
    spec = importlib.util.find_spec(package)
    assert spec is not None and spec.origin is not None
    path = Path(spec.origin).parent / '.mim' / 'tools' / f'{name}.py'
    if not path.is_file():
        raise ConfigError(
            f'{package}: has no {path}; install it from its wheel: pip '
            f'install {package}'
        )
    spec = importlib.util.spec_from_file_location(f'{package}_{name}', path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read_config(path: str, options: Mapping[str, Any] | None) -> Config:
    """Read a config file with overrides.

    Args:
        path (str): The file.
        options (dict, optional): Overrides, dotted keys.

    Returns:
        Config: The config.

    Raises:
        ConfigError: If there is no such file, or no config of a model.
    """
    if not Path(path).is_file():
        raise ConfigError(f'config: no such file: {path}; give a config file')
    cfg = teacher.read_config('config', path)
    cfg.merge_from_dict(dict(options or {}))
    return cfg


def check_data(cfg: Config, dataloaders: tuple[str, ...]) -> None:
    """Look for the annotations and images of the datasets in a config.

    Annotation files are read where mmdet or mmpretrain would go on without a
    word, see :func:`check_annotations`.

    Args:
        cfg (Config): The config. Its ``data_help`` says how to get the data.
        dataloaders (tuple[str]): Keys of the dataloaders to look at.

    Raises:
        ConfigError: If a file or folder is absent, or cannot be used.
    """
    scope = cfg.get('default_scope')
    for key in dataloaders:
        dataset = (cfg.get(key) or {}).get('dataset')
        for where, part in _datasets(f'{key}.dataset', dataset):
            root = part.get('data_root') or ''
            paths = {
                name: Path(root) / path
                for name, path in _named_paths(part).items()
                if root + path and '://' not in root + path
            }
            for name, path in paths.items():
                if not path.exists():
                    raise ConfigError(
                        f'{where}.{name}: no such file or folder: {path}; '
                        f'{_data_help(cfg, path)}'
                    )
            file = paths.get('ann_file')
            if file is not None and file.suffix == '.json':
                with DATASETS.switch_scope_and_registry(scope) as registry:
                    kind = registry.get(str(part.get('type')))
                check_annotations(f'{where}.ann_file', file, part, kind)
        field = key.replace('dataloader', 'evaluator')
        found = cfg.get(field) or []
        for part in found if isinstance(found, list | tuple) else [found]:
            named = part.get('ann_file') or ''
            if '://' not in named and not Path(named).exists():
                raise ConfigError(
                    f'{field}.ann_file: no such file: {named}; set it as in '
                    f'{key}.dataset'
                )


def check_weights_files(cfg: Config) -> None:
    """Look at the local files that a training starts from.

    Args:
        cfg (Config): The config.

    Raises:
        ConfigError: If ``load_from`` or the checkpoint of an ``init_cfg`` is
            absent, no checkpoint, or has weights that are no finite numbers.
    """
    named = [('load_from', cfg.get('load_from'))]
    model = cfg.model.get('architecture', cfg.model)
    named += _pretrained('model', model.to_dict())
    for field, path in named:
        if not path or '://' in path:
            continue
        if not Path(path).is_file():
            raise ConfigError(
                f'{field}: no such file: {path}; do the training before this '
                f'one, or set it to None'
            )
        state = teacher.read_state_dict(field, path)
        teacher.check_finite(field, path, state)


def run(main: Callable[[], None]) -> None:
    """Run a tool; print an error that the user can mend as one line."""
    try:
        main()
    except ConfigError as error:
        sys.exit(f'error: {error}')
    except Exception as error:
        line = _upstream_line(str(error))
        if line is None:
            raise
        sys.exit(f'error: {line}')


def _upstream_line(message: str) -> str | None:
    """An error of MMEngine or mmcv that a user can mend, as one line."""
    if found := re.search(r'failed to load image: (.+)', message):
        return (
            f'image: {found[1]} cannot be decoded; copy or make it again, or '
            f'remove it from the annotations'
        )
    if '!buf.empty()' in message:  # of OpenCV, which names no file
        return (
            'image: one is an empty file; find it with "find FOLDER -size 0" '
            'in the folder of the images, and make it again'
        )
    if found := re.search(r'(\S+) is not in the \S+::([\w ]+) reg', message):
        name = found[1].strip('\'"')
        return (
            f'type: {name!r} is not in the registry of {found[2]}s'
            f'{nearest(name, _registered(found[2]))}'
        )
    if found := re.search(
        r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'",
        message,
    ):
        kinds = [_registered(x).get(found[1]) for x in REGISTRIES]
        try:
            for kind in kinds:
                check_arguments('config', kind, [found[2]])
        except ConfigError as error:
            return str(error)
    return None


def _registered(name: str) -> dict[str, Any]:
    """All that the registries of a name hold, whatever their scope."""
    found: dict[str, Any] = {}
    queue = [REGISTRIES[name]] if name in REGISTRIES else []
    for registry in queue:
        found.update(registry.module_dict)
        queue += registry.children.values()
    return found


def _datasets(
    field: str, dataset: Any
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield field and config of a data set and of those that it wraps."""
    if isinstance(dataset, list | tuple):
        for index, part in enumerate(dataset):
            yield from _datasets(f'{field}[{index}]', part)
    if isinstance(dataset, Mapping):
        yield field, dataset
        for key in ('dataset', 'datasets'):
            yield from _datasets(f'{field}.{key}', dataset.get(key))


def _named_paths(dataset: Mapping[str, Any]) -> dict[str, str]:
    """Field -> path below ``data_root`` of what a data set reads."""
    kind = str(dataset.get('type')).rpartition('.')[2]
    if kind in SELF_LOADING and dataset.get('download', True):
        return {}
    named = {'ann_file': dataset.get('ann_file')}
    split, prefix = dataset.get('split'), dataset.get('data_prefix')
    if kind == 'VOC':  # of mmpretrain
        split = f'ImageSets/Main/{split or "trainval"}.txt'
        named['split'] = dataset.get('image_set_path') or split
        prefix = prefix or dict(img_path='JPEGImages', ann_path='Annotations')
    elif kind == 'ImageNet' and not prefix:
        named['split'] = split
    if isinstance(prefix, Mapping):
        for key, path in prefix.items():
            named[f'data_prefix.{key}'] = path
    else:
        named['data_prefix'] = prefix
    return {k: v for k, v in named.items() if v} or {'data_root': ''}


def _pretrained(field: str, model: Any) -> Iterator[tuple[str, str]]:
    """Field and path of the checkpoints that a model starts from."""
    if isinstance(model, Mapping):
        if model.get('type') == 'Pretrained':
            yield f'{field}.checkpoint', model.get('checkpoint') or ''
        for key, part in model.items():
            yield from _pretrained(f'{field}.{key}', part)


def _data_help(cfg: Config, path: Path) -> str:
    """How to get the data: as the config says, or with mmdet's tool."""
    command = cfg.get('data_help')
    tool = Path(mmdet.__file__).parent / '.mim/tools/misc/download_dataset.py'
    if command is None and 'coco' in path.parts:
        root = Path(*path.parts[: path.parts.index('coco') + 1])
        year = 2014 if '2014' in path.name else 2017
        command = (
            f'python {tool} --dataset-name coco{year} --save-dir {root} '
            f'--unzip'
        )
    elif command is None and 'VOCdevkit' in path.parts:
        root = Path(*path.parts[: path.parts.index('VOCdevkit')])
        year = 2012 if 'VOC2012' in path.parts else 2007
        command = (
            f'python {tool} --dataset-name voc{year} --save-dir {root} --unzip'
        )
    if command is None:
        return 'set its data_root'
    return f'get the data with "{command}", or set its data_root'
