"""A home and an environment for mmcv's installer, run by the real pip.

torch and what pip finds are small stand-ins: a package that tells its
version, and releases of mmcv.
"""

import hashlib
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

from lshfm_mm.compat import repack_mmcv

ROOT = Path(__file__).resolve().parent.parent
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
setup(name={name!r}, version={version!r}, packages=['mmcv', 'mmcv.ops'],
      package_data={{'mmcv': ['_ext.so']}})
"""
# As in mmcv, the operators are loaded when they are imported.
OPS = 'from .. import _ext'
# Stands for an extension that is compiled: not a .py file.
COMPILED = """
import sys, types
sys.modules[__name__ + '._ext'] = _ext = types.ModuleType('_ext')
_ext.__file__ = '_ext.so'
_ext.get_compiling_cuda_version = lambda: 'not available'
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
        archive.writestr(f'{info}/WHEEL', repack_mmcv.WHEEL)
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


def make_python(folder):
    """A Python with the pip and setuptools of this one, and no more."""
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
from lshfm_mm.compat import compile_mmcv, install_mmcv, stacks
compile_mmcv.PUBLISHED = '{{cuda}}-torch{{torch}}0'
onedl = replace(
    stacks.ONEDL, source=stacks.Release('onedl-mmcv==2.3.6', {source!r})
)
stacks.ONEDL = stacks.STACKS['onedl'] = compile_mmcv.ONEDL = onedl
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
        self.write_torch(gpu=False)

    def write_torch(self, gpu):
        text = TORCH.format(version='2.14.1+cpu', gpu=gpu)
        path = self.folder / 'packages' / 'torch' / '__init__.py'
        path.write_text(text)

    @property
    def cache(self):
        minor = sys.version_info[1]
        system = f'{platform.system()}-{platform.machine()}'.lower()
        key = f'mmcv2.1.0-torch2.14.1+cpu-cp3{minor}-{system}-cpu'
        return self.folder / 'home' / 'lshfm_mm' / key

    def cached(self, init=COMPILED, version='2.1.0'):
        self.cache.mkdir(parents=True, exist_ok=True)
        files = {'mmcv/__init__.py': init, 'mmcv/ops.py': '# text\n' * 99}
        return write_wheel(self.cache, 'mmcv', version, files)

    def release(self, name='mmcv', version='2.1.0', init=COMPILED):
        """A source release that says what ninja says."""
        stem = f'{name.replace("-", "_")}-{version}'
        source = self.folder / stem
        (source / 'mmcv' / 'ops').mkdir(parents=True)
        setup = SETUP.format(name=name, version=version)
        (source / 'setup.py').write_text(setup)
        (source / 'mmcv' / '__init__.py').write_text(init)
        (source / 'mmcv' / 'ops' / '__init__.py').write_text(OPS)
        (source / 'PKG-INFO').write_text(metadata(name, version))
        with tarfile.open(self.releases / f'{stem}.tar.gz', 'w:gz') as tar:
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

    def clean(self):
        """Remove mmcv from the environment, which other tests use, too."""
        for path in self.site.glob('*mmcv*'):
            shutil.rmtree(path)
