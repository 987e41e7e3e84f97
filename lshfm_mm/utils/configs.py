"""Reading configs, and the model in them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import MODELS as ROOT

from ..errors import ConfigError, from_here

SCOPES = ('mmrazor', 'mmdet', 'mmpretrain')


def model_config(field: str, model: Mapping[str, Any]) -> dict[str, Any]:
    """Complete the config of a model so that any scope can build it.

    Args:
        field (str): Where the config stands, for messages.
        model (dict): A model config, or ``dict(cfg_path=...)`` with a config
            file or a ``'package::path'`` of an OpenMMLab package.

    Returns:
        dict: A model config with its ``_scope_``.

    Raises:
        ConfigError: If the file is not there or the type is not known.
    """
    model = dict(model)
    if 'cfg_path' in model and 'type' not in model:
        return _model_of_file(field, model)
    if 'type' not in model:
        raise ConfigError(
            f'{field}: needs type or cfg_path, but got {sorted(model)}'
        )
    if isinstance(model['type'], str) and '_scope_' not in model:
        scope = _scope_of(model['type'])
        if scope is None:
            raise ConfigError(
                f'{field}.type: {model["type"]!r} is in none of the '
                f'registries {SCOPES}; install its package or write its '
                f'scope, as in mmdet.FasterRCNN'
            )
        model['_scope_'] = scope
    return model


def model_of(field: str, config: Config) -> dict[str, Any]:
    """Return :func:`model_config` of a config, with its data preprocessor."""
    model = model_config(field, config.model)
    if 'data_preprocessor' in config:  # where mmpretrain keeps it
        model.setdefault('data_preprocessor', config.data_preprocessor)
    return model


def read_config(
    field: str, path: str, options: Mapping[str, Any] | None = None
) -> Config:
    """Read a config with a model, of a file or an installed package.

    Args:
        field (str): Which setting names it, for messages.
        path (str): File, or ``'package::path'``.
        options (dict, optional): Overrides, dotted keys.

    Raises:
        ConfigError: If there is none, or it has no model.
    """
    absent = (
        f'{field}: no such file: {path}{from_here(path)}; give a config file '
        f"or 'mmdet::path/in/its/configs.py'"
    )
    if '::' in path:
        try:
            config = Config.fromfile(Config._get_cfg_path(path, '')[0])
        except (FileNotFoundError, ValueError) as error:
            raise ConfigError(absent) from error
    elif Path(path).is_file():
        try:
            config = Config.fromfile(path)
        except (OSError, SyntaxError, KeyError) as error:
            reason = ' '.join(str(error).split())
            raise ConfigError(
                f'{field}: {path} cannot be read ({reason}); mend it; a base '
                f"of mmdet is 'mmdet::path/in/its/configs.py'"
            ) from error
    else:
        raise ConfigError(absent)
    if 'model' not in config:
        raise ConfigError(
            f'{field}: {path} has no model; give the config of one'
        )
    config.merge_from_dict(dict(options or {}))
    return config


def imports_of(config: Config) -> list[str]:
    """Names of the modules that a config imports."""
    names = (config.get('custom_imports') or {}).get('imports') or []
    return [names] if isinstance(names, str) else names


def _model_of_file(field: str, cfg: dict[str, Any]) -> dict[str, Any]:
    path = cfg.pop('cfg_path')
    if cfg.pop('pretrained', False):
        raise ConfigError(
            f'{field}.pretrained: is True; name the weights in teacher_ckpt '
            f"or the student's init_cfg instead"
        )
    if set(cfg) - {'_scope_'}:
        raise ConfigError(
            f'{field}: beside cfg_path it has {sorted(cfg)}; write these into '
            f'the config file'
        )
    config = read_config(f'{field}.cfg_path', path)
    if 'default_scope' in config:
        config.model.setdefault('_scope_', config.default_scope)
    return model_of(field, config)


def _scope_of(type_name: str) -> str | None:
    """The scope that a model type names, or the first that knows it."""
    if '.' in type_name:
        return type_name.split('.')[0]
    for scope in SCOPES:
        with ROOT.switch_scope_and_registry(scope) as registry:
            if registry.scope == scope and registry.get(type_name):
                return scope
    return None
