"""What the command-line tools share.

Training and testing are the tools of mmdet or mmpretrain, as they lie in
their packages, with their arguments. Around them: the imports that make them
run on today's torch, a look at the files a config needs before any work is
done, and errors of one line.
"""

import importlib.util
import os
import re
import sys
import tempfile
import warnings
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from inspect import isclass
from pathlib import Path
from types import ModuleType
from typing import Any

import mmdet
import mmengine.registry
import torch
from mmengine import dist
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, Registry
from mmengine.runner import Runner
from mmrazor.registry import MODELS

from . import teacher
from .algorithms import FeatureMimicDistill
from .annotations import check_annotations
from .errors import ConfigError, NonFiniteError
from .resuming import find_whole, read_resumable
from .taps import check_arguments, nearest

# Of setuptools, whenever MMEngine finds a config of a package.
warnings.filterwarnings('ignore', 'pkg_resources is deprecated', UserWarning)

# What each training gets that has it not already, and each distillation of
# ours; ``add_hooks = False`` in the config leaves them out. By their paths, so
# that the config that a run leaves behind needs no custom_imports.
HOOKS = ('lshfm_mm.hooks.ExactResumeHook',)
DISTILL_HOOKS = (
    'lshfm_mm.hooks.NonFiniteHook',
    'lshfm_mm.hooks.AlignmentHook',
    'lshfm_mm.hooks.LossScaleHook',
)

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
            f'({error}); python -m lshfm_mm doctor says what installs it'
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
    if not _is_first():
        return
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
                boxes = key != 'test_dataloader'
                check_annotations(f'{where}.ann_file', file, part, kind, boxes)
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
    """Read the local files that a training starts from.

    Args:
        cfg (Config): The config.

    Raises:
        ConfigError: If ``load_from`` or the checkpoint of an ``init_cfg`` is
            absent, no checkpoint, holds what would run, or has weights that
            are no finite numbers.
    """
    if not _is_first():
        return
    named = [('load_from', cfg.get('load_from'))]
    model = cfg.model.get('architecture', cfg.model)
    named += _pretrained('model', model.to_dict())
    for field, path in named:
        if not path or '://' in path:
            continue
        if not Path(path).expanduser().is_file():
            raise ConfigError(
                f'{field}: no such file: {path}; do the training before this '
                f'one, or set it to None'
            )
        state = teacher.read_state_dict(field, path)
        teacher.check_finite(field, path, state)


def start_processes(args: Namespace, cfg: Config) -> None:
    """Let the processes of a launcher meet where there is no GPU.

    With one, MMEngine does it. Without, its launchers stop at choosing the
    GPU of a process, and its wrapper at placing the model there.

    Args:
        args (Namespace): Of the tool; its ``cfg_options`` get a wrapper for
            the CPU.
        cfg (Config): The config, with ``env_cfg.dist_cfg``.

    Raises:
        ConfigError: If backend or launcher needs a GPU, and none is there.
    """
    if args.launcher == 'none' or torch.cuda.is_available():
        return
    settings = (cfg.get('env_cfg') or {}).get('dist_cfg') or {}
    backend = settings.get('backend', 'nccl')
    if backend != 'gloo' or args.launcher != 'pytorch':
        raise ConfigError(
            f'env_cfg.dist_cfg.backend: is {backend!r} with --launcher '
            f'{args.launcher}, and there is no GPU; on a CPU use --launcher '
            f'pytorch --cfg-options env_cfg.dist_cfg.backend=gloo'
        )
    timeout = settings.get('timeout')
    torch.distributed.init_process_group(
        'gloo', timeout=timeout and timedelta(seconds=timeout)
    )
    wrapper = cfg.get('model_wrapper_cfg') or dict(
        type='MMDistributedDataParallel',
        broadcast_buffers=False,
        find_unused_parameters=cfg.get('find_unused_parameters', False),
    )
    args.cfg_options = {
        **(args.cfg_options or {}),
        'model_wrapper_cfg': dict(wrapper, device_ids=None),
    }


def named(field: str, arguments: Sequence[str]) -> dict[str, str]:
    """Read arguments NAME=VALUE.

    Args:
        field (str): Which they are, for messages.
        arguments (list[str]): The arguments.

    Returns:
        dict[str, str]: Name -> value.

    Raises:
        ConfigError: If one has no name or no value, or a name is given twice.
    """
    found: dict[str, str] = {}
    for argument in arguments:
        name, _, value = argument.partition('=')
        if not name or not value or name in found:
            reason = 'is given twice' if name in found else 'is no NAME=VALUE'
            raise ConfigError(
                f'{field}: {argument!r} {reason}; write lsh=work_dirs/lsh/'
                f'epoch_7.pth, each name once'
            )
        found[name] = value
    return found


def own_flags(flags: Mapping[str, str]) -> set[str]:
    """Take flags of ours off the command line, before upstream reads it.

    Args:
        flags (dict): Flag -> what it does, for ``--help``.

    Returns:
        set[str]: Those that were given.
    """
    if {'-h', '--help'} & set(sys.argv[1:]):
        for flag, meaning in flags.items():
            print(f'  {flag:<18} {meaning}')
    given = {x for x in sys.argv[1:] if x in flags}
    sys.argv[1:] = [x for x in sys.argv[1:] if x not in flags]
    return given


def audit_options(cfg: Config) -> dict[str, Any]:
    """Overrides under which a training is the audit of its first batch.

    Args:
        cfg (Config): Of a distillation.

    Returns:
        dict: Overrides of the config.

    Raises:
        ConfigError: If the config is of something else.
    """
    _check_distils(cfg, '--check')
    loop = cfg.train_cfg.to_dict()
    by_epoch = loop.pop('by_epoch', True)
    kind = 'EpochBasedTrainLoop' if by_epoch else 'IterBasedTrainLoop'
    loop.setdefault('type', kind)
    return dict(
        log_level='WARNING',  # until the loop runs
        train_cfg=dict(_delete_=True, type='AuditLoop', loop=loop),
    )


def evaluate_teacher(cfg: Config, launcher: str = 'none') -> dict[str, float]:
    """Evaluate the teacher of a distillation on the validation set.

    Args:
        cfg (Config): Of a distillation.
        launcher (str): How the processes were started, as in mmdet.

    Returns:
        dict[str, float]: Metrics.

    Raises:
        ConfigError: If the config is of something else, or all metrics are
            0: the teacher knows nothing of this task.
    """
    _check_distils(cfg, '--check-teacher')
    if cfg.get('val_dataloader') is None:
        raise ConfigError(
            '--check-teacher: needs a val_dataloader, and the config has '
            'none; leave it out'
        )
    if launcher != 'none' and not dist.is_distributed():
        dist.init_dist(launcher, **cfg.env_cfg.dist_cfg)
    metrics = validate(
        teacher.build_teacher(
            cfg.model.teacher,
            cfg.model.get('teacher_ckpt'),
            cfg.model.get('teacher_strict', True),
        ).model,
        cfg,
    )
    scores = {k: v for k, v in metrics.items() if isinstance(v, float | int)}
    if not any(x > 0 for x in scores.values()):
        raise ConfigError(
            f'teacher_ckpt: the teacher scores 0 on the validation set '
            f'({", ".join(scores) or "it finds nothing"}); give weights that '
            f'were trained for these classes'
        )
    told = ', '.join(f'{k} {v:.4g}' for k, v in scores.items())
    print_log(f'teacher on the validation set: {told}', 'current')
    return metrics


def validate(
    model: BaseModel, cfg: Config, log_level: str = 'INFO'
) -> dict[str, float]:
    """Evaluate a model on the validation set of a config.

    Args:
        model (BaseModel): The model, with its weights.
        cfg (Config): With ``val_dataloader`` and ``val_evaluator``.
        log_level (str): From which level on MMEngine prints what it does.

    Returns:
        dict[str, float]: Metrics.
    """
    with tempfile.TemporaryDirectory() as folder:
        # Not wrapped, which a frozen model cannot be: launcher='none'. The
        # processes share the images all the same.
        runner = Runner(
            model=model,
            work_dir=folder,
            val_dataloader=cfg.val_dataloader,
            val_evaluator=cfg.val_evaluator,
            val_cfg=cfg.get('val_cfg') or {},
            default_scope=cfg.get('default_scope', 'mmdet'),
            experiment_name=f'validate_{Path(folder).name}',
            log_level=log_level,
        )
        return runner.val()


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
    of_all = HOOKS + (DISTILL_HOOKS if _mimics(cfg) else ())
    if not cfg.get('add_hooks', True):
        of_all = ()
    lacking = [x for x in of_all if x.rpartition('.')[2] not in named]
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
    except (ConfigError, NonFiniteError) as error:
        sys.exit(f'error: {error}')
    except Exception as error:
        line = _upstream_line(str(error))
        if line is None:
            raise
        sys.exit(f'error: {line}')


def _is_first() -> bool:
    """Whether this is the process that looks into files for all others."""
    ranks = (os.environ.get(x, '0') for x in ('RANK', 'SLURM_PROCID'))
    return all(x == '0' for x in ranks)


def _mimics(cfg: Config) -> bool:
    """Whether the model is an algorithm of ours."""
    name = (cfg.get('model') or {}).get('type')
    kind = MODELS.get(name) if isinstance(name, str) and name else name
    return isclass(kind) and issubclass(kind, FeatureMimicDistill)


def _check_distils(cfg: Config, flag: str) -> None:
    if not _mimics(cfg):
        raise ConfigError(
            f'{flag}: is for distillations of this package, but model.type is '
            f'{cfg.model.get("type")!r}; leave it out'
        )


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
