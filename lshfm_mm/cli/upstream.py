"""What the command-line tools share.

Training and testing are the tools of mmdet or mmpretrain, as they lie in
their packages, with their arguments. Around them: the imports that make them
run on today's torch, a look at the files a config needs before any work is
done, and errors of one line.
"""

import importlib.util
import re
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import mmengine.registry
from mmengine.config import Config
from mmengine.registry import Registry

from ..errors import ConfigError, NonFiniteError, check_arguments, nearest
from ..utils.configs import read_config

# Of setuptools, whenever MMEngine finds a config of a package.
warnings.filterwarnings('ignore', 'pkg_resources is deprecated', UserWarning)
REGISTRIES = {
    x.name: x
    for x in vars(mmengine.registry).values()
    if isinstance(x, Registry)
}


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
