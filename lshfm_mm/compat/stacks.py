"""The two stacks that lshfm_mm runs on, and which of them is installed.

OneDL's packages are forks of OpenMMLab's that install into the same folders:
the one installed last writes over the other, and uninstalling one deletes
the files of both, all without a word of pip. A module's version tells
nothing then, so the stacks are told apart by the names of distributions.

Only the standard library is used, also for ranges of versions: setup.py and
the doctor read this file where nothing is installed yet, packaging neither.
"""

from __future__ import annotations

import operator
import re
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

PYTHON = '>=3.10,<3.14'
LOCK = Path(__file__).resolve().parents[2] / 'requirements.lock'
# Without these nothing but the maths works.
MODULES = ('mmengine', 'mmcv', 'mmdet')
# These write into mmcv's folder, too.
OTHER_MMCV = ('mmcv-lite', 'mmcv-full')
COMPARE = {
    '>=': operator.ge, '<=': operator.le, '==': operator.eq,
    '!=': operator.ne, '>': operator.gt, '<': operator.lt,
}  # fmt: skip


class Release(NamedTuple):
    """One file of the package index, which its hash selects."""

    requirement: str
    sha256: str


@dataclass(frozen=True)
class Stack:
    """Packages that belong together."""

    name: str  # also of the extra in setup.py
    packages: dict[str, tuple[str, str]]  # module -> distribution, versions
    mmcv: str  # the version that is installed
    python: Release  # mmcv's Python files
    source: Release  # what the compiled mmcv is built from

    def installed(self) -> dict[str, str]:
        """Return the versions of its distributions that are installed."""
        names = (name for name, _ in self.packages.values())
        return _installed(*(name for name in names if 'mm' in name))

    def requirements(self) -> list[str]:
        """Return what pip can install: all but mmcv, see install_mmcv."""
        return [
            name + spec
            for module, (name, spec) in self.packages.items()
            if module != 'mmcv'
        ]


OPENMMLAB = Stack(
    'openmmlab',
    {
        # MMEngine imports it, and distutils, which it has for Python 3.12.
        'pkg_resources': ('setuptools', '<81'),
        'mmengine': ('mmengine', '>=0.10.3,<1'),
        'mmcv': ('mmcv', '>=2.0.0,<=2.1.0'),
        'mmdet': ('mmdet', '>=3.3,<3.4'),
        'mmpretrain': ('mmpretrain', '>=1.2,<1.3'),
    },
    mmcv='2.1.0',
    python=Release(
        'mmcv-lite==2.1.0',
        '1d9913c35f793de4a3a022b93cecb712e1e7262eb4704eb8cd15e623dd375000',
    ),
    source=Release(
        'mmcv==2.1.0',
        'd387bcab66b467479b6660310e23746cfc79c6e57acf04094680adb499a5cd3f',
    ),
)
# Both of mmcv's files are this one.
_ONEDL_MMCV = Release(
    'onedl-mmcv==2.3.6',
    '8704978a3d492b15cc058742ac3165bd1bcc2dd20678da9ed39e0da3048e3045',
)
ONEDL = Stack(
    'onedl',
    {
        'mmengine': ('onedl-mmengine', '>=0.10.12,<0.11'),
        'mmcv': ('onedl-mmcv', '>=2.3.6,<2.4'),
        'mmdet': ('onedl-mmdetection', '>=3.5.1,<3.6'),
        'mmpretrain': ('onedl-mmpretrain', '>=1.3.6,<1.4'),
    },
    mmcv='2.3.6',
    python=_ONEDL_MMCV,
    source=_ONEDL_MMCV,
)
STACKS = {stack.name: stack for stack in (OPENMMLAB, ONEDL)}


def is_begun() -> bool:
    """Whether any part of a stack is installed."""
    return any(find_spec(module) for module in MODULES)


def lack() -> str:
    """Return what of a stack is not installed, as one line, or ''."""
    absent = [module for module in MODULES if find_spec(module) is None]
    if not absent:
        return ''
    return (
        f'{absent[0]} is not installed; lshfm_mm needs one of its extras, '
        f'[openmmlab] or [onedl], and an mmcv: "python -m lshfm_mm doctor" '
        f'names the commands'
    )


def dist_version(*names: str) -> str:
    """Return the version of the first distribution that is there, or ''."""
    return next(iter(_installed(*names).values()), '')


def _installed(*names: str) -> dict[str, str]:
    """Return the versions of those distributions that are there.

    Of one that pip removed by half, a folder without metadata may be left.
    """
    versions = {}
    for name in names:
        with suppress(metadata.PackageNotFoundError):
            if version := metadata.version(name):
                versions[name] = version
    return versions


def version(module: str) -> str:
    """Return the version of a module's distribution, of any stack, or ''."""
    names = (x.packages.get(module, (module,))[0] for x in STACKS.values())
    return dist_version(module, *names)


def numbers(version: str) -> tuple[int, ...]:
    """Return the numbers of a version such as ``2.1.0+cpu``: ``(2, 1)``."""
    release = re.match(r'\d+(\.\d+)*', version)
    text = re.sub(r'(\.0+)+$', '', release.group() if release else '0')
    return tuple(map(int, text.split('.')))


def satisfies(version: str, spec: str) -> bool:
    """Whether a version is in a range such as ``>=2.0.0,<=2.1.0``."""
    return all(
        COMPARE[sign](numbers(version), numbers(bound))
        for sign, bound in re.findall(r'([<>=!]+)\s*([\w.]+)', spec)
    )


def quote(requirement: str) -> str:
    """Quote a requirement for any shell; cmd.exe knows double quotes only."""
    is_word = re.fullmatch(r'[\w.=+-]+', requirement)
    return requirement if is_word else f'"{requirement}"'


def pip_install(*wanted: str) -> str:
    """Return the command that installs what is tested, if it is wanted."""
    lock = [f'-c {LOCK.name}'] if LOCK.is_file() else []
    return ' '.join(['pip install', *lock, *map(quote, wanted)])


def _listed(versions: dict[str, str]) -> str:
    return ', '.join(f'{name} {number}' for name, number in versions.items())


def mixture() -> tuple[str, str]:
    """Say which packages write over each other, and what mends that.

    Returns:
        tuple[str, str]: Two empty ones where nothing is wrong.
    """
    both = [stack.installed() for stack in STACKS.values()]
    others = _installed(*OTHER_MMCV)
    if not others and not all(both):
        return '', ''
    clash = both[0] | both[1] | others
    install = ', or '.join(
        f'`{pip_install(*stack.requirements())}` for {stack.name}'
        for stack in STACKS.values()
    )
    return (
        f'{_listed(clash)} write into the same folders',
        f'`pip uninstall -y {" ".join(clash)}`, then {install}, then '
        f'`python -m lshfm_mm install_mmcv`',
    )


def choose(name: str | None = None) -> Stack:
    """Return the stack that is installed, else the one of this name.

    It is OpenMMLab's where none is installed and none asked for.

    Raises:
        ValueError: If both are installed, or another than asked for.
    """
    error, mend = mixture()
    if error:
        raise ValueError(f'{error}; {mend}')
    here = [stack for stack in STACKS.values() if stack.installed()]
    stack = here[0] if here else STACKS[name or OPENMMLAB.name]
    if name and stack.name != name:
        raise ValueError(
            f'{name} is asked for, but {_listed(stack.installed())} of '
            f'{stack.name} would be written over; take another environment, '
            f'for example "make env STACK={name} VENV=.venv-{name}", or "pip '
            f'uninstall -y {" ".join(stack.installed())}" first'
        )
    return stack
