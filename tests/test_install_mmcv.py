"""The installer of mmcv, run by a real Python with the real pip.

torch and what pip finds are small stand-ins: a package that tells its
version, and releases of mmcv. With the real ones: the slow tests.
"""

import base64
import csv
import hashlib
import importlib.util
import io
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from lshfm_mm import compile_mmcv, install_mmcv, stacks
from lshfm_mm.stacks import OPENMMLAB, STACKS, Release

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.skipif(
    os.name == 'nt', reason='its environments and compilers are those of Unix'
)
needs_compiler = pytest.mark.skipif(
    shutil.which('c++') is None, reason='needs a C++ compiler'
)
TORCH = """
__version__ = {version!r}
class version: cuda = None
class cuda: is_available = staticmethod(lambda: False)
"""
SETUP = """
import os, sys
import pkg_resources, torch
from setuptools import setup
if 'bdist_wheel' in sys.argv:
    assert os.environ['MMCV_WITH_OPS'] == '1'
    assert int(os.environ['MAX_JOBS']) >= 1
    print('CXX=' + os.environ.get('CXX', ''))
    os.makedirs('build', exist_ok=True)
    if not os.path.exists('build/first.o'):
        open('build/first.o', 'w').close()
        print('[1/2] c++ first')
        if os.environ.get('BREAK'):
            print('first.cpp:1: fatal error: out of memory')
            sys.exit(1)
    print('[2/2] c++ second', flush=True)
setup(name='mmcv', version='2.1.0', packages=['mmcv', 'mmcv.ops'],
      package_data={'mmcv': ['_ext.so']})
"""
# As in mmcv, the operators are loaded when they are imported.
OPS = 'from .. import _ext'
# Stands for an extension that is compiled: not a .py file.
COMPILED = """
import sys, types
sys.modules[__name__ + '._ext'] = _ext = types.ModuleType('_ext')
_ext.__file__ = '_ext.so'
"""


def metadata(name, version, *lines):
    head = ['Metadata-Version: 2.1', f'Name: {name}', f'Version: {version}']
    return '\n'.join([*head, *lines, '', 'mmcv-lite, Version: 2.1.0', ''])


def write_wheel(folder, name, version, files):
    stem = f'{name.replace("-", "_")}-{version}'
    wheel = folder / f'{stem}-py3-none-any.whl'
    with zipfile.ZipFile(wheel, 'w', zipfile.ZIP_DEFLATED) as archive:
        for path, text in files.items():
            archive.writestr(path, text)
        info = f'{stem}.dist-info'
        archive.writestr(f'{info}/METADATA', metadata(name, version))
        archive.writestr(f'{info}/WHEEL', install_mmcv.WHEEL)
        archive.writestr(f'{info}/LICENSE', 'Apache')
        archive.writestr(f'{info}/RECORD', '')
    return wheel


def write_operators(folder, text='def nms(): ...\n'):
    folder.mkdir(exist_ok=True)
    (folder / '__init__.py').write_text('from .boxes import nms\n')
    (folder / 'boxes.py').write_text(text)
    (folder / '__pycache__').mkdir(exist_ok=True)
    (folder / '__pycache__' / 'boxes.pyc').write_text('')
    return folder


LITE = {
    'mmcv/__init__.py': '__version__ = "2.1.0"',
    'mmcv/ops/__init__.py': OPS,
    'mmcv/ops/csrc/nms.cpp': 'void nms() {}',
}


@pytest.fixture
def archive(tmp_path, request):
    """mmcv's Python files as a wheel and as a source release."""
    if request.param == 'wheel':
        return write_wheel(tmp_path, 'mmcv-lite', '2.1.0', LITE)
    path = tmp_path / 'mmcv_lite-2.1.0.tar.gz'
    with tarfile.open(path, 'w:gz') as tar:
        more = {
            'PKG-INFO': metadata('mmcv-lite', '2.1.0'),
            'mmcv_lite.egg-info/PKG-INFO': 'Name: another',
            'docs/en/conf.py': 'no part of mmcv',
            'LICENSE': 'Apache',
        }
        for name, text in {**LITE, **more}.items():
            entry = tarfile.TarInfo(f'mmcv_lite-2.1.0/{name}')
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text.encode()))
    return path


@pytest.mark.parametrize('archive', ['wheel', 'source'], indirect=True)
def test_repacked_wheel_is_whole(archive, tmp_path):
    operators = write_operators(tmp_path / 'operators')
    out = tmp_path / 'out'
    out.mkdir()
    wheel = install_mmcv.repack(archive, operators, 'an-mmcv', out)
    assert list(out.iterdir()) == [wheel]
    assert wheel.name == 'an_mmcv-2.1.0+torchvision-py3-none-any.whl'
    info = 'an_mmcv-2.1.0+torchvision.dist-info'
    with zipfile.ZipFile(wheel) as file:
        content = {name: file.read(name) for name in file.namelist()}
    assert set(content) == {
        'mmcv/__init__.py',
        'mmcv/ops/__init__.py',
        'mmcv/_ext/__init__.py',
        'mmcv/_ext/boxes.py',
        *(f'{info}/{x}' for x in ('METADATA', 'WHEEL', 'LICENSE', 'RECORD')),
        f'{info}/top_level.txt',
    }
    assert content['mmcv/_ext/boxes.py'] == b'def nms(): ...\n'
    assert content[f'{info}/METADATA'].decode().splitlines() == [
        'Metadata-Version: 2.1',
        'Name: an-mmcv',
        'Version: 2.1.0+torchvision',
        'Requires-Dist: torch',
        'Requires-Dist: torchvision',
        '',
        'mmcv-lite, Version: 2.1.0',
    ]
    rows = list(csv.reader(content[f'{info}/RECORD'].decode().splitlines()))
    assert {row[0] for row in rows} == set(content)
    for name, digest, size in rows:
        if not name.endswith('RECORD'):
            sha = hashlib.sha256(content[name]).digest()
            text = base64.urlsafe_b64encode(sha).decode().rstrip('=')
            assert (digest, size) == (
                f'sha256={text}',
                str(len(content[name])),
            )
    again = wheel.read_bytes()
    assert install_mmcv.repack(archive, operators, 'an-mmcv', out) == wheel
    assert wheel.read_bytes() == again


def test_interrupted_repacking_leaves_no_wheel(tmp_path, monkeypatch):
    wheel = write_wheel(tmp_path, 'mmcv-lite', '2.1.0', LITE)
    out = tmp_path / 'out'
    out.mkdir()

    def interrupt(self, entry, *args):
        raise KeyboardInterrupt

    monkeypatch.setattr(zipfile.ZipFile, 'writestr', interrupt)
    with pytest.raises(KeyboardInterrupt):
        install_mmcv.repack(wheel, write_operators(tmp_path / 'o'), 'm', out)
    assert not list(out.iterdir())


def test_what_the_hash_does_not_know_is_refused(tmp_path, monkeypatch, capfd):
    """By the real pip; only the file with the right hash is taken."""
    index = tmp_path / 'index'
    index.mkdir()
    wheel = write_wheel(index, 'mmcv-lite', '2.1.0', LITE)
    monkeypatch.setenv('PIP_NO_INDEX', '1')
    monkeypatch.setenv('PIP_FIND_LINKS', str(index))
    right = hashlib.sha256(wheel.read_bytes()).hexdigest()
    out = tmp_path / 'out'
    out.mkdir()
    release = Release('mmcv-lite==2.1.0', right)
    assert install_mmcv.download(release, out).name == wheel.name
    (out / wheel.name).unlink()
    wrong = Release('mmcv-lite==2.1.0', right[::-1])
    with pytest.raises(SystemExit, match=f'sha256 {right[::-1]} could not'):
        install_mmcv.download(wrong, out)
    assert not list(out.glob('*.whl'))
    assert 'DO NOT MATCH THE HASHES' in capfd.readouterr().err


@pytest.fixture(scope='module')
def python(tmp_path_factory):
    """A Python with the pip and setuptools of this one, and no more."""
    folder = tmp_path_factory.mktemp('env')
    venv.create(folder, with_pip=False)
    site = next(folder.glob('lib/python*/site-packages'))
    here = Path(importlib.util.find_spec('setuptools').origin).parents[1]
    for pattern in ('pip', 'setuptools*', 'pkg_resources', 'wheel*', 'pack*'):
        for path in here.glob(pattern):
            (site / path.name).symlink_to(path)
    for name in ('_distutils_hack', 'filelock'):
        (site / name).symlink_to(here / name)
    for name in ('wheel', 'ninja', 'torch', 'torchvision'):
        if not list(site.glob(f'{name}-*.dist-info')):
            info = site / f'{name}-1.0.dist-info'
            info.mkdir()
            (info / 'METADATA').write_text(metadata(name, '1.0'))
    return folder / 'bin' / 'python'


# python -m lshfm_mm install_mmcv, with other releases and operators.
DRIVER = """
import sys
args = sys.argv[1:]
sys.orig_argv = [sys.executable, '-m', 'lshfm_mm', 'install_mmcv', *args]
sys.argv = ['-m', *sys.orig_argv[3:]]
from dataclasses import replace
from pathlib import Path
from lshfm_mm import install_mmcv, stacks
stacks.OPENMMLAB = stacks.STACKS['openmmlab'] = replace(
    stacks.OPENMMLAB,
    python=stacks.Release('mmcv-lite==2.1.0', {python!r}),
    source=stacks.Release('mmcv==2.1.0', {source!r}),
)
stacks.LOCK = Path('absent')
install_mmcv.OPERATORS = Path('operators').resolve()
sys.argv = ['install_mmcv', *args]
install_mmcv.main()
"""


class Machine:
    """A home and an environment of its own for each test."""

    def __init__(self, python, folder):
        self.python, self.folder = python, folder
        self.site = next(python.parent.parent.glob('lib/*/site-packages'))
        self.releases = folder / 'releases'
        self.releases.mkdir()
        write_wheel(self.releases, 'mmcv-lite', '2.1.0', LITE)
        write_operators(folder / 'operators')
        (folder / 'packages' / 'torch').mkdir(parents=True)
        text = TORCH.format(version='2.14.1+cpu')
        (folder / 'packages' / 'torch' / '__init__.py').write_text(text)

    @property
    def cache(self):
        minor = sys.version_info[1]
        system = f'{platform.system()}-{platform.machine()}'.lower()
        key = f'mmcv2.1.0-torch2.14.1+cpu-cp3{minor}-{system}-cpu'
        return self.folder / 'home' / 'lshfm_mm' / key

    def cached(self, init=COMPILED):
        self.cache.mkdir(parents=True)
        files = {'mmcv/__init__.py': init, 'mmcv/ops.py': '# text\n' * 99}
        return write_wheel(self.cache, 'mmcv', '2.1.0', files)

    def release(self):
        """A source release that says what ninja says."""
        source = self.folder / 'mmcv-2.1.0'
        (source / 'mmcv' / 'ops').mkdir(parents=True)
        (source / 'setup.py').write_text(SETUP)
        (source / 'mmcv' / '__init__.py').write_text(COMPILED)
        (source / 'mmcv' / 'ops' / '__init__.py').write_text(OPS)
        (source / 'PKG-INFO').write_text(metadata('mmcv', '2.1.0'))
        with tarfile.open(self.releases / 'mmcv-2.1.0.tar.gz', 'w:gz') as tar:
            tar.add(source, source.name)

    def run(self, *args, **env):
        shas = {
            kind: hashlib.sha256(path.read_bytes()).hexdigest()
            for kind, suffix in (('python', '*.whl'), ('source', '*.tar.gz'))
            for path in self.releases.glob(suffix)
        }
        code = DRIVER.format(**{'source': '0' * 64, **shas})
        kept = {k: v for k, v in os.environ.items() if k[:4] != 'PIP_'}
        kept.pop('CXX', None)
        path = os.pathsep.join([str(ROOT), str(self.folder / 'packages')])
        return subprocess.run(
            [str(self.python), '-c', code, *args],
            env=kept
            | {
                'PYTHONPATH': path,
                'PYTHONDONTWRITEBYTECODE': '1',
                'XDG_CACHE_HOME': str(self.folder / 'home'),
                'PIP_CONFIG_FILE': os.devnull,
                'PIP_NO_INDEX': '1',
                'PIP_FIND_LINKS': str(self.releases),
                'TMPDIR': str(self.folder),
            }
            | env,
            cwd=self.folder,
            capture_output=True,
            text=True,
        )


@pytest.fixture
def machine(python, tmp_path):
    here = Machine(python, tmp_path)
    yield here
    for path in here.site.glob('mmcv*'):
        shutil.rmtree(path)


OURS = 'mmcv-2.1.0+torchvision-py3-none-any.whl'


def test_operators_on_torchvision(machine):
    """Installed, left alone, replaced when older, replaced by compiled."""
    done = machine.run(PATH='')
    assert done.returncode == 0, done.stderr
    wheel = machine.folder / 'home' / 'lshfm_mm' / OURS
    assert done.stdout == f'mmcv: installed {wheel}\n'
    done = machine.run(PATH='')
    assert done.stdout == (
        "mmcv: 2.1.0 with torchvision's operators is in place\n"
    )

    write_operators(machine.folder / 'operators', 'def nms(): "newer"\n')
    done = machine.run(PATH='')
    assert done.stdout == f'mmcv: installed {wheel}\n'
    installed = machine.site / 'mmcv' / '_ext' / 'boxes.py'
    assert installed.read_text() == 'def nms(): "newer"\n'

    compiled = machine.cached()
    done = machine.run('--compiled')
    assert done.returncode == 0, done.stderr
    assert done.stdout == f'mmcv: installed {compiled}\n'
    assert not installed.exists()
    for args in ([], ['--compiled']):
        done = machine.run(*args)
        assert done.stdout == (
            'mmcv: 2.1.0 with compiled operators is in place\n'
        )
        assert done.returncode == 0


def test_compiled_operators_that_do_not_load_are_replaced(machine):
    machine.cached('raise ImportError("undefined symbol")')
    machine.run('--compiled')
    done = machine.run()
    assert done.stdout.endswith(f'{OURS}\n'), done.stderr
    assert (machine.site / 'mmcv' / '_ext').is_dir()


def test_operators_that_cannot_be_imported(machine):
    write_operators(machine.folder / 'operators', 'import an_absent_one\n')
    done = machine.run()
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        'error: mmcv: its operators cannot be imported (ModuleNotFoundError: '
        "No module named 'an_absent_one')"
    )


@pytest.mark.parametrize('name', ['torch', 'torchvision'])
def test_without_torch(machine, name):
    (info,) = machine.site.glob(f'{name}-*.dist-info')
    info.rename(info.with_suffix('.away'))
    try:
        done = machine.run()
    finally:
        info.with_suffix('.away').rename(info)
    assert done.returncode == 1
    assert done.stderr == (
        f'error: {name}: is not installed for {machine.python}; install '
        f'torch and torchvision first\n'
    )


@pytest.mark.parametrize('damage', ['cut', 'flipped', 'empty'])
def test_damaged_wheel_is_removed_and_built_anew(machine, damage):
    wheel = machine.cached()
    data = bytearray(wheel.read_bytes())
    if damage == 'flipped':
        data[60] ^= 0xFF
    wheel.write_bytes(
        {'cut': data[: len(data) // 2], 'flipped': data, 'empty': b''}[damage]
    )
    done = machine.run('--compiled', CXX='no-such-compiler')
    assert done.stdout == f'mmcv: removing the damaged {wheel}\n'
    assert not wheel.exists()
    assert done.stderr == (
        'error: compiler: no C++ compiler found (CXX=no-such-compiler); '
        'install one, for example "apt-get install g++", or set CXX\n'
    )
    assert done.returncode == 1


@pytest.mark.parametrize(
    ('files', 'message', 'stays'),
    [
        (
            {'mmcv/__init__.py': '', 'mmcv/ops.py': 'raise OSError("why")'},
            'the ops of {} do not load under torch 2.14.1+cpu (OSError: why)'
            '; it was removed from the cache, run this command again',
            False,
        ),
        (
            {'mmcv/__init__.py': 'raise OSError("why")'},
            'cannot be imported (OSError: why)',
            True,
        ),
    ],
)
def test_only_a_bad_wheel_leaves_the_cache(machine, files, message, stays):
    machine.cache.mkdir(parents=True)
    wheel = write_wheel(machine.cache, 'mmcv', '2.1.0', files)
    done = machine.run('--compiled')
    assert done.returncode == 1
    assert done.stderr == f'error: mmcv: {message.format(wheel)}\n'
    assert wheel.exists() is stays


PROGRESS = r'mmcv: file %d/2, \d+\.\d min, ETA \d+\.\d min\n'


@needs_compiler
def test_failed_build_goes_on_at_the_next_run(machine):
    machine.release()
    done = machine.run('--compiled', BREAK='1')
    source = machine.cache / 'source'
    assert done.returncode == 1
    assert re.search(PROGRESS % 1, done.stdout), done.stderr
    assert 'first.cpp:1: fatal error: out of memory' in done.stdout
    log = machine.folder / 'lshfm_mm_mmcv_build.log'
    assert done.stderr.splitlines()[-1] == (
        f'error: mmcv: the build failed, see {log}; the next run goes on in '
        f'{source}, remove it to start anew'
    )
    assert f'CXX={machine.cache / "c++20"}' in log.read_text()
    assert (source / 'build' / 'first.o').is_file()

    done = machine.run('--compiled')
    assert done.returncode == 0, done.stderr
    assert f'mmcv: going on with the build in {source}\n' in done.stdout
    assert 'file 1/2' not in done.stdout
    assert re.search(PROGRESS % 2, done.stdout)
    wheel = machine.cache / 'mmcv-2.1.0-py3-none-any.whl'
    assert done.stdout.endswith(f'mmcv: installed {wheel}\n')
    assert {x.name for x in machine.cache.iterdir()} <= {
        'c++20', 'lock', wheel.name
    }  # fmt: skip


def test_published_wheel_of_onedl(tmp_path, monkeypatch, capfd):
    """By the real pip, from folders that stand for their index."""
    stack = STACKS['onedl']
    pages = str(tmp_path / '{cuda}-torch{torch}0')
    monkeypatch.setattr(compile_mmcv, 'PUBLISHED', pages)
    page, out = tmp_path / 'cu129-torch2100', tmp_path / 'out'
    page.mkdir()
    out.mkdir()
    write_wheel(page, 'onedl-mmcv', '2.3.6', {})
    fetch = compile_mmcv.fetch_published
    assert not fetch(stack, '2.9.0+cpu', None, out)
    assert str(tmp_path / 'cpu-torch290') in capfd.readouterr().out
    assert fetch(stack, '2.10.1+cu129', '12.9', out)
    assert compile_mmcv.cached_wheel(out).name.startswith('onedl_mmcv-2.3.6')


@needs_compiler
def test_compiler_compiles_cxx20_though_mmcv_asks_for_17(
    tmp_path, monkeypatch
):
    monkeypatch.setenv('CXX', 'c++ -DGIVEN=1')
    env = compile_mmcv.compiler_env('2.14.1', False, tmp_path)
    code = 'static_assert(__cplusplus >= 202002L && GIVEN == 1, "");'
    done = subprocess.run(
        [env['CXX'], '-fsyntax-only', '-x', 'c++', '-', '-std=c++17'],
        input=code,
        text=True,
    )
    assert done.returncode == 0
    assert env['NVCC_APPEND_FLAGS'] == '-std=c++20'


@needs_compiler
def test_older_torch_keeps_its_compiler(tmp_path, monkeypatch):
    monkeypatch.setenv('CXX', 'c++')
    env = compile_mmcv.compiler_env('2.13.0', False, tmp_path)
    assert env['CXX'] == 'c++'
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ('cxx', 'message'),
    [
        ('no-such-compiler', r'no C\+\+ compiler found \(CXX=no-such-'),
        ('old-compiler', r'old-compiler cannot compile C\+\+20; install g\+'),
    ],
)
def test_compiler_that_does_not_do(tmp_path, monkeypatch, cxx, message):
    old = tmp_path / 'old-compiler'
    old.write_text('#!/bin/sh\ncase "$*" in *c++20*) exit 1;; esac\n')
    old.chmod(0o755)
    monkeypatch.setenv('CXX', cxx)
    monkeypatch.setenv('PATH', str(tmp_path), prepend=os.pathsep)
    with pytest.raises(SystemExit, match=message):
        compile_mmcv.find_compiler()


@needs_compiler
def test_compiler_without_python_headers(tmp_path, monkeypatch):
    folder = tmp_path / 'python3.11'
    monkeypatch.setattr(sysconfig, 'get_path', lambda _: str(folder))
    with pytest.raises(SystemExit, match=f'no Python.h in {folder}; .*3.11-d'):
        compile_mmcv.find_compiler()


@needs_compiler
def test_gpu_needs_nvcc(tmp_path, monkeypatch):
    monkeypatch.setattr(compile_mmcv, 'PROBE_CUDA_HOME', 'raise OSError("no")')
    with pytest.raises(SystemExit, match='nvcc: .*OSError: no'):
        compile_mmcv.compiler_env('2.14.1', True, tmp_path)


def test_jobs_fit_into_memory(monkeypatch):
    monkeypatch.setattr(os, 'cpu_count', lambda: 64)
    pages = {'SC_PHYS_PAGES': 2 * 1024**2, 'SC_PAGE_SIZE': 4096}
    monkeypatch.setattr(os, 'sysconf', pages.get)
    assert compile_mmcv.parallel_jobs() == 4  # 8 GiB, 2 GiB for each
    monkeypatch.setattr(os, 'cpu_count', lambda: 3)
    assert compile_mmcv.parallel_jobs() == 3
    pages['SC_PHYS_PAGES'] = 1
    assert compile_mmcv.parallel_jobs() == 1


def test_cache_is_keyed_by_what_a_wheel_depends_on(monkeypatch, tmp_path):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    folder = compile_mmcv.wheel_folder
    folders = {
        folder(stack, torch, gpu)
        for stack in STACKS.values()
        for torch in ('2.14.1+cpu', '2.14.1+cu130', '2.9.0')
        for gpu in (False, True)
    }
    monkeypatch.setattr(platform, 'machine', lambda: 'another')
    folders.add(folder(OPENMMLAB, '2.9.0', False))
    assert len(folders) == 13
    assert all(x.parent == tmp_path / 'lshfm_mm' for x in folders)


def test_progress(capsys):
    compile_mmcv.show_progress('[20/77] c++ -c nms.cpp', 120.0)
    compile_mmcv.show_progress('building [1/2]', 1.0)
    assert capsys.readouterr().out == (
        'mmcv: file 20/77, 2.0 min, ETA 5.7 min\n'
    )


def test_crash_of_python_is_told():
    code = 'print(1); import os; os._exit(3)'
    assert install_mmcv.run_python(code)[1] == 'crashed with exit status 3'
    assert install_mmcv.run_python('print(1); print(2)') == ('2', '')


def real_python(folder):
    """A new environment that has this one's packages, but no mmcv."""
    venv.create(folder, with_pip=True)
    (site,) = folder.glob('lib/python*/site-packages')
    heavy = folder / 'heavy'
    heavy.mkdir()
    for path in {sysconfig.get_path(x) for x in ('purelib', 'platlib')}:
        for entry in Path(path).iterdir():
            if not re.match(r'(onedl_)?mmcv|pip|__ed|__pyc', entry.name):
                (heavy / entry.name).symlink_to(entry)
    (site / 'heavy.pth').write_text(str(heavy))
    return folder / 'bin' / 'python'


@pytest.mark.slow
def test_the_real_release_with_the_real_operators(tmp_path):
    """Used by a process that never imports lshfm_mm."""
    at = str(real_python(tmp_path / 'env'))
    env = {**os.environ, 'XDG_CACHE_HOME': str(tmp_path), 'PATH': ''}
    env.pop('PYTHONPATH', None)

    def run(*args, cwd=ROOT):
        done = subprocess.run(
            [at, *args], env=env, cwd=cwd, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.splitlines()[-1]

    install = ('-m', 'lshfm_mm', 'install_mmcv')
    assert run(*install).startswith('mmcv: installed ')
    assert run(*install).endswith("torchvision's operators is in place")
    code = """if 1:
        import mmcv, mmcv.ops, mmdet, sys, torch
        boxes = torch.tensor([[0., 0, 9, 9], [0, 0, 9, 8], [20, 0, 29, 9]])
        scores = torch.tensor([0.5, 0.9, 0.1])
        print(mmcv.ops.nms(boxes, scores, 0.5)[1].tolist(), mmcv._ext.__file__)
        assert 'lshfm_mm' not in sys.modules
    """
    kept, _, path = run('-c', code, cwd=tmp_path).rpartition(' ')
    assert kept == '[1, 2]'
    assert Path(path).parts[-3:] == ('mmcv', '_ext', '__init__.py')
    assert tmp_path in Path(path).parents
    stack = stacks.choose()
    name = stack.packages['mmcv'][0]
    code = f'from importlib.metadata import version; print(version({name!r}))'
    assert run('-c', code, cwd=tmp_path) == f'{stack.mmcv}+torchvision'
