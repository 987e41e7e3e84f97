"""Reading configs, and the model in them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from inspect import isclass, isfunction
from typing import Any

from mmengine.config import Config
from mmengine.model import PretrainedInit
from mmengine.registry import MODELS as ROOT
from mmengine.utils import get_object_from_string

from ..errors import ConfigError
from .files import check_config_file

SCOPES = ('mmrazor', 'mmdet', 'mmpretrain')


def stem(kind: object) -> str:
    """Name of a type: of a class, or without its scope or module."""
    return str(getattr(kind, '__name__', kind)).rpartition('.')[2]


def model_config(field: str, model: Any) -> dict[str, Any]:
    """Complete the config of a model so that any scope can build it.

    Args:
        field (str): Where the config stands, for messages.
        model (dict | str): A model config, or ``dict(cfg_path=...)`` with a
            config file or a ``'package::path'`` of an OpenMMLab package, or
            that path alone.

    Returns:
        dict: A model config with its ``_scope_``.

    Raises:
        ConfigError: If the file is not there or the type is not known.
    """
    if isinstance(model, str):
        model = dict(cfg_path=model)
    if not isinstance(model, Mapping):
        raise ConfigError(
            f'{field}: must be one model, as a config or the path of its '
            f'file, but got {model!r}'
        )
    model = dict(model)
    if 'cfg_path' in model and 'type' not in model:
        return _model_of_file(field, model)
    if 'type' not in model:
        raise ConfigError(
            f'{field}: needs type or cfg_path, but got {sorted(model)}'
        )
    if '_scope_' not in model:
        scope = _scope_of(model['type'])
        if scope is None and isinstance(model['type'], str):
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

    In one of the new style the classes are replaced by their names.

    Args:
        field (str): Which setting names it, for messages.
        path (str): File, or ``'package::path'``.
        options (dict, optional): Overrides, dotted keys.

    Raises:
        ConfigError: If there is none, or it has no model.
    """
    with _in_one_line(field, path):
        config = _with_names(load_config(field, path))
    if 'model' not in config:
        raise ConfigError(
            f'{field}: {path} has no model; give the config of one'
        )
    config.merge_from_dict(dict(options or {}))
    return config


def load_config(field: str, path: str) -> Config:
    """Read a config, of a file or an installed package, as MMEngine does.

    Raises:
        ConfigError: If there is none, or it cannot be read.
    """
    file = path
    if '::' in path:
        with suppress(FileNotFoundError, ValueError):
            file = Config._get_cfg_path(path, '')[0]
    check_config_file(field, path, file)
    with _in_one_line(field, path):
        return _parse(file)


@contextmanager
def _in_one_line(field: str, path: str) -> Iterator[None]:
    """Say in one line what the code in a config raises."""
    try:
        yield
    except (ConfigError, ModuleNotFoundError):
        raise
    except Exception as error:
        reason = ' '.join(str(error).split())
        raise ConfigError(
            f'{field}: {path} cannot be read ({reason}); mend it; a base '
            f"of mmdet is 'mmdet::path/in/its/configs.py'"
        ) from error


def _parse(file: str) -> Config:
    """Read a file, whatever it imports.

    MMEngine takes each file that imports a package for one of the new style,
    which none of the old style may have as its base; but some of mmpretrain
    only import what they do not need.
    """
    try:
        return Config.fromfile(file)
    except RuntimeError as error:
        if 'inheritance chain' not in str(error):
            raise
        chain = error
    try:
        config = Config.fromfile(file, lazy_import=False)
    except Exception:
        raise ValueError(
            'one of the old style, with _base_, and one of the new style, '
            'with read_base, cannot be the base of each other: make the new '
            'one old by Config.fromfile(NEW).dump(OLD)'
        ) from chain
    return _with_names(config)


def _with_names(config: Config) -> Config:
    """Copy a config, with names in the place of classes it imports."""
    given = {key: config[key] for key in config.to_dict()}
    return Config(_named(given), filename=config.filename)


def _named(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _named(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_named, value))
    return _name_of(value) if isclass(value) or isfunction(value) else value


def _name_of(kind: Any) -> str:
    """The name by which MMEngine finds a class again.

    A function of its module's name hides the module, as in
    mmdet.models.losses.smooth_l1_loss; then the package has the class, too.
    """
    if kind is PretrainedInit:  # which MMEngine looks for by its short name
        return 'Pretrained'
    parts = kind.__module__.split('.')
    names = [
        '.'.join([*parts[:end], kind.__qualname__])
        for end in range(len(parts), 0, -1)
    ]
    return next(
        (x for x in names if get_object_from_string(x) is kind), names[0]
    )


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
    if 'architecture' in config.model:  # of a distillation: its student
        config.model = model_config(field, config.model.architecture)
    if config.get('default_scope'):
        config.model.setdefault('_scope_', config.default_scope)
    return model_of(field, config)


def _scope_of(kind: Any) -> str | None:
    """The scope that a model type names, or the first that knows it.

    Of a class, or the path of one, it is that of what it derives from.
    """
    if isinstance(kind, str):
        dots = kind.count('.')
        for scope in [kind.split('.')[0]] if dots else SCOPES:
            if dots < 2 and _knows(scope, kind):
                return scope
    try:
        kind = ROOT.get(kind) if isinstance(kind, str) else kind
    except RuntimeError:  # no such class
        return None
    bases = [x.__module__.split('.')[0] for x in getattr(kind, '__mro__', ())]
    return next((x for x in bases if x in SCOPES), None)


def _knows(scope: str, kind: str) -> bool:
    with ROOT.switch_scope_and_registry(scope) as registry:
        try:
            return registry.scope == scope and bool(registry.get(kind))
        except RuntimeError:
            return False
