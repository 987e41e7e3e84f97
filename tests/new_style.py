"""Writes configs as MMEngine's new style has them: with classes as types."""

from collections.abc import Mapping
from inspect import isclass
from pathlib import Path
from typing import Any

from mmdet import registry
from mmengine.config import Config

REGISTRIES = [
    registry.MODELS,
    registry.DATASETS,
    registry.DATA_SAMPLERS,
    registry.TRANSFORMS,
    registry.METRICS,
    registry.HOOKS,
    registry.LOOPS,
    registry.OPTIM_WRAPPERS,
    registry.PARAM_SCHEDULERS,
    registry.OPTIMIZERS,
    registry.VISUALIZERS,
    registry.WEIGHT_INITIALIZERS,
]


def write_new_style(cfg: Config, path: Path) -> None:
    """Write a config of the old style in the new one.

    Args:
        cfg (Config): Its types are names, as of mmdet.
        path (Path): The file.
    """
    imports: dict[str, str] = {}
    body = [
        f'{key} = {_code(value, imports)}'
        for key, value in cfg.to_dict().items()
        if key not in ('custom_imports', 'default_scope')
    ]
    lines = [f'from {imports[x]} import {x}' for x in sorted(imports)]
    path.write_text('\n'.join([*lines, 'default_scope = None', *body]))


def _code(value: Any, imports: dict[str, str]) -> str:
    if isinstance(value, Mapping):
        items = [
            f'{k!r}: {_type(v, imports) if k == "type" else _code(v, imports)}'
            for k, v in value.items()
        ]
        return f'{{{", ".join(items)}}}'
    if isinstance(value, list):
        return f'[{", ".join(_code(x, imports) for x in value)}]'
    return repr(value)


def _type(name: str, imports: dict[str, str]) -> str:
    """The class that a name stands for, imported."""
    for known in REGISTRIES:
        kind = known.get(name)
        if isclass(kind):
            imports[kind.__name__] = kind.__module__
            return kind.__name__
    return repr(name)
