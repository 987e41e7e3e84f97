"""The tools of mmdet and mmpretrain.

Training and testing are the tools of mmdet or mmpretrain, as they lie in
their packages, with their arguments.
"""

import importlib.util
from argparse import Namespace
from collections.abc import Mapping, Sequence
from functools import partial
from types import ModuleType, SimpleNamespace
from typing import Any

from mmengine.config import Config
from mmengine.device import get_device

from ..errors import ConfigError
from ..utils.configs import load_config, model_config, read_config, stem
from .arguments import config_in, tool_of


def upstream_tool(name: str, arguments: Sequence[str]) -> ModuleType:
    """Load a tool of mmdet, or of mmpretrain for its configs; run nothing.

    Args:
        name (str): Its name, such as 'train'.
        arguments (list[str]): Of the command line. The first that names a
            config tells by its ``default_scope``, or where it has none by its
            model, whose tool it is.

    Returns:
        ModuleType: With ``parse_args`` and ``main``.

    Raises:
        ConfigError: If a package is absent, or has no such tool.
    """
    given = config_in(arguments)
    try:
        cfg = read_config('config', given) if given else Config()
    except ModuleNotFoundError as error:
        raise ConfigError(
            f'config: {given} needs a package that is not installed '
            f'({error}); python -m lshfm_mm doctor says what installs it'
        ) from error
    scope = cfg.get('default_scope')
    if scope is None and 'model' in cfg:
        model = cfg.model.get('architecture', cfg.model)
        scope = model_config('model', model).get('_scope_')
    package = 'mmpretrain' if scope == 'mmpretrain' else 'mmdet'
    path = tool_of(package, name)
    spec = importlib.util.spec_from_file_location(f'{package}_{name}', path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    # It shall read what we can read.
    reader = SimpleNamespace(fromfile=partial(load_config, 'config'))
    vars(module)['Config'] = reader
    return module


def fit_machine(args: Namespace, cfg: Config) -> None:
    """Settle what needs workers, a GPU or a key that is not there.

    Args:
        args (Namespace): Arguments of the tool; its ``cfg_options`` are
            changed in place.
        cfg (Config): The config, with its overrides; changed in place.

    Raises:
        ConfigError: If mixed precision needs a GPU, or --auto-scale-lr a
            base_batch_size.
    """
    options: dict[str, Any] = {}
    for key in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        loader = cfg.get(key)
        if isinstance(loader, Mapping) and not loader.get('num_workers'):
            options[f'{key}.persistent_workers'] = False
            if 'prefetch_factor' in loader:
                options[f'{key}.prefetch_factor'] = None
    wrapper = stem((cfg.get('optim_wrapper') or {}).get('type'))
    trains = hasattr(args, 'auto_scale_lr')
    has_amp = trains and (args.amp or wrapper == 'AmpOptimWrapper')
    if has_amp and get_device() == 'cpu':
        fix = 'leave --amp out, and write' if args.amp else 'write'
        raise ConfigError(
            f'optim_wrapper.type: AmpOptimWrapper, which --amp takes, too, '
            f"needs a GPU, and there is none; {fix} type='OptimWrapper', or "
            f"'mmrazor.BFloat16OptimWrapper' for bfloat16 on a CPU"
        )
    if trains and args.auto_scale_lr:
        if 'base_batch_size' not in (cfg.get('auto_scale_lr') or {}):
            raise ConfigError(
                'auto_scale_lr: --auto-scale-lr needs the batch size that the '
                'learning rate of the config is for; write auto_scale_lr='
                'dict(base_batch_size=16), or leave the flag out'
            )
        options['auto_scale_lr.enable'] = True
    cfg.merge_from_dict(options)
    args.cfg_options = {**(args.cfg_options or {}), **options}
