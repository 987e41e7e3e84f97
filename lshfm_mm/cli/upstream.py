"""The tools of mmdet and mmpretrain, and errors of one line.

Training and testing are the tools of mmdet or mmpretrain, as they lie in
their packages, with their arguments. Around them: the imports that make them
run on today's torch, a look at the files a config needs before any work is
done, and errors of one line.
"""

import importlib.util
import signal
import sys
import warnings
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from mmengine.config import Config
from mmengine.device import get_device

from ..compat.mmengine import patch_device, patch_loaders
from ..compat.mmrazor import patch_generators
from ..compat.mmrazor_configs import patch_config_reading
from ..errors import ConfigError, NonFiniteError
from ..utils.configs import load_config, model_config, read_config, stem

# Of setuptools, whenever MMEngine finds a config of a package.
warnings.filterwarnings('ignore', 'pkg_resources is deprecated', UserWarning)


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
    paths = [
        argument
        for argument in arguments
        if argument.endswith('.py')
        and ('::' in argument or Path(argument).is_file())
    ]
    try:
        cfg = read_config('config', paths[0]) if paths else Config()
    except ModuleNotFoundError as error:
        raise ConfigError(
            f'config: {paths[0]} needs a package that is not installed '
            f'({error}); python -m lshfm_mm doctor says what installs it'
        ) from error
    scope = cfg.get('default_scope')
    if scope is None and 'model' in cfg:
        model = cfg.model.get('architecture', cfg.model)
        scope = model_config('model', model).get('_scope_')
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
        raise ConfigError(
            'optim_wrapper.type: AmpOptimWrapper, which --amp takes, needs a '
            'GPU, and there is none; leave --amp out and, for bfloat16 on a '
            "CPU, write optim_wrapper.type='mmrazor.BFloat16OptimWrapper'"
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


def parse_names(field: str, arguments: Sequence[str]) -> dict[str, str]:
    """Read arguments NAME=VALUE; ``field`` names them in messages.

    Raises:
        ConfigError: If one has no name or no value, or a name is given twice.
    """
    values: dict[str, str] = {}
    for argument in arguments:
        name, _, value = argument.partition('=')
        if not name or not value or name in values:
            reason = 'is given twice' if name in values else 'is no NAME=VALUE'
            raise ConfigError(
                f'{field}: {argument!r} {reason}; write lsh=work_dirs/lsh/'
                f'epoch_7.pth, each name once'
            )
        values[name] = value
    return values


def run_main(main: Callable[[], None], stopped: str = '') -> None:
    """Run a tool on a patched MMEngine; make one line of its errors.

    Args:
        main (Callable): The tool.
        stopped (str): What it says when SIGTERM ends it, after it has ended
            its children. Defaults to the signal ending it at once.
    """
    patch_loaders()
    patch_device()
    patch_config_reading()
    patch_generators()
    former = None
    if stopped:
        former = signal.signal(signal.SIGTERM, lambda *_: sys.exit(stopped))
    try:
        main()
    except (ConfigError, NonFiniteError) as error:
        sys.exit(f'error: {error}')
    except Exception as error:
        if '!buf.empty()' in str(error):  # of OpenCV, which names no file
            sys.exit(
                'error: image: one is an empty file; find it with "find '
                'FOLDER -size 0" in the folder of the images, and make it '
                'again'
            )
        raise
    finally:
        if former is not None:
            signal.signal(signal.SIGTERM, former)
