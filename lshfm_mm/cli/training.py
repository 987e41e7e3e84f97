"""What the training tool adds to that of mmdet."""

from argparse import Namespace
from datetime import timedelta
from inspect import isclass
from pathlib import Path
from typing import Any

import torch
from mmengine import dist
from mmengine.config import Config
from mmengine.logging import print_log
from mmrazor.registry import MODELS

from ..algorithms.feature_mimic import FeatureMimicDistill
from ..errors import ConfigError
from ..teachers.loading import build_teacher
from ..teachers.settings import read_teachers
from ..training.evaluation import predicts, validate
from ..training.resuming import claim_folder, find_whole, read_resumable
from ..utils.configs import model_config, stem
from .unsuited import check_suited

# What each training gets that has it not already, and each distillation of
# ours; ``add_hooks = False`` in the config leaves them out. By their paths, so
# that the config that a run leaves behind needs no custom_imports.
CHECKPOINT_HOOK = 'lshfm_mm.hooks.WholeCheckpointHook'  # for CheckpointHook
HOOKS = ('lshfm_mm.hooks.ExactResumeHook', 'lshfm_mm.hooks.DataCheckHook')
DISTILL_HOOKS = (
    'lshfm_mm.hooks.FirstBatchAuditHook',
    'lshfm_mm.hooks.LSHCalibrationHook',
    'lshfm_mm.hooks.NonFiniteHook',
    'lshfm_mm.hooks.AlignmentHook',
    'lshfm_mm.hooks.LossScaleHook',
)


def start_processes(args: Namespace, cfg: Config) -> None:
    """Let the processes of a launcher meet where there is no GPU.

    With one, MMEngine does it. Without, its launchers stop at choosing the
    GPU of a process, and its wrapper at placing the model there: the tool's
    ``args.cfg_options`` get one for the CPU.

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


def audit_options(cfg: Config) -> dict[str, Any]:
    """Overrides under which a training is the audit of its first batch."""
    loop = cfg.train_cfg.to_dict()
    by_epoch = loop.pop('by_epoch', True)
    kind = 'EpochBasedTrainLoop' if by_epoch else 'IterBasedTrainLoop'
    loop.setdefault('type', kind)
    return dict(
        log_level='WARNING',  # until the loop runs
        train_cfg=dict(_delete_=True, type='AuditLoop', loop=loop),
    )


def evaluate_teacher(cfg: Config, launcher: str = 'none') -> dict[str, float]:
    """Evaluate each teacher of a distillation on the validation set.

    Of several, those are left out that have no head for the student's task,
    or one of other classes.

    Returns:
        dict[str, float]: Metrics; of several teachers as ``a:accuracy/top1``.

    Raises:
        ConfigError: If the config is of something else, no teacher can be
            evaluated, or all metrics are 0: it knows nothing of this task.
    """
    _check_distils(cfg, '--check-teacher')
    if cfg.get('val_dataloader') is None:
        raise ConfigError(
            '--check-teacher: needs a val_dataloader, and the config has '
            'none; leave it out'
        )
    if launcher != 'none' and not dist.is_distributed():
        dist.init_dist(launcher, **cfg.env_cfg.dist_cfg)
    architecture = model_config('model.architecture', cfg.model.architecture)
    student = MODELS.build(architecture)
    metrics, reasons = {}, []
    for name, settings in read_teachers(cfg.model).items():
        teacher = build_teacher(settings).model
        try:
            if not predicts(teacher, student):
                raise ConfigError(
                    f'{settings.field("model")}: {type(teacher).__name__} '
                    f"has no head for the student's task, so it cannot be "
                    f'evaluated; leave --check-teacher out'
                )
            found = validate(teacher, cfg)
        except ConfigError as reason:
            print_log(
                f'{settings.label} is not evaluated: {reason}', 'current'
            )
            reasons.append(reason)
            continue
        scores = {k: v for k, v in found.items() if isinstance(v, float | int)}
        if not any(score > 0 for score in scores.values()):
            raise ConfigError(
                f'{settings.field("ckpt")}: the teacher scores 0 on the '
                f'validation set ({", ".join(scores) or "it finds nothing"}); '
                f'give weights that were trained for these classes'
            )
        line = ', '.join(f'{k} {v:.4g}' for k, v in scores.items())
        print_log(f'{settings.label} on the validation set: {line}', 'current')
        metrics.update({f'{name}:{k}'.lstrip(':'): found[k] for k in found})
    if not metrics:
        raise reasons[-1]
    return metrics


def prepare_training(
    args: Namespace, cfg: Config, trains: bool = True
) -> None:
    """Choose the checkpoint to resume, and the hooks of each training.

    Args:
        args (Namespace): Arguments of the train tool; changed in place.
        cfg (Config): The config, with its overrides.
        trains (bool): Whether the work folder will be written to.

    Raises:
        ConfigError: If there is a checkpoint to resume, but no whole one, or
            that of another config; or a hook or loop that a distillation
            cannot have.
    """
    if _mimics(cfg):
        check_suited(cfg)
    options = {**(args.cfg_options or {}), **_added_hooks(cfg)}
    wanted = args.resume
    if wanted is None and cfg.get('resume'):
        wanted = cfg.get('load_from') or 'auto'
    content: dict[str, Any] = {}
    folder = args.work_dir or cfg.get('work_dir')
    folder = folder or f'work_dirs/{Path(args.config).stem}'
    if trains:
        claim_folder(folder, args.config, wanted == 'auto')
    if wanted == 'auto':
        wanted, content = find_whole(cfg, folder) or (None, {})
    elif wanted is not None and '://' not in wanted:
        content = read_resumable(wanted)
    if wanted is None:  # with 'auto' the tools would forget load_from
        options['resume'] = False
    elif (cfg.get('randomness') or {}).get('seed') is None and content:
        # MMEngine takes it over, but too late for the order of the data.
        options['randomness.seed'] = content['meta'].get('seed')
    args.resume, args.cfg_options = wanted, options


def _added_hooks(cfg: Config) -> dict[str, Any]:
    """Overrides of a config that give a training its hooks."""
    if not cfg.get('add_hooks', True):
        return {}
    options: dict[str, Any] = {}
    plain = cfg.to_dict()
    hooks = plain.get('custom_hooks') or []
    present = {stem(hook.get('type')) for hook in hooks}
    wanted = HOOKS + (DISTILL_HOOKS if _mimics(cfg) else ())
    lacking = [kind for kind in wanted if stem(kind) not in present]
    if lacking:
        options['custom_hooks'] = hooks + [dict(type=kind) for kind in lacking]
    saving = dict(type='CheckpointHook', interval=1)  # as MMEngine has it
    saving = (plain.get('default_hooks') or {}).get('checkpoint', saving)
    if saving and stem(saving.get('type')) == 'CheckpointHook':
        saving['type'] = CHECKPOINT_HOOK
        options['default_hooks.checkpoint'] = saving
    return options


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
