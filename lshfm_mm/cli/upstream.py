"""The tools of mmdet and mmpretrain, and errors of one line.

Training and testing are the tools of mmdet or mmpretrain, as they lie in
their packages, with their arguments. Around them: the imports that make them
run on today's torch, a look at the files a config needs before any work is
done, and errors of one line.
"""

import importlib.util
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

from mmengine.config import Config

from ..compat.mmengine import patch_device, patch_loaders
from ..compat.mmrazor import patch_generators
from ..compat.mmrazor_configs import patch_config_reading
from ..errors import ConfigError, NonFiniteError
from ..utils.configs import read_config

# Of setuptools, whenever MMEngine finds a config of a package.
warnings.filterwarnings('ignore', 'pkg_resources is deprecated', UserWarning)


def upstream_tool(name: str, arguments: Sequence[str]) -> ModuleType:
    """Load a tool of mmdet, or of mmpretrain for its configs; run nothing.

    Args:
        name (str): Its name, such as 'train'.
        arguments (list[str]): Of the command line. The first that names a
            config tells by its ``default_scope`` whose tool it is.

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


def run_main(main: Callable[[], None]) -> None:
    """Run a tool on a patched MMEngine; make one line of its errors."""
    patch_loaders()
    patch_device()
    patch_config_reading()
    patch_generators()
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
