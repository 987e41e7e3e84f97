"""Look at the installed stack, and name the command that mends each part.

Run ``python -m lshfm_mm.doctor`` in the environment to look at; its exit
status is 0 when all required parts are fine. Before anything is downloaded,
``python3 -I lshfm_mm/doctor.py --machine`` looks at the machine alone. Only
the standard library is used, so that it runs where torch and co are broken.
"""

from __future__ import annotations

import argparse
import ctypes
import operator
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

PYTHON = '>=3.10,<3.13'
INSTALL_MMCV = 'python tools/install_mmcv.py'
OPENCV_MEND = 'install it, for example "apt-get install libgl1 libglib2.0-0"'
COMPARE = {
    '>=': operator.ge, '<=': operator.le, '==': operator.eq,
    '!=': operator.ne, '>': operator.gt, '<': operator.lt,
}  # fmt: skip
# Imports each module it is given, and says how that went in one line each.
PROBE = r"""
import importlib, sys, traceback
for name in sys.argv[1:]:
    error = ''
    try:
        importlib.import_module(name)
    except BaseException as e:
        error = ''.join(traceback.format_exception_only(type(e), e))
        error = error.strip().splitlines()[-1]
    print(f'\nprobe:{name}:{error}', flush=True)
"""


@dataclass(frozen=True)
class Check:
    """One line of the table; ``error`` is empty when the part is fine."""

    name: str
    found: str
    needed: str
    error: str = ''
    mend: str = ''
    required: bool = True


@dataclass(frozen=True)
class Part:
    """A package: what to import, what pip calls it, which versions do.

    ``needs`` are the checks without which the import must fail.
    """

    module: str
    dists: tuple[str, ...]
    spec: str = ''
    needs: tuple[str, ...] = ()
    required: bool = True


OPENCV = ('opencv-python', 'opencv-python-headless', 'opencv-contrib-python')
MMCV = ('mmcv', 'mmcv.ops')
PARTS = (  # in the order in which they need each other
    Part('pkg_resources', ('setuptools',), '<81'),  # MMEngine imports it
    Part('numpy', ('numpy',)),
    Part('cv2', OPENCV, '', ('numpy',)),
    Part('joblib', ('joblib',)),
    Part('pycocotools.mask', ('pycocotools',), '', ('numpy',)),
    Part('torch', ('torch',), '>=2.6'),
    Part('torchvision', ('torchvision',), '', ('torch',)),
    Part('mmengine', ('mmengine',), '>=0.10.3,<1', ('cv2', 'torch')),
    Part('mmcv', ('mmcv',), '>=2.0.0,<=2.1.0', ('mmengine',)),
    Part('mmcv.ops', ('mmcv',), '', ('mmcv',)),
    Part('mmdet', ('mmdet',), '>=3.3,<3.4', MMCV),
    Part('mmrazor', ('mmrazor',), '==1.0.0', MMCV),
    Part('mmpretrain', ('mmpretrain',), '>=1.2,<1.3', ('pair', *MMCV), False),
)


def numbers(version: str) -> tuple[int, ...]:
    """Return the numbers of a version such as ``2.1.0+cpu``: ``(2, 1)``."""
    release = re.match(r'\d+(\.\d+)*', version)
    text = re.sub(r'(\.0+)+$', '', release.group() if release else '0')
    return tuple(map(int, text.split('.')))


def satisfies(version: str, spec: str) -> bool:
    """Whether a version is in a range such as ``>=2.0.0,<=2.1.0``."""
    bounds = re.findall(r'([<>=!]+)\s*([\w.]+)', spec)
    return all(
        COMPARE[sign](numbers(version), numbers(bound))
        for sign, bound in bounds
    )


def installed(*dists: str) -> str:
    """Return the version of the first installed of ``dists``, or ''."""
    for dist in dists:
        try:
            return metadata.version(dist)
        except metadata.PackageNotFoundError:
            continue
    return ''


def torch_for_torchvision() -> str:
    """Return the range of torch that the installed torchvision asks for."""
    for line in metadata.requires('torchvision') or ():
        wanted = re.match(r'torch\s*\(?([<>=!][^;)]*)', line)
        if wanted:
            return wanted.group(1).replace(' ', '')
    return ''


def probe(modules: Sequence[str]) -> dict[str, str]:
    """Import modules in a new process, and in another one after a crash.

    Args:
        modules (Sequence[str]): Names to import, in this order.

    Returns:
        dict[str, str]: For each, the last line of its error, or ''.
    """
    errors: dict[str, str] = {}
    while len(errors) < len(modules):
        left = modules[len(errors) :]
        done = subprocess.run(
            [sys.executable, '-c', PROBE, *left],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding='utf-8',
            errors='replace',
        )
        told = re.findall(r'^probe:([\w.]+):(.*)$', done.stdout, re.M)
        errors.update(told)
        if len(told) < len(left):
            status = f'Python exits with {done.returncode}'
            errors[left[len(told)]] = f'{status} when it is imported'
    return errors


def check_python() -> Check:
    """Check the version of this interpreter."""
    version = '.'.join(map(str, sys.version_info[:3]))
    if satisfies(version, PYTHON):
        return Check('Python', version, PYTHON)
    error = f'this is {version}, needed is {PYTHON}'
    mend = 'name another one, for example "make env PYTHON=python3.11"'
    return Check('Python', version, PYTHON, error, mend)


def check_compiler() -> Check:
    """Check for a C++ compiler ($CXX, else c++ or g++) and Python.h."""
    named = os.environ.get('CXX', '').strip()
    commands = [shlex.split(named)] if named else [['c++'], ['g++']]
    found = [command for command in commands if shutil.which(command[0])]
    headers = Path(sysconfig.get_path('include'))
    error = mend = ''
    if not found:
        error = f'no C++ compiler found (CXX {named or "unset"})'
        mend = 'install one, for example "apt-get install g++", or set CXX'
    elif subprocess.run(
        [*found[0], '-std=c++20', '-fsyntax-only', '-x', 'c++', os.devnull],
        capture_output=True,
    ).returncode:
        error = f'{shlex.join(found[0])} cannot compile C++20'
        mend = 'install g++ 10 or later, or set CXX to another compiler'
    elif not (headers / 'Python.h').is_file():
        error = f'no Python.h in {headers}'
        mend = f'install it, for example "apt-get install {headers.name}-dev"'
    name = shlex.join(found[0]) if found else 'none'
    return Check('compiler', name, 'C++20', error, mend)


def check_machine() -> list[Check]:
    """Check what must be there before anything is downloaded."""
    checks = [check_python(), check_compiler()]
    if not shutil.which('git'):
        mend = 'install it, for example "apt-get install git"'
        checks.append(Check('git', 'none', 'any', 'not found', mend))
    if sys.platform == 'linux':
        try:
            ctypes.CDLL('libGL.so.1')
            ctypes.CDLL('libgthread-2.0.so.0')
        except OSError as error:
            library = str(error).split(':')[0]
            lack = f'OpenCV needs {library}'
            checks.append(Check(library, 'none', 'any', lack, OPENCV_MEND))
    return checks


def check_part(part: Part, error: str, before: Mapping[str, Check]) -> Check:
    """Check one package.

    Args:
        part (Part): The package.
        error (str): Why it cannot be imported, or ''.
        before (Mapping[str, Check]): The checks of earlier modules.

    Returns:
        Check: Its ``mend`` points at the first part it lacks, if one fails.
    """
    version = installed(*part.dists)
    needed, name = part.spec or 'any', part.dists[0]
    wanted = shlex.quote(name + part.spec)
    missing = re.search(r"No module named '(\w+)", error)
    needed_checks = [before[need] for need in part.needs if need in before]
    lacking = [check.name for check in needed_checks if check.error]
    if not version:
        error = 'not installed'
    elif not satisfies(version, part.spec):
        error = f'version {version} is outside {part.spec}'
    elif missing and missing[1] != part.module.split('.')[0]:
        wanted = missing[1]
    else:
        wanted = f'--force-reinstall --no-deps {wanted}'
    mend = f'pip install -c requirements.lock {wanted}'
    if version and lacking:
        mend = f'mend {lacking[0]} first'
    elif name == 'mmcv':
        mend = INSTALL_MMCV
    elif part.module == 'cv2' and 'cannot open shared object' in error:
        mend = OPENCV_MEND
    if part.module == 'mmcv.ops':
        name, needed = 'mmcv compiled ops', 'compiled'
        version = 'none' if error else 'compiled'
    return Check(name, version or 'none', needed, error, mend, part.required)


def check_pair(torch: str, torchvision: str, wanted: str, error: str) -> Check:
    """Check that torchvision was made for this torch.

    Args:
        torch (str): Version of torch, such as ``2.14.1+cpu``.
        torchvision (str): Version of torchvision.
        wanted (str): The range of torch that torchvision asks for.
        error (str): Why torchvision cannot be imported, or ''. Its version
            can be right and its build (CPU or CUDA) another than torch's.

    Returns:
        Check: Its ``mend`` installs the pair, from the index of its build.
    """
    pair = f'torchvision=={torchvision.split("+")[0]}'
    mend = f'pip install --force-reinstall --no-deps {pair}'
    if not satisfies(torch, wanted):
        error = f'torchvision {torchvision} needs torch{wanted}'
        mend = f'pip install {shlex.quote(f"torch{wanted}")} {pair}'
    if '+' in torch:
        build = torch.split('+')[1]
        mend += f' --index-url https://download.pytorch.org/whl/{build}'
    found = f'{torch} + {torchvision}'
    return Check('torch + torchvision', found, f'torch{wanted}', error, mend)


def check_stack() -> list[Check]:
    """Check Python, each package and, if mmcv needs it, the compiler."""
    errors = probe([part.module for part in PARTS])
    checks = {'python': check_python()}
    if errors['mmcv.ops']:
        checks['compiler'] = check_compiler()
    for part in PARTS:
        error = errors[part.module]
        if part.module != 'torchvision':
            checks[part.module] = check_part(part, error, checks)
            continue
        torch, torchvision = installed('torch'), installed(part.module)
        checks[part.module] = check_part(part, '', checks)
        if torch and torchvision and not errors['torch']:
            checks['pair'] = check_pair(
                torch, torchvision, torch_for_torchvision(), error
            )
    return list(checks.values())


def format_table(checks: Sequence[Check]) -> str:
    """Return the table, with error and command under each line that fails."""
    rows = [('part', 'found', 'needed', 'status')]
    notes = {}
    for check in checks:
        bad = 'FAIL' if check.required else 'optional'
        status = bad if check.error else 'ok'
        rows.append((check.name, check.found, check.needed, status))
        if check.error:
            notes[len(rows)] = f'\n    {check.error}\n    mend: {check.mend}'
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for i, row in enumerate(rows, 1):
        line = '  '.join(map(str.ljust, row, widths))
        lines.append(line.rstrip() + notes.get(i, ''))
    return '\n'.join(lines)


def main() -> int:
    """Print what was found; return the exit status."""
    parser = argparse.ArgumentParser(
        description='Look at the installed stack; say what mends it.'
    )
    parser.add_argument(
        '--machine',
        action='store_true',
        help='look at the machine alone, and print only what fails',
    )
    machine = parser.parse_args().machine
    checks = check_machine() if machine else check_stack()
    failing = [check for check in checks if check.error and check.required]
    if machine:
        for check in failing:
            print(f'error: {check.name}: {check.error}; {check.mend}')
    else:
        print(format_table(checks))
        lacking = [check.name for check in checks if check.error]
        print(
            f'\n{len(failing)} required lines fail: mend the first one first'
            if failing
            else '\nall required parts are fine: detection runs, '
            + (
                'classification needs mmpretrain'
                if 'mmpretrain' in lacking
                else 'and classification'
            )
        )
    return 1 if failing else 0


if __name__ == '__main__':
    sys.exit(main())
