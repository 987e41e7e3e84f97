"""Install mmcv with compiled operators: ``install_mmcv --compiled``.

In order: take the wheel that an earlier run built; take the one that OneDL
published for this torch; build from source (77 files, about 12 minutes on 2
cores) and keep the wheel in ``~/.cache/lshfm_mm``. A wheel whose operators do
not load is removed there, and the next way is tried. An interrupted build
goes on at the next call.

The source is checked against its hash. OneDL's wheels, one for each torch and
Python, are not: they are as trustworthy as their server.
"""

from __future__ import annotations

import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path

from .install_mmcv import cache_folder, download, install, pip, run_python
from .stacks import ONEDL, Stack, satisfies

# An index for each pair of builds, such as cu129-torch290.
PUBLISHED = 'https://mmwheels.onedl.ai/{cuda}-torch{torch}0/simple/onedl-mmcv/'
CXX20_TORCH = '>=2.14'
BYTES_PER_JOB = 2 * 1024**3
NINJA_STEP = re.compile(r'^\[(\d+)/(\d+)\]')
PROBE_TORCH = """
import torch
print(torch.__version__, torch.cuda.is_available(), torch.version.cuda or '')
"""
PROBE_CUDA_HOME = """
from torch.utils.cpp_extension import CUDA_HOME
if CUDA_HOME is None:
    raise OSError('CUDA_HOME is not set')
"""


def wheel_folder(stack: Stack, torch: str, gpu: bool) -> Path:
    """Make the folder of the wheel for this torch, Python and platform."""
    python = f'cp{sys.version_info.major}{sys.version_info.minor}'
    system = f'{platform.system()}-{platform.machine()}'.lower()
    key = f'torch{torch}-{python}-{system}-{"cuda" if gpu else "cpu"}'
    folder = cache_folder() / f'mmcv{stack.mmcv}-{key}'
    folder.mkdir(exist_ok=True)
    return folder


def cached_wheel(folder: Path) -> Path | None:
    """Return the wheel in ``folder``; remove those which are damaged."""
    for wheel in sorted(folder.glob('*mmcv-*.whl')):
        with (
            suppress(zipfile.BadZipFile, zlib.error, EOFError),
            zipfile.ZipFile(wheel) as archive,
        ):
            if archive.testzip() is None:
                return wheel
        print(f'mmcv: removing the damaged {wheel}', flush=True)
        wheel.unlink()
    return None


def fetch_published(
    stack: Stack, torch: str, cuda: str | None, folder: Path
) -> bool:
    """Download OneDL's wheel for this torch and Python into ``folder``."""
    page = PUBLISHED.format(
        cuda='cu' + cuda.replace('.', '') if cuda else 'cpu',
        torch=''.join(torch.split('.')[:2]),
    )
    print(f'mmcv: looking for a published wheel at {page}', flush=True)
    fetched = pip(
        'download', '--no-deps', '--only-binary=:all:', '--no-index',
        '--find-links', page, stack.source.requirement,
        '--dest', str(folder),
    )  # fmt: skip
    if not fetched:
        print('mmcv: none could be fetched, building it instead', flush=True)
    return fetched


def find_compiler() -> str:
    """Return the command of ``$CXX``, else of c++ or g++, as a shell line.

    Raises:
        SystemExit: On Windows; without a compiler of C++20 or Python.h.
    """
    if os.name == 'nt':
        sys.exit(
            'error: mmcv: its operators are compiled on Linux and macOS only; '
            'take those on torchvision: python -m lshfm_mm install_mmcv'
        )
    named = os.environ.get('CXX', '').strip()
    name, *arguments = shlex.split(named or 'c++')
    path = shutil.which(name) or (not named and shutil.which('g++'))
    if not path:
        sys.exit(
            f'error: compiler: no C++ compiler found (CXX={named or "unset"})'
            f'; install one, for example "apt-get install g++", or set CXX'
        )
    compiler = [path, *arguments]
    test = ['-std=c++20', '-fsyntax-only', '-x', 'c++', os.devnull]
    if subprocess.run([*compiler, *test], capture_output=True).returncode:
        sys.exit(
            f'error: compiler: {shlex.join(compiler)} cannot compile C++20; '
            f'install g++ 10 or later, or set CXX to another compiler'
        )
    headers = Path(sysconfig.get_path('include'))
    if not (headers / 'Python.h').is_file():
        sys.exit(
            f'error: compiler: no Python.h in {headers}; install it, for '
            f'example "apt-get install {headers.name}-dev"'
        )
    return shlex.join(compiler)


def parallel_jobs() -> int:
    """As many compilers as there are cores, and memory (2 GiB each)."""
    memory = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
    return max(1, min(os.cpu_count() or 1, memory // BYTES_PER_JOB))


def compiler_env(torch: str, gpu: bool, folder: Path) -> dict[str, str]:
    """The environment in which mmcv's setup.py compiles.

    mmcv forces ``-std=c++17``; torch >= 2.14 needs C++20. A wrapper that
    appends the standard wins, because the last ``-std`` counts. It stays at
    one path: ninja compiles again whatever another command compiled.
    """
    compiler = find_compiler()
    error = run_python(PROBE_CUDA_HOME)[1] if gpu else ''
    if error:
        sys.exit(
            f'error: nvcc: no CUDA compiler found for the ops on the GPU '
            f'({error}); install the CUDA toolkit or set CUDA_HOME'
        )
    env = dict(os.environ, MMCV_WITH_OPS='1')
    env.setdefault('MAX_JOBS', str(parallel_jobs()))
    scripts = str(Path(sys.executable).parent)
    env['PATH'] = scripts + os.pathsep + env.get('PATH', '')
    if satisfies(torch, CXX20_TORCH):
        wrapper = folder / 'c++20'
        wrapper.write_text(
            f'#!/bin/sh\nexec {compiler} "$@" -std=c++20\n', 'utf-8'
        )
        wrapper.chmod(0o755)
        env['CXX'] = str(wrapper)
        flags = env.get('NVCC_APPEND_FLAGS', '')
        env['NVCC_APPEND_FLAGS'] = f'{flags} -std=c++20'.strip()
    return env


def fetch_source(stack: Stack, folder: Path) -> Path:
    """Return mmcv's unpacked source release in ``folder``."""
    source = folder / 'source'
    if source.is_dir():
        print(f'mmcv: going on with the build in {source}', flush=True)
        return source
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        archive = download(stack.source, Path(scratch), '--no-build-isolation')
        unpacked = archive.with_name('unpacked')
        shutil.unpack_archive(archive, unpacked)
        # A rename within one folder: the source is whole or absent.
        next(unpacked.iterdir()).rename(source)
    return source


def build(stack: Stack, torch: str, gpu: bool, folder: Path) -> None:
    """Build the wheel into ``folder``, with progress and ETA."""
    env = compiler_env(torch, gpu, folder)
    # mmcv needs pkg_resources, gone in 81; onedl-mmcv needs 80.
    if not pip('install', '--quiet', 'setuptools>=80,<81', 'wheel', 'ninja'):
        sys.exit('error: mmcv: could not install setuptools and ninja')
    source = fetch_source(stack, folder)
    print(f'mmcv: building {stack.mmcv} for torch {torch}', flush=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        command = [
            sys.executable, '-m', 'pip', 'wheel', '-v', '--no-deps',
            '--no-build-isolation', str(source), '--wheel-dir', scratch,
        ]  # fmt: skip
        status, log = run_with_progress(command, env)
        if status:
            kept = Path(tempfile.gettempdir()) / 'lshfm_mm_mmcv_build.log'
            kept.write_text(''.join(log), 'utf-8')
            errors = [line for line in log if 'error:' in line]
            print(''.join(errors[:10] or log[-20:]), flush=True)
            sys.exit(
                f'error: mmcv: the build failed, see {kept}; the next run '
                f'goes on in {source}, remove it to start anew'
            )
        wheel = next(Path(scratch).glob('*.whl'))
        wheel.rename(folder / wheel.name)
    shutil.rmtree(source)


def run_with_progress(
    command: list[str], env: dict[str, str]
) -> tuple[int, list[str]]:
    """Run ``command``, print ninja's steps; return status and output."""
    start, log = time.monotonic(), []
    with subprocess.Popen(
        command,
        env=env,
        text=True,
        errors='replace',
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        for line in process.stdout or ():
            log.append(line)
            show_progress(line.strip(), time.monotonic() - start)
    return process.returncode, log


def show_progress(line: str, spent: float) -> None:
    """Print progress where ninja counts, as in ``[3/77] c++ ...``.

    ``spent`` are the seconds since the build began.
    """
    if step := NINJA_STEP.match(line):
        done, total = map(int, step.groups())
        left = spent / done * (total - done)
        print(
            f'mmcv: file {done}/{total}, {spent / 60:.1f} min, '
            f'ETA {left / 60:.1f} min',
            flush=True,
        )


def install_cached(folder: Path, torch: str) -> bool:
    """Install the wheel in ``folder``, if one is there whose operators load.

    One that does not is removed.
    """
    wheel = cached_wheel(folder)
    if wheel is None:
        return False
    error = install(wheel)
    if error:
        print(
            f'mmcv: removing {wheel}: its operators do not load under torch '
            f'{torch} ({error})',
            flush=True,
        )
        wheel.unlink()
    return not error


def install_compiled(stack: Stack) -> None:
    """Install a wheel with compiled operators for the torch that is here."""
    from filelock import FileLock  # comes with torch

    answer, error = run_python(PROBE_TORCH)
    if error:
        sys.exit(f'error: torch: cannot be imported ({error})')
    torch, has_gpu, *cuda = answer.split()
    # mmcv's setup reads this name: ops for the GPU on a machine without.
    gpu = has_gpu == 'True' or os.environ.get('FORCE_CUDA') == '1'
    folder = wheel_folder(stack, torch, gpu)
    with FileLock(folder / 'lock'):  # a second run waits for the first
        if install_cached(folder, torch):
            return
        is_fetched = stack is ONEDL and fetch_published(
            stack, torch, cuda[0] if cuda else None, folder
        )
        if is_fetched and install_cached(folder, torch):
            return
        try:
            build(stack, torch, gpu, folder)
        except KeyboardInterrupt:
            sys.exit('mmcv: interrupted; the next run goes on from here')
        if not install_cached(folder, torch):
            sys.exit(
                'error: mmcv: the wheel that was built does not work; what '
                'was installed stays'
            )
