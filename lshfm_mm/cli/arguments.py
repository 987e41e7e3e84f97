"""What is wrong with arguments, told before the stack is imported."""

import argparse
import ast
import os
import re
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..utils.files import check_config_file, local_file


def check_files(
    configs: Mapping[str, str | None] | None = None,
    checkpoints: Mapping[str, str | None] | None = None,
) -> None:
    """Raise where a named file is not there.

    Those of packages and servers are looked for when they are read.

    Args:
        configs (dict, optional): Paths, by the field for messages.
        checkpoints (dict, optional): Likewise.

    Raises:
        ConfigError: If there is no such file.
    """
    for field, path in (configs or {}).items():
        if path is not None and '::' not in path:
            check_config_file(field, path)
    for field, path in (checkpoints or {}).items():
        if path is not None and '://' not in path:
            local_file(field, path)


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


def config_in(arguments: Sequence[str]) -> str | None:
    """The first argument that names a config: of a package, or there."""
    for path in arguments:
        if path.endswith('.py') and ('::' in path or Path(path).is_file()):
            return path
    return None


def parse_upstream(name: str) -> Namespace:
    """Parse the command line as the tools of mmdet and mmpretrain do.

    Which of the two a config is for is only known once it is read. Until then
    arguments are wrong if both refuse them, and the answer, or the help, is
    that of the one whose scope stands in the config's text.

    Args:
        name (str): Of the tool, such as 'train'.

    Returns:
        Namespace: Values of ``--cfg-options`` are as they are typed.

    Raises:
        ConfigError: If a package has no such tool.
        SystemExit: If the arguments are wrong, or ask for help.
    """
    given = config_in(sys.argv[1:])
    likely, other = 'mmdet', 'mmpretrain'
    with suppress(Exception):  # a guess; what is wrong with it is told later
        if given and _scope(given) == other:
            likely, other = other, likely
    if given and find_spec(other):
        silent = redirect_stdout(StringIO()), redirect_stderr(StringIO())
        with suppress(SystemExit, ConfigError), silent[0], silent[1]:
            return _parser(tool_of(other, name))()
    return _parser(tool_of(likely, name))()


def tool_of(package: str, name: str) -> Path:
    """The file of a tool in an installed package.

    Raises:
        ConfigError: If the package has no such tool.
    """
    path = _mim(package) / 'tools' / f'{name}.py'
    if not path.is_file():
        raise ConfigError(
            f'{package}: has no {path}; install it from its wheel: pip '
            f'install {package}'
        )
    return path


def _mim(package: str) -> Path:
    """The folder of an installed package's configs and tools."""
    spec = find_spec(package)
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent / '.mim'


def _parser(path: Path) -> Any:
    """The function parse_args of a tool, without what its file imports."""
    module = ast.parse(path.read_text('utf-8'))
    module.body = [
        x for x in module.body if getattr(x, 'name', None) == 'parse_args'
    ]
    names = dict(argparse=argparse, os=os, DictAction='store')
    exec(compile(module, str(path), 'exec'), names)
    return names['parse_args']


def _scope(path: str, folder: Path = Path()) -> str | None:
    """The default_scope in the text of a config or of its bases."""
    package, _, file = path.rpartition('::')
    if package:
        folder = _mim(package) / 'configs' if find_spec(package) else folder
    place = folder / file
    if not place.is_file():
        return None
    text = place.read_text('utf-8')
    if found := re.search(r'^default_scope = .(\w+)', text, re.M):
        return found[1]
    bases = re.search(r'^_base_ = (\[[^\]]*\]|.*)', text, re.M)
    for base in re.findall(r'[\'"](.+?)[\'"]', bases[1]) if bases else ():
        if scope := _scope(base, place.parent):
            return scope
    named = {*re.findall(r'\b(mmdet|mmpretrain)\b', text)}
    return named.pop() if len(named) == 1 else None
