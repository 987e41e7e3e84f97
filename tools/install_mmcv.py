"""Install mmcv with compiled ops for the torch of this environment.

Run it with the Python of the environment that shall get mmcv::

    python tools/install_mmcv.py

In order: keep an mmcv that works; take the wheel that an earlier run built;
take the wheel that OpenMMLab published for this torch (torch < 2.2); build
from source (77 files, about 12 minutes on 2 cores) and keep the wheel in
``~/.cache/lshfm_mm``. An interrupted build goes on at the next call. Only
the standard library is used here.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import platform
import re
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from pathlib import Path

MMCV = '2.1.0'
PUBLISHED = 'https://download.openmmlab.com/mmcv/dist/{cuda}/torch{torch}.0'
LAST_PUBLISHED_TORCH = (2, 1)
FIRST_CXX20_TORCH = (2, 14)
BYTES_PER_JOB = 2 * 1024**3
NINJA_STEP = re.compile(r'^\[(\d+)/(\d+)\]')
PROBE_TORCH = """
import torch
print(torch.__version__, torch.version.cuda, torch.cuda.is_available())
"""
PROBE_MMCV = f"""
import mmcv, mmcv.ops
if mmcv.__version__ != {MMCV!r}:
    raise ImportError('mmcv ' + mmcv.__version__)
"""
PROBE_CUDA_HOME = """
from torch.utils.cpp_extension import CUDA_HOME
if CUDA_HOME is None:
    raise OSError('CUDA_HOME is not set')
"""


def run_python(code: str) -> tuple[str, str]:
    """Run ``code`` in a new process.

    Args:
        code (str): Python source.

    Returns:
        tuple[str, str]: What it printed, and the last line of its error
        (empty when all went well).
    """
    done = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True
    )
    if done.returncode == 0:
        return done.stdout, ''
    crash = f'crashed with exit status {done.returncode}'
    return done.stdout, (done.stderr.strip().splitlines() or [crash])[-1]


def probe_torch() -> tuple[str, str | None, bool]:
    """Return torch's version, its CUDA version and whether a GPU is here."""
    answer, error = run_python(PROBE_TORCH)
    if error:
        sys.exit(
            f'error: torch: cannot be imported by {sys.executable} ({error}); '
            f'install torch and torchvision first'
        )
    version, cuda, gpu = answer.split()[-3:]
    return version, None if cuda == 'None' else cuda, gpu == 'True'


def mmcv_works() -> bool:
    """Whether the right mmcv is importable with ops for this torch."""
    return run_python(PROBE_MMCV)[1] == ''


def torch_release(torch: str) -> tuple[int, int]:
    """Return major and minor of a version such as ``2.14.1+cu130``."""
    major, minor = torch.split('.')[:2]
    return int(major), int(minor)


def cache_folder(torch: str, gpu: bool) -> Path:
    """Where the wheel for this torch, Python and platform is kept."""
    root = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
    python = f'cp{sys.version_info.major}{sys.version_info.minor}'
    system = f'{platform.system()}-{platform.machine()}'.lower()
    key = f'torch{torch}-{python}-{system}-{"cuda" if gpu else "cpu"}'
    return Path(root) / 'lshfm_mm' / f'mmcv{MMCV}-{key}'


def cached_wheel(folder: Path) -> Path | None:
    """Return the wheel in ``folder``; remove those which are damaged."""
    for wheel in sorted(folder.glob('mmcv-*.whl')):
        try:
            with zipfile.ZipFile(wheel) as archive:
                whole = archive.testzip() is None
        except (zipfile.BadZipFile, zlib.error, EOFError):
            whole = False
        if whole:
            return wheel
        print(f'mmcv: removing the damaged {wheel}', flush=True)
        wheel.unlink()
    return None


def pip(*args: str) -> bool:
    """Run pip of this environment; return whether it succeeded."""
    command = [sys.executable, '-m', 'pip', *args]
    return subprocess.run(command).returncode == 0


def fetch_published(torch: str, cuda: str | None, folder: Path) -> bool:
    """Download OpenMMLab's wheel for this torch into ``folder``."""
    if torch_release(torch) > LAST_PUBLISHED_TORCH:
        return False
    page = PUBLISHED.format(
        cuda='cu' + cuda.replace('.', '') if cuda else 'cpu',
        torch='.'.join(map(str, torch_release(torch))),
    )
    print(f'mmcv: looking for a published wheel at {page}', flush=True)
    fetched = pip(
        'download', '--no-deps', '--only-binary=:all:', f'mmcv=={MMCV}',
        '--find-links', f'{page}/index.html', '--dest', str(folder),
    )  # fmt: skip
    if not fetched:
        print('mmcv: none could be fetched, building it instead', flush=True)
    return fetched


def find_compiler() -> str:
    """Return the command of ``$CXX``, else of c++ or g++, as a shell line."""
    named = os.environ.get('CXX', '').strip()
    for command in [named] if named else ['c++', 'g++']:
        program, *options = shlex.split(command)
        path = shutil.which(program)
        if path:
            return shlex.join([path, *options])
    sys.exit(
        f'error: compiler: no C++ compiler found (CXX={named or "unset"}); '
        f'install one, for example "apt-get install g++", or set CXX'
    )


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
    if torch_release(torch) >= FIRST_CXX20_TORCH:
        wrapper = folder / 'c++20'
        wrapper.write_text(f'#!/bin/sh\nexec {compiler} "$@" -std=c++20\n')
        wrapper.chmod(wrapper.stat().st_mode | stat.S_IXUSR)
        env['CXX'] = str(wrapper)
        flags = env.get('NVCC_APPEND_FLAGS', '')
        env['NVCC_APPEND_FLAGS'] = f'{flags} -std=c++20'.strip()
    return env


def fetch_source(folder: Path) -> Path:
    """Return mmcv's unpacked source release in ``folder``."""
    source = folder / f'mmcv-{MMCV}'
    if source.is_dir():
        print(f'mmcv: going on with the build in {source}', flush=True)
        return source
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        if not pip(
            'download', '--quiet', '--no-deps', '--no-build-isolation',
            '--no-binary=mmcv', f'mmcv=={MMCV}', '--dest', scratch,
        ):  # fmt: skip
            sys.exit('error: mmcv: its source could not be downloaded')
        archive = next(Path(scratch).glob('mmcv-*.tar.gz'))
        shutil.unpack_archive(archive, scratch)
        # A rename within one folder: the source is whole or absent.
        (Path(scratch) / source.name).rename(source)
    return source


def build(torch: str, gpu: bool, folder: Path) -> None:
    """Build the wheel into ``folder``, with progress and ETA."""
    env = compiler_env(torch, gpu, folder)
    if not pip('install', '--quiet', 'setuptools<81', 'wheel', 'ninja'):
        sys.exit('error: mmcv: could not install setuptools and ninja')
    source = fetch_source(folder)
    print(f'mmcv: building {MMCV} for torch {torch}', flush=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        command = [
            sys.executable, '-m', 'pip', 'wheel', '-v', '--no-deps',
            '--no-build-isolation', str(source), '--wheel-dir', scratch,
        ]  # fmt: skip
        status, log = run_with_progress(command, env)
        if status:
            kept = Path(tempfile.gettempdir()) / 'lshfm_mm_mmcv_build.log'
            kept.write_text(''.join(log))
            errors = [line for line in log if 'error:' in line]
            print(''.join(errors[:10] or log[-20:]), flush=True)
            sys.exit(
                f'error: mmcv: the build failed, see {kept}; the next run '
                f'goes on in {source}, remove it to start anew'
            )
        wheel = next(Path(scratch).glob('mmcv-*.whl'))
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
    """Print one line of progress for a line in which ninja counts.

    Args:
        line (str): Such as ``[3/77] c++ ...``; others are passed over.
        spent (float): Seconds since the build began.
    """
    step = NINJA_STEP.match(line)
    if step:
        done, total = map(int, step.groups())
        left = spent / done * (total - done)
        print(
            f'mmcv: file {done}/{total}, {spent / 60:.1f} min, '
            f'ETA {left / 60:.1f} min',
            flush=True,
        )


def install(wheel: Path, torch: str) -> None:
    """Install ``wheel`` and its requirements; leave with an error if bad."""
    constraints = Path(__file__).resolve().parent.parent / 'requirements.lock'
    pinned = ['-c', str(constraints)] if constraints.is_file() else []
    # Twice, because --force-reinstall would reinstall the requirements too.
    if not pip(
        'install', '--quiet', '--force-reinstall', '--no-deps', str(wheel)
    ):
        sys.exit(f'error: mmcv: pip could not install {wheel}')
    if not pip('install', '--quiet', *pinned, str(wheel)):
        sys.exit('error: mmcv: its requirements could not be installed')
    if mmcv_works():
        print(f'mmcv: installed {wheel}')
        return
    error = run_python('import mmcv')[1]
    if error:
        sys.exit(f'error: mmcv: is installed but cannot be imported ({error})')
    error = run_python('import mmcv.ops')[1]
    wheel.unlink()
    sys.exit(
        f'error: mmcv: the ops of {wheel} do not load under torch {torch} '
        f'({error}); it was removed from the cache, run this command again'
    )


def main() -> None:
    """Install mmcv into the environment of this interpreter."""
    parser = argparse.ArgumentParser(
        description='Install mmcv with compiled ops for this torch.'
    )
    parser.parse_args()
    torch, cuda, gpu = probe_torch()
    # mmcv's setup reads this name: ops for the GPU on a machine without.
    gpu = gpu or os.environ.get('FORCE_CUDA') == '1'
    if mmcv_works():
        print(f'mmcv: {MMCV} with compiled ops is in place')
        return
    folder = cache_folder(torch, gpu)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / 'lock').open('w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a second run waits for the first
        wheel = cached_wheel(folder)
        if wheel is None:
            if not fetch_published(torch, cuda, folder):
                build(torch, gpu, folder)
            wheel = cached_wheel(folder)
        if wheel is None:
            sys.exit(f'error: mmcv: no usable wheel came into {folder}')
        install(wheel, torch)


if __name__ == '__main__':
    try:
        main()
    except KeyboardInterrupt:
        sys.exit('mmcv: interrupted; the next run goes on from here')
