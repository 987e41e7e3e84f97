"""tools/install_mmcv.py, run by a real Python with the real pip.

torch and mmcv are small stand-ins: a package that tells its version, and a
source release that says what ninja says and asks for what mmcv asks for.
"""

import importlib.util
import os
import platform
import re
import shutil
import stat
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

TOOL = Path(__file__).resolve().parent.parent / 'tools' / 'install_mmcv.py'
TORCH = """
__version__ = {version!r}
class version: cuda = None
class cuda: is_available = staticmethod(lambda: {gpu})
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
setup(name='mmcv', version='2.1.0', packages=['mmcv'])
"""


@pytest.fixture(scope='module')
def tool():
    spec = importlib.util.spec_from_file_location('install_mmcv', TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='module')
def python(tmp_path_factory):
    """A Python with the pip and setuptools of this one, and no more."""
    folder = tmp_path_factory.mktemp('env')
    command = [sys.executable, '-m', 'venv', '--without-pip', str(folder)]
    subprocess.run(command, check=True)
    site = next(folder.glob('lib/python*/site-packages'))
    site_here = Path(importlib.util.find_spec('setuptools').origin).parents[1]
    for pattern in ('pip', 'setuptools*', 'pkg_resources', 'wheel*', 'pack*'):
        for path in site_here.glob(pattern):
            (site / path.name).symlink_to(path)
    (site / '_distutils_hack').symlink_to(site_here / '_distutils_hack')
    for name in ('wheel', 'ninja'):
        if not list(site.glob(f'{name}-*.dist-info')):
            write_info(site, name, '1.0')
    return folder / 'bin' / 'python'


class Machine:
    """A home and an environment of its own for each test."""

    def __init__(self, python, folder):
        self.python, self.folder = python, folder
        self.packages = folder / 'packages'
        self.releases = folder / 'releases'
        self.releases.mkdir()
        self.site = next(python.parent.parent.glob('lib/*/site-packages'))
        self.torch('2.14.1+cpu')

    def torch(self, version, gpu=False):
        package = self.packages / 'torch'
        package.mkdir(parents=True, exist_ok=True)
        text = TORCH.format(version=version, gpu=gpu)
        (package / '__init__.py').write_text(text)

    @property
    def cache(self):
        minor = sys.version_info[1]
        system = f'{os.uname().sysname}-{os.uname().machine}'.lower()
        key = f'mmcv2.1.0-torch2.14.1+cpu-cp3{minor}-{system}-cpu'
        return self.folder / 'home' / 'lshfm_mm' / key

    def cached(self):
        self.cache.mkdir(parents=True)
        wheel = self.cache / 'mmcv-2.1.0-py3-none-any.whl'
        info = 'mmcv-2.1.0.dist-info'
        with zipfile.ZipFile(wheel, 'w', zipfile.ZIP_DEFLATED) as archive:
            archive.writestr('mmcv/__init__.py', '__version__ = "2.1.0"')
            archive.writestr('mmcv/ops.py', '# text\n' * 99)
            archive.writestr(f'{info}/METADATA', metadata('mmcv', '2.1.0'))
            archive.writestr(
                f'{info}/WHEEL',
                'Wheel-Version: 1.0\nRoot-Is-Purelib: true\n'
                'Tag: py3-none-any\n',
            )
            archive.writestr(f'{info}/RECORD', '')
        return wheel

    def release(self):
        source = self.folder / 'mmcv-2.1.0'
        (source / 'mmcv').mkdir(parents=True)
        (source / 'setup.py').write_text(SETUP)
        (source / 'mmcv/__init__.py').write_text('__version__ = "2.1.0"')
        (source / 'mmcv/ops.py').touch()
        (source / 'PKG-INFO').write_text(metadata('mmcv', '2.1.0'))
        with tarfile.open(self.releases / 'mmcv-2.1.0.tar.gz', 'w:gz') as tar:
            tar.add(source, source.name)

    def run(self, **env):
        kept = {k: v for k, v in os.environ.items() if k[:4] != 'PIP_'}
        kept.pop('CXX', None)
        return subprocess.run(
            [str(self.python), str(TOOL)],
            env=kept
            | {
                'PYTHONPATH': str(self.packages),
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


def metadata(name, version):
    return f'Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n'


def write_info(site, name, version):
    info = site / f'{name}-{version}.dist-info'
    info.mkdir()
    (info / 'METADATA').write_text(metadata(name, version))


def test_without_torch(machine):
    machine.torch('2.14.1')
    (machine.packages / 'torch' / '__init__.py').write_text('import absent')
    done = machine.run()
    assert done.returncode == 1
    assert done.stderr == (
        f'error: torch: cannot be imported by {machine.python} '
        f"(ModuleNotFoundError: No module named 'absent'); install torch and "
        f'torchvision first\n'
    )


def test_cached_wheel_replaces_mmcv_without_ops(machine):
    wheel = machine.cached()
    (machine.site / 'mmcv').mkdir()
    (machine.site / 'mmcv' / '__init__.py').write_text('__version__ = "2.1.0"')
    write_info(machine.site, 'mmcv', '2.1.0')
    (machine.site / 'mmcv-2.1.0.dist-info' / 'RECORD').write_text(
        'mmcv/__init__.py,,\nmmcv-2.1.0.dist-info/METADATA,,\n'
        'mmcv-2.1.0.dist-info/RECORD,,\n'
    )
    done = machine.run()
    assert done.returncode == 0, done.stderr
    assert done.stdout == f'mmcv: installed {wheel}\n'
    assert (machine.site / 'mmcv' / 'ops.py').is_file()
    done = machine.run()
    assert done.stdout == 'mmcv: 2.1.0 with compiled ops is in place\n'
    assert done.returncode == 0


@pytest.mark.parametrize('damage', ['cut', 'flipped', 'empty'])
def test_damaged_wheel_is_removed_and_built_anew(machine, damage):
    wheel = machine.cached()
    data = bytearray(wheel.read_bytes())
    if damage == 'flipped':
        data[60] ^= 0xFF
    wheel.write_bytes(
        {'cut': data[: len(data) // 2], 'flipped': data, 'empty': b''}[damage]
    )
    done = machine.run(CXX='no-such-compiler')
    assert done.stdout == f'mmcv: removing the damaged {wheel}\n'
    assert not wheel.exists()
    assert done.stderr == (
        'error: compiler: no C++ compiler found (CXX=no-such-compiler); '
        'install one, for example "apt-get install g++", or set CXX\n'
    )
    assert done.returncode == 1


@pytest.mark.parametrize(
    ('broken', 'message', 'stays'),
    [
        (
            'import mmcv.ops',
            'error: mmcv: the ops of {} do not load under torch 2.14.1 '
            '(why); it was removed from the cache, run this command again',
            False,
        ),
        (
            'import mmcv',
            'error: mmcv: is installed but cannot be imported (why)',
            True,
        ),
    ],
)
def test_only_a_bad_wheel_leaves_the_cache(
    tool, monkeypatch, tmp_path, broken, message, stays
):
    wheel = tmp_path / 'mmcv-2.1.0.whl'
    wheel.touch()
    monkeypatch.setattr(tool, 'pip', lambda *args: True)
    monkeypatch.setattr(tool, 'mmcv_works', lambda: False)
    monkeypatch.setattr(
        tool, 'run_python', lambda code: ('', 'why' if code == broken else '')
    )
    with pytest.raises(SystemExit) as left:
        tool.install(wheel, '2.14.1')
    assert left.value.code == message.format(wheel)
    assert wheel.exists() is stays


PROGRESS = r'mmcv: file %d/2, \d+\.\d min, ETA \d+\.\d min\n'


def test_failed_build_goes_on_at_the_next_run(machine):
    machine.release()
    done = machine.run(BREAK='1')
    source = machine.cache / 'mmcv-2.1.0'
    assert done.returncode == 1
    assert re.search(PROGRESS % 1, done.stdout)
    assert 'first.cpp:1: fatal error: out of memory' in done.stdout
    log = machine.folder / 'lshfm_mm_mmcv_build.log'
    assert done.stderr.splitlines()[-1] == (
        f'error: mmcv: the build failed, see {log}; the next run goes on in '
        f'{source}, remove it to start anew'
    )
    assert f'CXX={machine.cache / "c++20"}' in log.read_text()
    assert (source / 'build' / 'first.o').is_file()

    done = machine.run()
    assert done.returncode == 0, done.stderr
    assert f'mmcv: going on with the build in {source}\n' in done.stdout
    assert 'file 1/2' not in done.stdout
    assert re.search(PROGRESS % 2, done.stdout)
    wheel = machine.cache / 'mmcv-2.1.0-py3-none-any.whl'
    assert done.stdout.endswith(f'mmcv: installed {wheel}\n')
    assert {x.name for x in machine.cache.iterdir()} == {
        'c++20', 'lock', wheel.name
    }  # fmt: skip


def test_source_that_cannot_be_downloaded(tool, monkeypatch, tmp_path):
    monkeypatch.setattr(tool, 'pip', lambda *args: False)
    with pytest.raises(SystemExit, match='source could not be downloaded'):
        tool.fetch_source(tmp_path)
    assert not list(tmp_path.iterdir())


def test_compiler_compiles_cxx20_though_mmcv_asks_for_17(
    tool, tmp_path, monkeypatch
):
    monkeypatch.setenv('CXX', 'c++ -DGIVEN=1')
    env = tool.compiler_env('2.14.1', False, tmp_path)
    code = 'static_assert(__cplusplus >= 202002L && GIVEN == 1, "");'
    done = subprocess.run(
        [env['CXX'], '-fsyntax-only', '-x', 'c++', '-', '-std=c++17'],
        input=code,
        text=True,
    )
    assert done.returncode == 0
    assert env['NVCC_APPEND_FLAGS'] == '-std=c++20'


def test_older_torch_keeps_its_compiler(tool, tmp_path, monkeypatch):
    monkeypatch.setenv('CXX', 'c++')
    env = tool.compiler_env('2.13.0', False, tmp_path)
    assert env['CXX'] == 'c++'
    assert not list(tmp_path.iterdir())


def test_gpu_needs_nvcc(tool, tmp_path, monkeypatch):
    monkeypatch.setattr(tool, 'run_python', lambda _: ('', 'no CUDA_HOME'))
    with pytest.raises(SystemExit, match='nvcc: .*no CUDA_HOME'):
        tool.compiler_env('2.14.1', True, tmp_path)


def test_jobs_fit_into_memory(tool, monkeypatch):
    monkeypatch.setattr(os, 'cpu_count', lambda: 64)
    pages = {'SC_PHYS_PAGES': 2 * 1024**2, 'SC_PAGE_SIZE': 4096}
    monkeypatch.setattr(os, 'sysconf', pages.get)
    assert tool.parallel_jobs() == 4  # 8 GiB, 2 GiB for each
    monkeypatch.setattr(os, 'cpu_count', lambda: 3)
    assert tool.parallel_jobs() == 3
    pages['SC_PHYS_PAGES'] = 1
    assert tool.parallel_jobs() == 1


def test_cache_is_keyed_by_what_a_wheel_depends_on(tool, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', '/cache')
    folders = {
        tool.cache_folder(torch, gpu)
        for torch in ('2.14.1+cpu', '2.14.1+cu130', '2.1.0')
        for gpu in (False, True)
    }
    monkeypatch.setattr(platform, 'machine', lambda: 'another')
    folders.add(tool.cache_folder('2.1.0', False))
    assert len(folders) == 7
    assert all(str(x).startswith('/cache/lshfm_mm/mmcv2.1') for x in folders)


@pytest.mark.parametrize(
    ('torch', 'cuda', 'page'),
    [
        ('2.1.2+cu121', '12.1', 'cu121/torch2.1.0'),
        ('2.0.1+cpu', None, 'cpu/torch2.0.0'),
        ('2.2.0', None, None),
        ('2.14.1', '13.0', None),
    ],
)
def test_published_wheel_is_looked_for(
    tool, monkeypatch, tmp_path, torch, cuda, page
):
    calls = []
    monkeypatch.setattr(tool, 'pip', lambda *args: not calls.append(args))
    assert tool.fetch_published(torch, cuda, tmp_path) is (page is not None)
    if page is None:
        assert calls == []
    else:
        base = 'https://download.openmmlab.com/mmcv/dist'
        assert f'{base}/{page}/index.html' in calls[0]
        assert 'mmcv==2.1.0' in calls[0]
        assert '--only-binary=:all:' in calls[0]


def test_progress(tool, capsys):
    tool.show_progress('[20/77] c++ -c nms.cpp', 120.0)
    tool.show_progress('building [1/2]', 1.0)
    assert capsys.readouterr().out == (
        'mmcv: file 20/77, 2.0 min, ETA 5.7 min\n'
    )


def test_crash_of_python_is_told(tool):
    assert tool.run_python('print(1); import os; os._exit(3)')[1] == (
        'crashed with exit status 3'
    )
    assert tool.run_python('print(1)') == ('1\n', '')


def test_wrapper_is_executable_by_its_owner(tool, tmp_path):
    tool.compiler_env('2.14.1', False, tmp_path)
    assert (tmp_path / 'c++20').stat().st_mode & stat.S_IXUSR
