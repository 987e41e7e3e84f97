"""Look at the installed stack, and name the command that mends each part.

Run ``python -m lshfm_mm doctor`` in the environment to look at; its exit
status is 0 when all required parts are fine. ``--machine`` looks at what must
be there before anything is installed. Only the standard library is used, so
that it runs where torch and co are broken.
"""

from __future__ import annotations

import argparse
import ctypes
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata

from . import compile_mmcv, stacks
from .install_mmcv import judge_operators, probe
from .stacks import PYTHON, Stack, dist_version, satisfies

OPENCV_MEND = 'install it, for example "apt-get install libgl1 libglib2.0-0"'


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
COMMON = (  # in the order in which they need each other
    Part('numpy', ('numpy',)),
    Part('cv2', OPENCV, '', ('numpy',)),
    Part('joblib', ('joblib',)),
    Part('pycocotools.mask', ('pycocotools',), '', ('numpy',)),
    Part('torch', ('torch',), '>=2.6'),
    Part('torchvision', ('torchvision',), '', ('torch',)),
)
NEEDS = {
    'mmengine': ('cv2', 'torch'),
    'mmcv': ('mmengine',),
    'mmdet': ('mmcv', 'mmcv.ops'),
    'mmpretrain': ('pair', 'mmcv', 'mmcv.ops'),
}


def parts(stack: Stack) -> list[Part]:
    """Return all packages, each after those that it needs."""
    found = [*COMMON]
    for module, (dist, spec) in stack.packages.items():
        needs, required = NEEDS.get(module, ()), module != 'mmpretrain'
        found.append(Part(module, (dist,), spec, needs, required))
        if module == 'mmcv':
            found.append(Part('mmcv.ops', (dist,), '', ('pair', 'mmcv')))
    return [*found, Part('mmrazor', ('mmrazor',), '==1.0.0', NEEDS['mmdet'])]


def check_python() -> Check:
    """Check the version of this interpreter."""
    here = '.'.join(map(str, sys.version_info[:3]))
    fits = satisfies(here, PYTHON)
    error = '' if fits else f'this is {here}, needed is {PYTHON}'
    mend = 'name another one, for example "make env PYTHON=python3.11"'
    return Check('Python', here, PYTHON, error, mend)


def missing_library() -> str:
    """Return a library of the system that OpenCV's wheel lacks, or ''."""
    if sys.platform == 'linux':
        try:
            ctypes.CDLL('libGL.so.1')
            ctypes.CDLL('libgthread-2.0.so.0')
        except OSError as error:
            return str(error).split(':')[0]
    return ''


def check_part(part: Part, error: str, before: Mapping[str, Check]) -> Check:
    """Check one package, that is imported with this error, or ''.

    Its ``mend`` points at the first part it lacks of those checked before.
    """
    version = dist_version(*part.dists)
    wanted = [part.dists[0] + part.spec]
    missing = re.search(r"No module named '(\w+)", error)
    lacking = [
        before[need].name
        for need in part.needs
        if need in before and before[need].error
    ]
    if not version:
        error = 'not installed'
    elif not satisfies(version, part.spec):
        error = f'version {version} is outside {part.spec}'
    elif missing and missing[1] != part.module.split('.')[0]:
        wanted = [missing[1]]
    else:
        wanted = ['--force-reinstall', '--no-deps', *wanted]
    mend = stacks.pip_install(*wanted)
    if version and lacking:
        mend = f'mend {lacking[0]} first'
    elif part.module.startswith('mmcv'):
        mend = 'python -m lshfm_mm install_mmcv'
    elif part.module == 'cv2' and 'cannot open shared object' in error:
        mend = OPENCV_MEND
    needed = part.spec or 'any'
    name, found = part.dists[0], version or 'none'
    return Check(name, found, needed, error, mend, part.required)


def check_pair(torch: str, torchvision: str, error: str) -> Check:
    """Check that torchvision of a version was made for a version of torch.

    With the ``error`` of its import, or '': its version can be right and its
    build (CPU or CUDA) another. ``mend`` takes the index of torch's build.
    """
    requires = '\n'.join(metadata.requires('torchvision') or ())
    asked = re.search(r'^torch\s*\(?([<>=!][^;)\n]*)', requires, re.M)
    wanted = asked[1].replace(' ', '') if asked else ''
    pair = f'torchvision=={torchvision.split("+")[0]}'
    mend = f'pip install --force-reinstall --no-deps {pair}'
    if not satisfies(torch, wanted):
        error = f'torchvision {torchvision} needs torch{wanted}'
        mend = f'pip install {stacks.quote(f"torch{wanted}")} {pair}'
    if '+' in torch:
        build = torch.split('+')[1]
        mend += f' --index-url https://download.pytorch.org/whl/{build}'
    name, found = 'torch + torchvision', f'{torch} + {torchvision}'
    return Check(name, found, f'torch{wanted}', error, mend)


def check_stack() -> list[Check]:
    """Check Python, which stack is installed, and each package of it."""
    error, mend = stacks.mixture()
    names = [x.name for x in stacks.STACKS.values() if x.installed()]
    installed = ' + '.join(names) or 'none'
    checks = {
        'python': check_python(),
        'stack': Check('stack', installed, 'one', error, mend),
    }
    if error:  # what else is found would be about files of the other one
        return [*checks.values()]
    stack = stacks.choose()
    errors, operators = probe([part.module for part in parts(stack)])
    kind = 'none'
    if operators:
        kind, errors['mmcv.ops'] = judge_operators(stack, operators)
    for part in parts(stack):
        module, error = part.module, errors[part.module]
        if module == 'torchvision':
            checks[module] = check_part(part, '', checks)
            versions = dist_version('torch'), dist_version('torchvision')
            if all(versions) and not errors['torch']:
                checks['pair'] = check_pair(*versions, error)
            continue
        check = check_part(part, error, checks)
        if module == 'mmcv.ops':
            found = 'none' if check.error else kind
            check = replace(check, name='mmcv operators', found=found)
        checks[module] = check
    return [*checks.values()]


def format_table(checks: Sequence[Check]) -> str:
    """Return the table, with error and command under each line that fails."""
    rows, notes = [('part', 'found', 'needed', 'status')], ['']
    for check in checks:
        bad = 'FAIL' if check.required else 'optional'
        status = bad if check.error else 'ok'
        note = f'\n    {check.error}\n    mend: {check.mend}'
        rows.append((check.name, check.found, check.needed, status))
        notes.append(note if check.error else '')
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return '\n'.join(
        '  '.join(map(str.ljust, row, widths)).rstrip() + note
        for row, note in zip(rows, notes, strict=True)
    )


def main() -> int:
    """Print what was found; return the exit status."""
    parser = argparse.ArgumentParser(
        description='Look at the installed stack; say what mends it.'
    )
    parser.add_argument(
        '--machine',
        action='store_true',
        help='look at what must be there before anything is installed, and '
        'print only what fails',
    )
    parser.add_argument(
        '--compiled',
        action='store_true',
        help='with --machine: look for a C++ compiler, too',
    )
    parser.add_argument(
        '--stack',
        choices=stacks.STACKS,
        help='with --machine: whether this stack may be installed here',
    )
    args = parser.parse_args()
    if args.machine:
        return look_at_machine(args.compiled, args.stack)
    checks = check_stack()
    print(format_table(checks))
    lacking = [check for check in checks if check.error]
    failing = sum(check.required for check in lacking)
    if failing:
        print(f'\n{failing} required lines fail: mend the first one first')
        return 1
    classification = (
        'classification needs mmpretrain' if lacking else 'and classification'
    )
    print(f'\nall required parts are fine: detection runs, {classification}')
    return 0


def look_at_machine(compiled: bool, stack: str | None) -> int:
    """Print a line for each thing that fails; return the exit status."""
    lines = []
    python = check_python()
    if python.error:
        lines.append(f'Python: {python.error}; {python.mend}')
    if library := missing_library():
        lines.append(f'{library}: OpenCV needs {library}; {OPENCV_MEND}')
    try:
        stacks.choose(stack)
    except ValueError as error:
        lines.append(f'stack: {error}')
        compiled = False  # its compiler is another matter
    for line in lines:
        print(f'error: {line}')
    if compiled:
        compile_mmcv.find_compiler()
    return int(bool(lines))
