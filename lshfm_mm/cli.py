"""What the command-line tools share.

Training and testing are the tools of mmdet or mmpretrain, as they lie in
their packages, with their arguments. Around them: the imports that make them
run on today's torch, a look at the files a config needs before any work is
done, and errors of one line.
"""

import importlib.util
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import mmdet
from mmengine.config import Config

from .errors import ConfigError
from .resuming import find_whole, read_resumable

# What each training gets that has it not already. By their paths, so that the
# config that a run leaves behind needs no custom_imports.
HOOKS = ('lshfm_mm.hooks.ExactResumeHook',)

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
        cfg = Config.fromfile(paths[0]) if paths else Config()
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
        ConfigError: If there is no such file.
    """
    if not Path(path).is_file():
        raise ConfigError(f'config: no such file: {path}')
    cfg = Config.fromfile(path)
    cfg.merge_from_dict(dict(options or {}))
    return cfg


def check_data(cfg: Config, dataloaders: tuple[str, ...]) -> None:
    """Look for the annotations and images of the datasets in a config.

    Args:
        cfg (Config): The config. Its ``data_help`` says how to get the data.
        dataloaders (tuple[str]): Keys of the dataloaders to look at.

    Raises:
        ConfigError: If a file or folder is absent.
    """
    for key in dataloaders:
        dataset = (cfg.get(key) or {}).get('dataset')
        for field, path in _local_paths(f'{key}.dataset', dataset):
            if not path.exists():
                raise ConfigError(
                    f'{field}: no such file or folder: {path}; '
                    f'{_data_help(cfg, path)}'
                )


def check_weights_files(cfg: Config) -> None:
    """Look for the local files that a training starts from.

    Args:
        cfg (Config): The config.

    Raises:
        ConfigError: If ``load_from`` or the checkpoint of an ``init_cfg`` is
            absent.
    """
    named = [('load_from', cfg.get('load_from'))]
    model = cfg.model.get('architecture', cfg.model)
    named += _pretrained('model', model.to_dict())
    for field, path in named:
        if path and '://' not in path and not Path(path).is_file():
            raise ConfigError(
                f'{field}: no such file: {path}; do the training before this '
                f'one, or set it to None'
            )


def prepare_training(args: Namespace, cfg: Config) -> None:
    """Choose the checkpoint to resume, and add the hooks of each training.

    Args:
        args (Namespace): Arguments of the train tool; changed in place.
        cfg (Config): The config, with its overrides.

    Raises:
        ConfigError: If there is a checkpoint to resume, but no whole one.
    """
    options = dict(args.cfg_options or {})
    hooks = cfg.to_dict().get('custom_hooks') or []
    named = {str(x.get('type')).rpartition('.')[2] for x in hooks}
    lacking = [x for x in HOOKS if x.rpartition('.')[2] not in named]
    if lacking:
        options['custom_hooks'] = hooks + [dict(type=x) for x in lacking]
    wanted = args.resume
    if wanted is None and cfg.get('resume'):
        wanted = cfg.get('load_from') or 'auto'
    content: dict[str, Any] = {}
    if wanted == 'auto':
        folder = args.work_dir or cfg.get('work_dir')
        folder = folder or f'work_dirs/{Path(args.config).stem}'
        wanted, content = find_whole(cfg, folder) or (None, {})
    elif wanted is not None and '://' not in wanted:
        content = read_resumable(wanted)
    if wanted is None:  # with 'auto' the tools would forget load_from
        options['resume'] = False
    elif (cfg.get('randomness') or {}).get('seed') is None and content:
        # MMEngine takes it over, but too late for the order of the data.
        options['randomness.seed'] = content['meta'].get('seed')
    args.resume, args.cfg_options = wanted, options


def run(main: Callable[[], None]) -> None:
    """Run a tool; print an error that the user can mend as one line."""
    try:
        main()
    except ConfigError as error:
        sys.exit(f'error: {error}')


def _local_paths(field: str, dataset: Any) -> Iterator[tuple[str, Path]]:
    """Yield field and path of annotations and images, wrappers included."""
    if isinstance(dataset, list | tuple):
        for index, part in enumerate(dataset):
            yield from _local_paths(f'{field}[{index}]', part)
    if not isinstance(dataset, Mapping):
        return
    root = dataset.get('data_root') or ''
    for key, path in _named_paths(dataset).items():
        if root + path and '://' not in root + path:
            yield f'{field}.{key}', Path(root) / path
    for key in ('dataset', 'datasets'):
        yield from _local_paths(f'{field}.{key}', dataset.get(key))


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
