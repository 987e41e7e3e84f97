"""The doctor, run as a user runs it: as a process, on real environments.

Broken environments are empty virtual environments with small packages in
them that bear the names of the stack.
"""

import ast
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from lshfm_mm import doctor

ROOT = Path(__file__).resolve().parent.parent
DOCTOR = str(ROOT / 'lshfm_mm' / 'doctor.py')
VERSIONS = {
    'setuptools': '80.10.2',
    'numpy': '2.4.6',
    'opencv-python': '5.0.0',
    'joblib': '1.6.0',
    'pycocotools': '2.0.11',
    'torch': '2.14.1',
    'torchvision': '0.29.1',
    'mmengine': '0.10.7',
    'mmcv': '2.1.0',
    'mmdet': '3.3.0',
    'mmrazor': '1.0.0',
    'mmpretrain': '1.2.0',
}


class Stack:
    """A folder of small packages, all fine until one is changed."""

    def __init__(self, python, folder):
        self.python, self.folder = python, folder
        for dist, version in VERSIONS.items():
            self.release(dist, version)
        self.release('torchvision', '0.29.1', 'torch (>=2.14.0)')
        for part in doctor.PARTS:
            self.write(part.module, '')

    def release(self, dist, version, requires=None):
        self.remove(dist)
        info = self.folder / f'{dist.replace("-", "_")}-{version}.dist-info'
        info.mkdir()
        lines = ['Metadata-Version: 2.1', f'Name: {dist}']
        lines += [f'Version: {version}']
        lines += [f'Requires-Dist: {requires}'] if requires else []
        (info / 'METADATA').write_text('\n'.join(lines) + '\n')

    def remove(self, dist):
        for info in self.folder.glob(f'{dist.replace("-", "_")}-*.dist-info'):
            (info / 'METADATA').unlink()
            info.rmdir()

    def write(self, module, code):
        package, _, rest = module.partition('.')
        (self.folder / package).mkdir(exist_ok=True)
        name = f'{rest or "__init__"}.py'
        (self.folder / package / name).write_text(code)
        (self.folder / package / '__init__.py').touch()

    def run(self, *options, **env):
        return run([self.python, DOCTOR, *options], self.folder, env)


def run(command, folder, env):
    kept = {k: v for k, v in os.environ.items() if k != 'CXX'}
    kept.update(env, PYTHONPATH=str(folder), PYTHONDONTWRITEBYTECODE='1')
    return subprocess.run(
        command, capture_output=True, text=True, env=kept, cwd=folder
    )


def entry(output, part):
    """The lines of one part: blanks made single, error and command added."""
    lines = output.splitlines()
    start = next(i for i, x in enumerate(lines) if x.startswith(f'{part}  '))
    end = start + 1
    while lines[end].startswith('    '):
        end += 1
    return [re.sub(r' +', ' ', line.strip()) for line in lines[start:end]]


@pytest.fixture(scope='module')
def bare_python(tmp_path_factory):
    folder = tmp_path_factory.mktemp('bare')
    subprocess.run(
        [sys.executable, '-m', 'venv', '--without-pip', str(folder)],
        check=True,
    )
    return str(folder / 'bin' / 'python')


@pytest.fixture
def stack(bare_python, tmp_path):
    return Stack(bare_python, tmp_path)


def test_this_environment_is_fine():
    done = subprocess.run(
        [sys.executable, '-m', 'lshfm_mm.doctor'],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout
    assert done.stdout.endswith(
        '\nall required parts are fine: detection runs, and classification\n'
    )
    assert entry(done.stdout, 'mmcv compiled ops') == [
        'mmcv compiled ops compiled compiled ok'
    ]
    assert 'FAIL' not in done.stdout


def test_table_of_a_fine_stack(stack):
    done = stack.run()
    python = '.'.join(map(str, sys.version_info[:3]))
    assert done.returncode == 0
    assert done.stderr == ''
    assert done.stdout == (
        f"""\
part                 found            needed           status
Python               {python:16} >=3.10,<3.13     ok
setuptools           80.10.2          <81              ok
numpy                2.4.6            any              ok
opencv-python        5.0.0            any              ok
joblib               1.6.0            any              ok
pycocotools          2.0.11           any              ok
torch                2.14.1           >=2.6            ok
torchvision          0.29.1           any              ok
torch + torchvision  2.14.1 + 0.29.1  torch>=2.14.0    ok
mmengine             0.10.7           >=0.10.3,<1      ok
mmcv                 2.1.0            >=2.0.0,<=2.1.0  ok
mmcv compiled ops    compiled         compiled         ok
mmdet                3.3.0            >=3.3,<3.4       ok
mmrazor              1.0.0            ==1.0.0          ok
mmpretrain           1.2.0            >=1.2,<1.3       ok

all required parts are fine: detection runs, and classification
"""
    )


def test_nothing_installed(bare_python, tmp_path):
    done = run([bare_python, DOCTOR], tmp_path, {})
    assert done.returncode == 1
    assert done.stderr == ''
    assert entry(done.stdout, 'mmdet') == [
        'mmdet none >=3.3,<3.4 FAIL',
        'not installed',
        "mend: pip install -c requirements.lock 'mmdet>=3.3,<3.4'",
    ]
    assert entry(done.stdout, 'mmcv')[2] == (
        'mend: python tools/install_mmcv.py'
    )
    assert entry(done.stdout, 'mmpretrain')[0].endswith(' optional')
    assert 'torch + torchvision' not in done.stdout
    assert done.stdout.endswith(
        '\n12 required lines fail: mend the first one first\n'
    )


def test_optional_part_does_not_fail(stack):
    stack.remove('mmpretrain')
    done = stack.run()
    assert done.returncode == 0
    assert done.stdout.endswith('classification needs mmpretrain\n')
    assert entry(done.stdout, 'mmpretrain') == [
        'mmpretrain none >=1.2,<1.3 optional',
        'not installed',
        "mend: pip install -c requirements.lock 'mmpretrain>=1.2,<1.3'",
    ]


@pytest.mark.parametrize(
    ('dist', 'version', 'spec'),
    [
        ('setuptools', '82.0.0', '<81'),
        ('mmengine', '0.10.2', '>=0.10.3,<1'),
        ('mmcv', '2.2.0', '>=2.0.0,<=2.1.0'),
        ('mmdet', '3.4.0', '>=3.3,<3.4'),
        ('mmrazor', '1.0.1', '==1.0.0'),
    ],
)
def test_version_out_of_range(stack, dist, version, spec):
    stack.release(dist, version)
    done = stack.run()
    assert done.returncode == 1
    row, error, mend = entry(done.stdout, dist)
    assert row == f'{dist} {version} {spec} FAIL'
    assert error == f'version {version} is outside {spec}'
    if dist == 'mmcv':
        assert mend == 'mend: python tools/install_mmcv.py'
    else:
        wanted = dist + spec if dist == 'mmrazor' else f"'{dist}{spec}'"
        assert mend == f'mend: pip install -c requirements.lock {wanted}'


def test_mmcv_without_ops_and_without_compiler(stack):
    (stack.folder / 'mmcv' / 'ops.py').unlink()
    done = stack.run(PATH='')
    assert done.returncode == 1
    assert entry(done.stdout, 'mmcv') == ['mmcv 2.1.0 >=2.0.0,<=2.1.0 ok']
    assert entry(done.stdout, 'mmcv compiled ops') == [
        'mmcv compiled ops none compiled FAIL',
        "ModuleNotFoundError: No module named 'mmcv.ops'",
        'mend: python tools/install_mmcv.py',
    ]
    assert entry(done.stdout, 'compiler') == [
        'compiler none C++20 FAIL',
        'no C++ compiler found (CXX unset)',
        'mend: install one, for example "apt-get install g++", or set CXX',
    ]


def test_no_compiler_is_no_fault_once_ops_work(stack):
    done = stack.run(PATH='')
    assert done.returncode == 0
    assert 'compiler' not in done.stdout


def test_ops_of_another_torch(stack):
    stack.write('mmcv.ops', 'raise ImportError("undefined symbol: _ZN3c10")')
    done = stack.run()
    assert done.returncode == 1
    assert entry(done.stdout, 'mmcv compiled ops')[1:] == [
        'ImportError: undefined symbol: _ZN3c10',
        'mend: python tools/install_mmcv.py',
    ]


def test_consequence_points_at_its_cause(stack):
    stack.release('mmcv', '2.2.0')
    stack.write('mmdet', 'raise AssertionError("MMCV==2.2.0 is used")')
    done = stack.run()
    assert entry(done.stdout, 'mmdet') == [
        'mmdet 3.3.0 >=3.3,<3.4 FAIL',
        'AssertionError: MMCV==2.2.0 is used',
        'mend: mend mmcv first',
    ]


def test_torchvision_of_another_torch(stack):
    stack.release('torchvision', '0.16.0', 'torch (==2.1.0)')
    stack.write('torchvision', 'raise RuntimeError("no torchvision::nms")')
    stack.write('mmpretrain', 'import torchvision')
    done = stack.run()
    assert done.returncode == 1
    assert entry(done.stdout, 'torch + torchvision') == [
        'torch + torchvision 2.14.1 + 0.16.0 torch==2.1.0 FAIL',
        'torchvision 0.16.0 needs torch==2.1.0',
        'mend: pip install torch==2.1.0 torchvision==0.16.0',
    ]
    assert entry(done.stdout, 'mmpretrain')[2] == (
        'mend: mend torch + torchvision first'
    )


def test_torchvision_built_for_cuda_beside_torch_for_cpu(stack):
    stack.release('torch', '2.14.1+cpu')
    stack.write(
        'torchvision',
        'raise OSError("libcudart.so.13: cannot open shared object file")',
    )
    done = stack.run()
    assert done.returncode == 1
    assert entry(done.stdout, 'torch')[0].endswith(' ok')
    assert entry(done.stdout, 'torch + torchvision') == [
        'torch + torchvision 2.14.1+cpu + 0.29.1 torch>=2.14.0 FAIL',
        'OSError: libcudart.so.13: cannot open shared object file',
        'mend: pip install --force-reinstall --no-deps torchvision==0.29.1 '
        '--index-url https://download.pytorch.org/whl/cpu',
    ]


def test_no_pair_without_torchvision_or_with_a_broken_torch(stack):
    stack.write('torch', 'raise OSError("libc10.so")')
    stack.write('torchvision', 'import torch')
    broken = stack.run()
    stack.write('torch', '')
    stack.remove('torchvision')
    missing = stack.run()
    for done in (broken, missing):
        assert done.returncode == 1
        assert done.stderr == ''
        assert 'torch + torchvision' not in done.stdout
    assert entry(broken.stdout, 'torch')[1] == 'OSError: libc10.so'
    assert entry(missing.stdout, 'torchvision')[2] == (
        'mend: pip install -c requirements.lock torchvision'
    )


def test_crash_is_told_and_the_rest_still_looked_at(stack):
    stack.write('joblib', 'import os; print("noise"); os._exit(139)')
    stack.write('mmrazor', 'raise ValueError("first line\\nlast line")')
    done = stack.run()
    assert done.returncode == 1
    assert entry(done.stdout, 'joblib') == [
        'joblib 1.6.0 any FAIL',
        'Python exits with 139 when it is imported',
        'mend: pip install -c requirements.lock --force-reinstall --no-deps '
        'joblib',
    ]
    assert entry(done.stdout, 'torch')[0].endswith(' ok')
    assert entry(done.stdout, 'mmrazor')[1] == 'last line'
    assert '\n2 required lines fail' in done.stdout


@pytest.mark.parametrize(
    ('part', 'module', 'code', 'mend'),
    [
        (
            'mmdet',
            'mmdet',
            'import a_missing_one.b',
            'pip install -c requirements.lock a_missing_one',
        ),
        (
            'opencv-python',
            'cv2',
            'raise ImportError("libGL.so.1: cannot open shared object file")',
            'install it, for example "apt-get install libgl1 libglib2.0-0"',
        ),
    ],
)
def test_what_a_package_lacks_is_installed(stack, part, module, code, mend):
    stack.write(module, code)
    done = stack.run()
    assert done.returncode == 1
    assert entry(done.stdout, part)[2] == f'mend: {mend}'


def test_headless_opencv_counts(stack):
    stack.remove('opencv-python')
    stack.release('opencv-python-headless', '4.9.0')
    done = stack.run()
    assert done.returncode == 0
    assert entry(done.stdout, 'opencv-python') == [
        'opencv-python 4.9.0 any ok'
    ]


def machine(tmp_path, **env):
    command = [sys.executable, '-I', DOCTOR, '--machine']
    return run(command, tmp_path, env)


def test_machine_is_fine(tmp_path):
    done = machine(tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, '', '')


def test_machine_without_compiler_and_git(tmp_path):
    done = machine(tmp_path, PATH='')
    assert done.returncode == 1
    assert done.stderr == ''
    assert done.stdout == (
        'error: compiler: no C++ compiler found (CXX unset); install one, '
        'for example "apt-get install g++", or set CXX\n'
        'error: git: not found; install it, for example "apt-get install '
        'git"\n'
    )


@pytest.mark.parametrize(
    ('cxx', 'line'),
    [
        ('c++ -O1', ''),
        (
            'no-such-compiler',
            'error: compiler: no C++ compiler found (CXX no-such-compiler); '
            'install one, for example "apt-get install g++", or set CXX\n',
        ),
        (
            'old-compiler',
            'error: compiler: old-compiler cannot compile C++20; install '
            'g++ 10 or later, or set CXX to another compiler\n',
        ),
    ],
)
def test_machine_with_cxx(tmp_path, cxx, line):
    old = tmp_path / 'old-compiler'
    old.write_text('#!/bin/sh\ncase "$*" in *c++20*) exit 1;; esac\n')
    old.chmod(old.stat().st_mode | stat.S_IXUSR)
    path = f'{tmp_path}{os.pathsep}{os.environ["PATH"]}'
    done = machine(tmp_path, CXX=cxx, PATH=path)
    assert done.stdout == line
    assert done.returncode == bool(line)


def test_machine_without_python_headers(tmp_path, monkeypatch):
    folder = tmp_path / 'python3.11'
    monkeypatch.setattr('sysconfig.get_path', lambda _: str(folder))
    check = doctor.check_compiler()
    assert check.error == f'no Python.h in {folder}'
    assert check.mend.endswith('"apt-get install python3.11-dev"')


@pytest.mark.parametrize('release', [(3, 9, 18), (3, 13, 0)])
def test_machine_with_another_python(monkeypatch, release):
    monkeypatch.setattr('sys.version_info', release)
    check = doctor.check_python()
    version = '.'.join(map(str, release))
    assert check.error == f'this is {version}, needed is >=3.10,<3.13'
    assert 'make env PYTHON=python3.11' in check.mend


@pytest.mark.parametrize(
    ('version', 'spec', 'fits'),
    [
        ('2.1.0', '>=2.0.0,<=2.1.0', True),
        ('2.1.0+cu121', '>=2.0.0,<=2.1.0', True),
        ('2.1', '==2.1.0', True),
        ('1', '==1.0.0', True),
        ('2.1.1', '>=2.0.0,<=2.1.0', False),
        ('2.10.0', '>=2.9', True),
        ('0.10.7', '>=0.10.3,<1', True),
        ('1.0.0', '>=0.10.3,<1', False),
        ('8.3.1', '!=8.3.1', False),
        ('10', '>=10', True),
        ('3.13.0', '>=3.10,<3.13', False),
        ('1.0', '', True),
    ],
)
def test_satisfies(version, spec, fits):
    assert doctor.satisfies(version, spec) is fits


def test_ranges_are_those_of_setup():
    calls = ast.walk(ast.parse((ROOT / 'setup.py').read_text()))
    texts = {x.value for x in calls if isinstance(x, ast.Constant)}
    for part in doctor.PARTS:
        assert part.dists[0] + part.spec in texts or part.module == 'mmcv.ops'
    assert doctor.PYTHON in texts


def test_lock_is_within_the_ranges():
    text = (ROOT / 'requirements.lock').read_text()
    pins = re.findall(r'^([\w-]+)==([^\s;]+)', text, re.M)
    assert '\nsetuptools<81\n' in text
    for part in doctor.PARTS:
        versions = [x for name, x in pins if name == part.dists[0]]
        assert versions or part.dists == ('setuptools',)
        assert all(doctor.satisfies(x, part.spec) for x in versions)
