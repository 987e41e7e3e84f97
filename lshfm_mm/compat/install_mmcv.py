"""Install mmcv, with its operators on torchvision or compiled.

mmcv-lite, a published wheel, has all of mmcv but the module ``mmcv._ext``
with the operators. Here it is downloaded, and installed under the name of
mmcv with :mod:`lshfm_mm.compat.mmcv_ext` in that place::

    python -m lshfm_mm install_mmcv

It takes seconds and no compiler; processes that never import lshfm_mm use it,
too. An mmcv with compiled operators that works is left alone. ``--compiled``
replaces ours by one, see :mod:`lshfm_mm.compat.compile_mmcv`. Only the
standard library is used here.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from . import stacks
from .repack_mmcv import LOCAL, python_files, repack
from .stacks import Stack

OPERATORS = Path(__file__).resolve().parent / 'mmcv_ext'
# Imports each module it is given, and says how that went in one line each; of
# mmcv's operators, if they fit, it says the file. MMRazor refuses OneDL's mmcv
# by its version; lshfm_mm.compat hides it, too.
PROBE = r"""
import sys, traceback
from importlib import import_module

def load(name):
    if name == 'mmrazor':
        import_module('mmcv').__version__ = '2.1.0'
    import_module(name)
    if name == 'mmcv.ops':
        ext, torch = import_module('mmcv._ext'), import_module('torch')
        if not ext.__file__.endswith('.py') and torch.cuda.is_available():
            if ext.get_compiling_cuda_version() == 'not available':
                raise OSError(
                    'they were compiled without CUDA, and torch sees a GPU'
                )
        print(f'\noperators:{ext.__file__}')

for name in sys.argv[1:]:
    error = ''
    try:
        load(name)
    except BaseException as e:
        error = ''.join(traceback.format_exception_only(type(e), e))
        error = error.strip().splitlines()[-1]
    print(f'\nprobe:{name}:{error}', flush=True)
"""


def run_python(code: str) -> tuple[str, str]:
    """Run code in a new process.

    Returns:
        tuple[str, str]: The last line that it printed, and the last line of
        its error (empty when all went well).
    """
    command = [sys.executable, '-c', code]
    done = subprocess.run(command, capture_output=True, text=True)
    printed = ['', *done.stdout.strip().splitlines()]
    crash = f'crashed with exit status {done.returncode}'
    errors = [crash, *done.stderr.strip().splitlines()]
    return printed[-1], errors[-1] if done.returncode else ''


def probe(
    modules: Sequence[str], folder: str = ''
) -> tuple[dict[str, str], str]:
    """Import modules in a new process, and in another one after a crash.

    Args:
        modules (Sequence[str]): Names to import, in this order.
        folder (str): Where they are looked for first, if given.

    Returns:
        tuple[dict[str, str], str]: For each, the last line of its error, or
        ''; and the file of mmcv's operators, if they load.
    """
    path = [folder, os.environ.get('PYTHONPATH', '')]
    env = os.environ | {'PYTHONPATH': os.pathsep.join(filter(None, path))}
    errors: dict[str, str] = {}
    operators = ''
    while left := modules[len(errors) :]:
        done = subprocess.run(
            [sys.executable, '-c', PROBE, *left],
            env=env,
            capture_output=True,
            encoding='utf-8',
            errors='replace',
        )
        answers = re.findall(r'^probe:([\w.]+):(.*)$', done.stdout, re.M)
        errors.update(answers)
        if file := re.search('^operators:(.*)$', done.stdout, re.M):
            operators = file[1]
        if done.returncode:
            crash = f'Python exits with {done.returncode} when it is imported'
            crashed = left[min(len(answers), len(left) - 1)]
            said = done.stderr.strip().splitlines() or [crash]
            errors[crashed] = said[-1]
    return errors, operators


def pip(*args: str) -> bool:
    """Run pip of this environment; return whether it succeeded."""
    command = [sys.executable, '-m', 'pip', *args]
    return subprocess.run(command).returncode == 0


def cache_folder() -> Path:
    """Make the folder in which wheels are kept."""
    root = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
    folder = Path(root) / 'lshfm_mm'
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def download(release: stacks.Release, folder: Path, *options: str) -> Path:
    """Download a file of the package index into an empty folder.

    With further ``options`` of pip, which compares the hash.
    """
    wanted = folder / 'requirements.txt'
    wanted.write_text(
        f'{release.requirement} --hash=sha256:{release.sha256}', 'utf-8'
    )
    done = pip(
        'download', '--quiet', '--no-deps', *options,
        '--requirement', str(wanted), '--dest', str(folder),
    )  # fmt: skip
    if not done:
        sys.exit(
            f'error: {release.requirement} with sha256 {release.sha256} '
            f'could not be downloaded, pip says why; mend that, and run this '
            f'command again'
        )
    wanted.unlink()
    (path,) = folder.iterdir()
    return path


def judge_operators(stack: Stack, file: str) -> tuple[str, str]:
    """Tell which operators of mmcv load, by the file of ``mmcv._ext``.

    Returns:
        tuple[str, str]: ``compiled``, or ``torchvision's`` for ours as they
        are here, and ''; or '' and why they do not do.
    """
    if not file.endswith('.py'):
        return 'compiled', ''
    version = stacks.dist_version(stack.packages['mmcv'][0])
    is_ours = version == stack.mmcv + LOCAL
    if is_ours and python_files(Path(file).parent) == python_files(OPERATORS):
        return "torchvision's", ''
    return '', "torchvision's operators are not those of this lshfm_mm"


def in_place(stack: Stack) -> str:
    """Return which operators the mmcv that is installed has.

    '' where there is no mmcv, one that does not work, or an older one.
    """
    name, spec = stack.packages['mmcv']
    version = stacks.dist_version(name)
    if version and stacks.satisfies(version, spec):
        _, operators = probe(['mmcv.ops'])
        return operators and judge_operators(stack, operators)[0]
    return ''


def install(wheel: Path) -> str:
    """Install the requirements of ``wheel``, and then it, if it works.

    It is tried in a folder of its own: an mmcv that is installed stays as it
    is until one that works takes its place.

    Returns:
        str: Why its operators do not load, and so it is not installed, or ''.
    """
    lock = ['-c', str(stacks.LOCK)] if stacks.LOCK.is_file() else []
    refusal = f'error: mmcv: pip could not install {wheel}'
    with tempfile.TemporaryDirectory() as scratch:
        only = ['install', '--quiet', '--no-deps']
        if not pip(*only, '--target', scratch, str(wheel)):
            sys.exit(refusal)
        (dist,) = metadata.distributions(path=[scratch])
        wanted = dist.requires or []
        if wanted and not pip('install', '--quiet', *lock, *wanted):
            sys.exit('error: mmcv: its requirements could not be installed')
        errors, _ = probe(['mmcv', 'mmcv.ops'], scratch)
    if error := errors['mmcv']:
        sys.exit(
            f'error: mmcv: {wheel} cannot be imported ({error}); what was '
            f'installed stays'
        )
    if error := errors['mmcv.ops']:
        return error
    if not pip(*only, '--force-reinstall', str(wheel)):
        sys.exit(refusal)
    print(f'mmcv: installed {wheel}', flush=True)
    return ''


def install_on_torchvision(stack: Stack) -> None:
    """Download mmcv's Python files and install them with our operators."""
    name = stack.packages['mmcv'][0]
    with tempfile.TemporaryDirectory() as scratch:
        archive = download(stack.python, Path(scratch))
        # The wheel stays, because pip freeze names it.
        wheel = repack(archive, OPERATORS, name, cache_folder())
    if error := install(wheel):
        sys.exit(
            f'error: mmcv: its operators cannot be imported ({error}); what '
            f'was installed stays'
        )


def main() -> None:
    """Install mmcv into the environment of this interpreter."""
    parser = argparse.ArgumentParser(
        description='Install mmcv, with its operators on torchvision.'
    )
    parser.add_argument(
        '--compiled',
        action='store_true',
        help='with compiled operators: takes a C++ compiler, 7 to 30 minutes',
    )
    parser.add_argument(
        '--stack',
        choices=stacks.STACKS,
        help='whose mmcv, where none is installed yet (default: openmmlab)',
    )
    args = parser.parse_args()
    try:
        stack = stacks.choose(args.stack)
    except ValueError as error:
        sys.exit(f'error: stack: {error}')
    kind = in_place(stack)
    if kind == 'compiled' or (kind and not args.compiled):
        version = stacks.version('mmcv').removesuffix(LOCAL)
        print(f'mmcv: {version} with {kind} operators is in place')
        return
    for name in ('torch', 'torchvision'):
        if not stacks.dist_version(name):
            sys.exit(
                f'error: {name}: is not installed for {sys.executable}; '
                f'install torch and torchvision first'
            )
    if args.compiled:
        from . import compile_mmcv

        compile_mmcv.install_compiled(stack)
    else:
        install_on_torchvision(stack)
