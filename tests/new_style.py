"""Writes configs as MMEngine's new style has them: with classes as types."""

from collections.abc import Mapping
from importlib import import_module
from inspect import isclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

REGISTRIES = (
    *('MODELS', 'DATASETS', 'DATA_SAMPLERS', 'TRANSFORMS', 'METRICS', 'HOOKS'),
    *('LOOPS', 'OPTIM_WRAPPERS', 'PARAM_SCHEDULERS', 'OPTIMIZERS'),
    *('VISUALIZERS', 'WEIGHT_INITIALIZERS'),
)


def write_new_style(cfg: Config, path: Path, package: str = 'mmdet') -> None:
    """Write a config of the old style in the new one.

    Args:
        cfg (Config): Its types are names.
        path (Path): The file.
        package (str): Of whose registries.
    """
    imports: dict[str, str] = {}
    registry = import_module(f'{package}.registry')
    registries = [getattr(registry, name) for name in REGISTRIES]
    body = [
        f'{key} = {_code(value, imports, registries)}'
        for key, value in cfg.to_dict().items()
        if key not in ('custom_imports', 'default_scope')
    ]
    lines = [f'from {imports[x]} import {x}' for x in sorted(imports)]
    path.write_text('\n'.join([*lines, 'default_scope = None', *body]))


def _code(value: Any, imports: dict[str, str], registries: list) -> str:
    if isinstance(value, Mapping):
        items = []
        for key, part in value.items():
            write = _type if key == 'type' else _code
            items.append(f'{key!r}: {write(part, imports, registries)}')
        return f'{{{", ".join(items)}}}'
    if isinstance(value, list):
        return f'[{", ".join(_code(x, imports, registries) for x in value)}]'
    return repr(value)


def _type(name: str, imports: dict[str, str], registries: list) -> str:
    """The class that a name stands for, imported."""
    for known in registries:
        kind = known.get(name)
        if isclass(kind):
            imports[kind.__name__] = kind.__module__
            return kind.__name__
    return repr(name)
