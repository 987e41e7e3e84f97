"""The student alone, as a plain checkpoint of its own package.

The file holds tensors and plain Python only: unmodified mmdet or mmpretrain
loads it with the student's own config, with ``weights_only=True`` and without
this package.
"""

import copy
import importlib.util
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmrazor.registry import MODELS
from torch import Tensor

from ..errors import ConfigError, check_arguments
from ..utils.checkpoints import (
    check_finite,
    read_checkpoint,
    read_state_dict,
    save,
    weights_below,
    weights_in,
)
from ..utils.configs import (
    imports_of,
    model_config,
    model_of,
    read_config,
    stem,
)
from ..utils.files import atomic_write
from ..utils.rng import forked_rng
from ..version import __version__
from .folding import fold_embedding, has_embedding
from .mmrazor import plain_preprocessor, without_mmrazor

PACKAGE = 'lshfm_mm'
EMBEDDING = {'neck.fc.weight', 'head.fc.weight'}
# Modules whose classes a plain config may name.
PARTS = (
    'backbones.cifar',
    'backbones.necks',
    'datasets.coco_multi_label',
    'training.amp',
)


def student_state_dict(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Take the student out of the state dict of a distillation.

    A plain model is its own student.
    """
    return weights_below('architecture.', state) or dict(state)


def student_config(cfg: Config) -> Config:
    """Copy the config of a distillation with the student as its model.

    Nothing of MMRazor stays around it. The config of a plain model is
    returned as it is.

    Raises:
        ConfigError: If the distillation has a setting that it does not take,
            such as ``test_cfg``, which would be lost here.
    """
    if 'architecture' not in cfg.model:
        return cfg
    kind = MODELS.get(cfg.model.type)
    check_arguments('model', kind, cfg.model, cfg.model.architecture)
    cfg = copy.deepcopy(cfg)
    student = cfg.model.architecture
    if isinstance(student, dict):
        student.pop('pretrained', None)  # it has been trained
    student = model_config('architecture', student)
    if cfg.model.get('data_preprocessor'):  # it has the student's place
        given = cfg.model.data_preprocessor
        student['data_preprocessor'] = plain_preprocessor(given)
    cfg.model = student
    without_mmrazor(cfg)
    return cfg


def export_student(
    checkpoint: str,
    out: str,
    force: bool = False,
    config: str | None = None,
    fold: bool = True,
) -> str:
    """Write the student of a training checkpoint as a plain checkpoint.

    Args:
        checkpoint (str): File or URL of a training checkpoint.
        out (str): The file to write; it is written whole or not at all.
        force (bool): Whether ``out`` may be overwritten. Defaults to False.
        config (str, optional): Config of the training. Where given, the
            student's own is written beside ``out``, with the suffix .py, and
            an embedding is folded into the classifier.
        fold (bool): Whether an embedding must be folded. Defaults to True.

    Returns:
        str: What was written, in a line.

    Raises:
        ConfigError: If the checkpoint cannot be read or has no weights, an
            embedding cannot be folded, a file exists and ``force`` is
            False, or the config is of another model.
    """
    targets = [Path(out)]
    if config is not None:
        targets.append(targets[0].with_suffix('.py'))
    _check_out(targets, force)
    content = read_checkpoint('checkpoint', checkpoint)
    student = _student_of(content, checkpoint)
    if fold and config is None and EMBEDDING <= student.keys():
        raise ConfigError(
            'config: the student has an embedding before its classifier, and '
            'its plain config has none; give --config, so that it is folded'
        )
    line, cfg = f'student: {out}', None
    if config is not None:
        cfg = plain_config(read_config('config', config))
        check_fits(cfg, checkpoint, student)
        if has_embedding(cfg.model):
            folded = fold_embedding(cfg.model, student)
            cfg.model, student = folded.model, folded.state
            line += (
                f', its embedding folded into its classifier (largest '
                f'difference of the logits {folded.difference:.1e} of the '
                f'largest)'
            )
        line += f', config: {targets[1]}'
        if ours := [*filter(_is_ours, imports_of(cfg))]:
            line += f', which needs this package ({", ".join(ours)})'
    targets[0].parent.mkdir(parents=True, exist_ok=True)
    # The checkpoint is renamed last: where it is, its config is.
    with ExitStack() as stack:
        partials = [stack.enter_context(atomic_write(x)) for x in targets]
        meta = _plain_meta(content)
        save({'meta': meta, 'state_dict': student}, partials[0])
        if cfg is not None:
            cfg.dump(partials[1])
    return line


def _check_out(targets: Sequence[Path], force: bool) -> None:
    if targets[0].suffix == '.py':
        raise ConfigError(f'out: must not end in .py, but got {targets[0]}')
    for path in targets:
        if path.exists() and not force:
            raise ConfigError(
                f'out: {path} exists; give another name or --force to '
                f'overwrite'
            )


def _student_of(
    content: Mapping[str, Any], checkpoint: str
) -> dict[str, Tensor]:
    """The student's weights in what a checkpoint holds, on the CPU."""
    state = weights_in(content)
    if not state:
        raise ConfigError(
            f'checkpoint: {checkpoint} holds no weights; give a checkpoint '
            f'that MMEngine saved'
        )
    student = student_state_dict(state)
    check_finite('checkpoint', checkpoint, student)
    # Cloned, for torch would save the whole storage of a view; once, where
    # layers share a weight, as heads of all levels do.
    clones: dict[Any, Tensor] = {}
    for value in student.values():
        if _place(value) not in clones:
            clones[_place(value)] = value.detach().clone()
    return {key: clones[_place(value)] for key, value in student.items()}


def _place(value: Tensor) -> tuple[Any, ...]:
    return value.data_ptr(), value.dtype, value.shape, value.stride()


def _plain_meta(content: Mapping[str, Any]) -> dict[str, Any]:
    meta = content.get('meta') or {}
    return {
        'dataset_meta': _plain(meta.get('dataset_meta') or {}),
        'epoch': meta.get('epoch'),
        'iter': meta.get('iter'),
        'lshfm_mm_version': __version__,
    }


def check_weights(cfg: Config, checkpoint: str) -> None:
    """Raise unless a checkpoint holds the weights of a config's student.

    MMEngine's test loop would evaluate random ones with a warning. The
    checkpoint may be of a training, or exported.

    Raises:
        ConfigError: If weights are missing, misshapen, left over or no
            finite numbers.
    """
    state = student_state_dict(read_state_dict('checkpoint', checkpoint))
    check_finite('checkpoint', checkpoint, state)
    check_fits(student_config(cfg), checkpoint, state)


def check_fits(
    cfg: Config, checkpoint: str, state: Mapping[str, Tensor]
) -> None:
    """Raise unless weights are those of a plain config's model."""
    with forked_rng():
        own = MODELS.build(model_of('model', cfg)).state_dict()
    unfit = [
        key
        for key, value in own.items()
        if key not in state or state[key].shape != value.shape
    ]
    left = [
        key
        for key, value in state.items()
        if key not in own and (unfit or not _has(state, own, value))
    ]
    faults = [
        f'{len(names)} {what}: {", ".join(names[:3])}'
        for what, names in (
            (f'of {len(own)} weights are missing or misshapen', unfit),
            (f'of its {len(state)} have no place in it', left),
        )
        if names
    ]
    if faults:
        raise ConfigError(
            f'checkpoint: {checkpoint} does not fit the model, '
            f'{"; ".join(faults)}; give the config of its training, or for an '
            f'exported student the one beside it'
        )


def _has(
    state: Mapping[str, Tensor], names: Iterable[str], value: Tensor
) -> bool:
    """Whether a weight is there under another name.

    DDQ gives layers of its head a second one once it trains.
    """
    return any(
        state[name].shape == value.shape and torch.equal(state[name], value)
        for name in names
    )


def plain_config(cfg: Config) -> Config:
    """Copy the student's own config without what only its training needed.

    It imports this package only where something of it stands in the config:
    a network of CIFAR, a data set, a neck.
    """
    cfg = copy.deepcopy(student_config(cfg))
    for key in ('load_from', 'resume', 'student'):
        cfg.pop(key, None)
    own_hooks = _own_types('hooks')
    cfg.custom_hooks = [
        hook
        for hook in cfg.get('custom_hooks') or []
        if not own_hooks & {*_types(hook)}
    ]
    default_hooks = cfg.get('default_hooks') or {}
    if own_hooks & {*_types(default_hooks.get('checkpoint'))}:
        cfg.default_hooks.checkpoint.type = 'CheckpointHook'
    names = [name for name in imports_of(cfg) if not _is_ours(name)]
    types = set(_types(cfg.to_dict()))
    names += [f'{PACKAGE}.{x}' for x in PARTS if types & _own_types(x)]
    if re.search(r"'mmrazor['.]", str(cfg.to_dict())):
        names.append(PACKAGE)  # which makes MMRazor importable
    cfg.pop('custom_imports', None)
    if names:
        cfg.custom_imports = dict(imports=names)
    return cfg


def _is_ours(module: str) -> bool:
    return module.split('.')[0] == PACKAGE


def _own_types(part: str) -> set[str]:
    """Names of the classes that a module or room of this package defines."""
    if (
        part.startswith('datasets')
        and importlib.util.find_spec('mmpretrain') is None
    ):
        return set()
    module = importlib.import_module(f'{PACKAGE}.{part}')
    return {
        name
        for name, value in vars(module).items()
        if f'{getattr(value, "__module__", "")}.'.startswith(
            f'{module.__name__}.'
        )
    }


def _types(config: Any) -> Iterator[str]:
    """All types that a config names, without their scope."""
    if isinstance(config, Mapping):
        if 'type' in config:
            yield stem(config['type'])
        config = list(config.values())
    if isinstance(config, list | tuple):
        for item in config:
            yield from _types(item)


def _plain(value: Any) -> Any:
    """Rebuild a value from builtin types, so that no class is needed."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value.item() if hasattr(value, 'item') else value
