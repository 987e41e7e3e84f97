"""What a config needs of files, looked for before any work is done."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import mmdet
from mmengine.config import Config
from mmengine.registry import DATASETS, METRICS, Registry
from mmengine.runner.checkpoint import CheckpointLoader

from ..errors import ConfigError, from_here
from ..utils.checkpoints import check_finite, read_state_dict
from ..utils.configs import model_config, stem
from .annotations import (
    check_annotations,
    is_remote,
    lists_files,
    takes_coco,
)
from .coco_files import kept
from .evaluator_files import check_coco_metric
from .unused import warn

# Data sets of mmpretrain that download what is absent.
SELF_LOADING = ('CIFAR10', 'CIFAR100', 'MNIST', 'FashionMNIST')


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
    if not _is_first():
        return
    kept.clear()
    numbered: dict[str, Sequence[str]] = {}  # field -> classes in order
    for key in dataloaders:
        dataset = (cfg.get(key) or {}).get('dataset')
        read: dict[str, Path] = {}
        ignored: list[str] = []
        for where, part in _datasets(f'{key}.dataset', dataset):
            if is_remote(part):
                continue
            if part.get('ignore_keys'):
                ignored.append(where)
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
            file, kind = paths.get('ann_file'), _class(cfg, DATASETS, part)
            if file is not None:
                if takes_coco(kind):
                    read[f'{where}.ann_file'] = file
                classes = check_annotations(
                    f'{where}.ann_file', file, part, kind, key.split('_')[0]
                )
            else:
                classes = _class_folders(part, kind)
            if part.get('return_classes') or where.startswith((*ignored,)):
                continue
            if classes:
                numbered[where] = classes
        field = key.replace('dataloader', 'evaluator')
        metrics = cfg.get(field) or []
        metrics = metrics if isinstance(metrics, list | tuple) else [metrics]
        for part in metrics:
            named = part.get('ann_file') or ''
            if '://' in named or is_remote(part):
                continue
            if not Path(named).exists():
                raise ConfigError(
                    f'{field}.ann_file: no such file: {named}; set it as in '
                    f'{key}.dataset'
                )
            kind = _class(cfg, METRICS, part)
            images_of = next(iter(read.items())) if len(read) == 1 else None
            check_coco_metric(field, part, kind, images_of)
    _check_order(numbered)


def check_weights_files(cfg: Config) -> None:
    """Read the files that a training starts from; download what is remote.

    Raises:
        ConfigError: If ``load_from`` or the checkpoint of an ``init_cfg`` is
            absent, no checkpoint, holds what would run, or has weights that
            are no finite numbers; or if a remote one is not to be had.
    """
    if not _is_first():
        return
    named = [('load_from', cfg.get('load_from'))]
    field, model = 'model', cfg.model
    if 'architecture' in model:
        field, model = 'model.architecture', model.architecture
    # MMRazor's own algorithms fetch weights of the zoo.
    if not (isinstance(model, Mapping) and model.get('pretrained')):
        named += _pretrained(field, model_config('architecture', model))
    for field, path in named:
        if not path:
            continue
        if '://' in path:
            _download(field, path)
            continue
        if not Path(path).expanduser().is_file():
            raise ConfigError(
                f'{field}: no such file: {path}{from_here(path)}; do the '
                f'training before this one, or set it to None'
            )
        state = read_state_dict(field, path)
        check_finite(field, path, state)


def _download(field: str, name: str) -> None:
    """Let MMEngine fetch weights, also those of ``torchvision://resnet18``."""
    try:
        CheckpointLoader.load_checkpoint(name, 'cpu', logger='silent')
    except KeyError as error:
        raise ConfigError(
            f'{field}: MMEngine knows no weights of the name {name}; give '
            f'another name, or the path of a file'
        ) from error
    except ConfigError as error:  # of our loader, which names no field
        reason = str(error).removeprefix('checkpoint: ')
        raise ConfigError(f'{field}: {reason}') from error


def _class(cfg: Config, registry: Registry, part: Mapping[str, Any]) -> Any:
    """The class of a config, None if there is none."""
    kind = part.get('type')
    if not isinstance(kind, str):
        return kind
    scope = cfg.get('default_scope')
    with registry.switch_scope_and_registry(scope) as found:
        return found.get(kind)


def _class_folders(part: Mapping[str, Any], kind: Any) -> list[str]:
    """Folders that mmpretrain's ``CustomDataset`` takes for the classes."""
    if not lists_files(kind) or not part.get('with_label', True):
        return []
    prefix = part.get('data_prefix') or part.get('split') or ''
    if isinstance(prefix, Mapping):
        prefix = prefix.get('img_path') or ''
    root = Path(part.get('data_root') or '')
    if (root / 'meta' / f'{part.get("split")}.txt').exists():
        return []  # which ImageNet prefers
    folder = root / prefix
    if not folder.is_dir():
        return []  # elsewhere
    return sorted(x.name for x in folder.iterdir() if x.is_dir())


def _check_order(numbered: Mapping[str, Sequence[str]]) -> None:
    """Compare the classes of a training with those of its evaluation.

    Raises:
        ConfigError: If they are the same in another order.
    """
    trained = [x for x in numbered if x.startswith('train')]
    for where, others in numbered.items():
        if not trained or where.startswith('train'):
            continue
        first, classes = trained[0], numbered[trained[0]]
        for number, pair in enumerate(zip(classes, others, strict=False)):
            if pair[0] == pair[1]:
                continue
            fact = (
                f'{where}: its class {number} is {pair[1]!r}, that of '
                f'{first} is {pair[0]!r}; both must have the same classes in '
                f'the same order (in files: of the categories or folders)'
            )
            if sorted(classes) == sorted(others):
                raise ConfigError(fact)
            warn(fact)
            break


def _is_first() -> bool:
    """Whether this is the process that looks into files for all others."""
    return {os.environ.get(x, '0') for x in ('RANK', 'SLURM_PROCID')} == {'0'}


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
    kind = stem(dataset.get('type'))
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
        if stem(model.get('type')) in ('Pretrained', 'PretrainedInit'):
            yield f'{field}.checkpoint', model.get('checkpoint') or ''
        for key, part in model.items():
            yield from _pretrained(f'{field}.{key}', part)


def _data_help(cfg: Config, path: Path) -> str:
    """How to get the data: as the config says, or with mmdet's tool."""
    command = cfg.get('data_help')
    if command is None:
        parts = path.parts
        if 'coco' in parts:
            root = Path(*parts[: parts.index('coco') + 1])
            name = 'coco2014' if '2014' in path.name else 'coco2017'
        elif 'VOCdevkit' in parts:
            root = Path(*parts[: parts.index('VOCdevkit')])
            name = 'voc2012' if 'VOC2012' in parts else 'voc2007'
        else:
            return 'set its data_root'
        tool = '.mim/tools/misc/download_dataset.py'
        command = (
            f'python {Path(mmdet.__file__).parent / tool} --dataset-name '
            f'{name} --save-dir {root} --unzip'
        )
    return f'get the data with "{command}", or set its data_root'
