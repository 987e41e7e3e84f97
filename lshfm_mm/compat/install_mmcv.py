"""Install mmcv, with its operators on torchvision or compiled.

mmcv-lite, a published wheel, has all of mmcv but the module ``mmcv._ext``
with the operators. Here it is downloaded, and installed under the name of
mmcv with :mod:`lshfm_mm.mmcv_ext` in that place::

    python -m lshfm_mm install_mmcv

It takes seconds and no compiler; processes that never import lshfm_mm use it,
too. An mmcv with compiled operators that works is left alone. ``--compiled``
replaces ours by one, see :mod:`lshfm_mm.compile_mmcv`. Only the standard
library is used here.
"""

from __future__ import annotations

import argparse
import base64
import csv
import filecmp
import hashlib
import io
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from importlib import metadata
from pathlib import Path

from . import stacks
from .stacks import Stack

OPERATORS = Path(__file__).resolve().parent / 'mmcv_ext'
LOCAL = '+torchvision'  # of the version of an mmcv with our operators
WHEEL = """\
Wheel-Version: 1.0
Generator: lshfm_mm
Root-Is-Purelib: true
Tag: py3-none-any
"""
# The last line that it prints is mmcv where only the operators do not load.
PROBE = """
import mmcv
print('mmcv')
import mmcv.ops, mmcv._ext, torch
is_compiled = not mmcv._ext.__file__.endswith('.py')
if is_compiled and torch.cuda.is_available():
    if mmcv._ext.get_compiling_cuda_version() == 'not available':
        raise OSError('they were compiled without CUDA, and torch sees a GPU')
print(mmcv._ext.__file__)
"""


def run_python(code: str, folder: str = '') -> tuple[str, str]:
    """Run ``code`` in a new process.

    Args:
        code (str): Python source.
        folder (str): Where modules are looked for first, if given.

    Returns:
        tuple[str, str]: The last line that it printed, and the last line of
        its error (empty when all went well).
    """
    env = dict(os.environ)
    if folder:
        path = [folder, env.get('PYTHONPATH', '')]
        env['PYTHONPATH'] = os.pathsep.join(filter(None, path))
    done = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, env=env
    )
    last = (done.stdout.strip().splitlines() or [''])[-1]
    if done.returncode == 0:
        return last, ''
    crash = f'crashed with exit status {done.returncode}'
    return last, (done.stderr.strip().splitlines() or [crash])[-1]


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
    """Download one file of the package index, checked by pip.

    Args:
        release (Release): The file.
        folder (Path): Where it is written, an empty one.
        options (str): Further ones of pip.

    Returns:
        Path: The file.
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
            f'error: mmcv: {release.requirement} with sha256 '
            f'{release.sha256} could not be downloaded, pip says why; mend '
            f'that, and run this command again'
        )
    wanted.unlink()
    (path,) = folder.iterdir()
    return path


def read_archive(path: Path) -> dict[str, bytes]:
    """Return the files of mmcv in a wheel or a source release.

    Returns:
        dict[str, bytes]: By name: those of the package as ``mmcv/...``, the
        licenses and ``METADATA`` without a folder. Sources in C++ are left
        out, and what belongs to no package.
    """
    if path.suffix == '.whl':
        with zipfile.ZipFile(path) as wheel:
            files = {name: wheel.read(name) for name in wheel.namelist()}
    else:
        with tarfile.open(path) as source:
            files = {
                member.name.partition('/')[2]: file.read()
                for member in source
                if (file := source.extractfile(member))
            }
    kept = {}
    for name, data in files.items():
        if name.startswith('mmcv/') and '/csrc/' not in name:
            kept[name] = data
        elif re.fullmatch(r'([^/]+\.dist-info/)?(METADATA|LICEN.*)', name):
            kept[name.rpartition('/')[2]] = data
        elif name == 'PKG-INFO':
            kept['METADATA'] = data
    return kept


def write_wheel(path: Path, files: dict[str, bytes]) -> None:
    """Write a wheel, whole or not at all; the same files give the same bytes.

    Args:
        path (Path): The wheel.
        files (dict[str, bytes]): What is in it, but ``RECORD``.
    """
    (info,) = {x.partition('/')[0] for x in files if '.dist-info/' in x}
    record = io.StringIO()
    rows = csv.writer(record, lineterminator='\n')
    for name, data in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest())
        sha256 = f'sha256={digest.decode().rstrip("=")}'
        rows.writerow((name, sha256, len(data)))
    rows.writerow((f'{info}/RECORD', '', ''))
    files = {**files, f'{info}/RECORD': record.getvalue().encode()}
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        part = Path(scratch) / path.name
        with zipfile.ZipFile(part, 'w') as wheel:
            for name, data in files.items():
                entry = zipfile.ZipInfo(name)  # its date is always the same
                entry.external_attr = 0o644 << 16
                wheel.writestr(entry, data, zipfile.ZIP_DEFLATED)
        part.replace(path)


def repack(archive: Path, operators: Path, name: str, folder: Path) -> Path:
    """Write a wheel of mmcv whose operators are those of a package folder.

    Args:
        archive (Path): Wheel or source release with mmcv's Python files.
        operators (Path): What becomes ``mmcv/_ext/``.
        name (str): The distribution, such as ``mmcv``.
        folder (Path): Where the wheel is written.

    Returns:
        Path: The wheel. Its version is the archive's with ``+torchvision``.
    """
    files = read_archive(archive)
    text = files['METADATA'].decode()
    (found,) = re.findall(r'^Version: (\S+)$', text, re.M)
    version = found + LOCAL
    text = re.sub(r'^Name: .*$', f'Name: {name}', text, count=1, flags=re.M)
    text = text.replace(
        f'\nVersion: {found}\n',
        f'\nVersion: {version}\n'
        f'Requires-Dist: torch\nRequires-Dist: torchvision\n',
        1,
    )
    files['METADATA'] = text.encode()
    files['WHEEL'] = WHEEL.encode()
    # MMEngine asks it for the name of the package's folder.
    files['top_level.txt'] = b'mmcv\n'
    stem = f'{name.replace("-", "_")}-{version}'
    packed = {
        x if '/' in x else f'{stem}.dist-info/{x}': data
        for x, data in files.items()
    }
    for path in sorted(operators.rglob('*.py')):
        inside = path.relative_to(operators).as_posix()
        packed[f'mmcv/_ext/{inside}'] = path.read_bytes()
    wheel = folder / f'{stem}-py3-none-any.whl'
    write_wheel(wheel, packed)
    return wheel


def same_python(left: Path, right: Path) -> bool:
    """Whether two folders hold the same Python files."""
    names, others = (
        sorted(x.relative_to(folder).as_posix() for x in folder.rglob('*.py'))
        for folder in (left, right)
    )
    return names == others and not any(
        filecmp.cmpfiles(left, right, names, shallow=False)[1:]
    )


def look_at_operators(stack: Stack) -> tuple[str, str]:
    """Look at the operators of the mmcv that is installed.

    Returns:
        tuple[str, str]: ``compiled``, or ``torchvision's`` for ours as they
        are here, and ''; or '' and why they do not do.
    """
    module, error = run_python(PROBE)
    if error:
        return '', error
    if not module.endswith('.py'):
        return 'compiled', ''
    version = stacks.dist_version(stack.packages['mmcv'][0])
    if version == stack.mmcv + LOCAL and same_python(
        Path(module).parent, OPERATORS
    ):
        return "torchvision's", ''
    return '', "torchvision's operators are not those of this lshfm_mm"


def in_place(stack: Stack) -> str:
    """Return what operators the mmcv that is installed has.

    Returns:
        str: ``compiled`` or ``torchvision's``, or '' when there is no mmcv,
        one that does not work, or an older one.
    """
    name, spec = stack.packages['mmcv']
    version = stacks.dist_version(name)
    if not version or not stacks.satisfies(version, spec):
        return ''
    return look_at_operators(stack)[0]


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
        reached, error = run_python(PROBE, scratch)
    if error and not reached:
        sys.exit(
            f'error: mmcv: {wheel} cannot be imported ({error}); what was '
            f'installed stays'
        )
    if error:
        return error
    if not pip(*only, '--force-reinstall', str(wheel)):
        sys.exit(refusal)
    print(f'mmcv: installed {wheel}', flush=True)
    return ''


def install_on_torchvision(stack: Stack) -> None:
    """Download mmcv's Python files and install them with our operators."""
    with tempfile.TemporaryDirectory() as scratch:
        archive = download(stack.python, Path(scratch))
        # The wheel stays, because pip freeze names it.
        wheel = repack(
            archive, OPERATORS, stack.packages['mmcv'][0], cache_folder()
        )
    error = install(wheel)
    if error:
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
        help='whose mmcv, where none of either is installed yet '
        '(default: openmmlab)',
    )
    args = parser.parse_args()
    try:
        stack = stacks.choose(args.stack)
    except ValueError as error:
        sys.exit(f'error: stack: {error}')
    kind = in_place(stack)
    if kind == 'compiled' or (kind and not args.compiled):
        version = stacks.dist_version(stack.packages['mmcv'][0])
        version = version.removesuffix(LOCAL)
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


if __name__ == '__main__':
    main()
