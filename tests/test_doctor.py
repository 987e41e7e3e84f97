"""The doctor, run as a user runs it: as a process, on real environments.

Broken environments are empty virtual environments with small packages in
them that bear the names of the stack.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from lshfm_mm.compat import doctor, install_mmcv, stacks

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = 'Scripts' if os.name == 'nt' else 'bin'
DOCTOR = ('-m', 'lshfm_mm', 'doctor')
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
ONEDL = {
    'onedl-mmengine': '0.10.12',
    'onedl-mmcv': '2.3.6+torchvision',
    'onedl-mmdetection': '3.5.1',
    'onedl-mmpretrain': '1.3.6',
}

EXT = """
import sys, types
sys.modules[__name__ + '._ext'] = _ext = types.ModuleType('_ext')
_ext.__file__ = {module!r}
_ext.get_compiling_cuda_version = lambda: {cuda!r}
"""


class Stack:
    """A folder of small packages, all fine until one is changed."""

    def __init__(self, python, folder):
        self.python, self.folder = python, folder
        for dist, version in VERSIONS.items():
            self.release(dist, version)
        self.release('torchvision', '0.29.1', 'torch (>=2.14.0)')
        for part in doctor.parts(stacks.OPENMMLAB):
            self.write(part.module, '')
        self.write_operators('_ext.so')

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

    def write_operators(self, module, gpu=False, cuda='not available'):
        """Operators in a file that need not exist, and a torch for them."""
        self.write('mmcv', EXT.format(module=str(module), cuda=cuda))
        self.write('torch', f'class cuda: is_available = lambda: {gpu}')

    def run(self, *options, **env):
        return run([self.python, *DOCTOR, *options], self.folder, env)


def run(command, folder, env):
    kept = {k: v for k, v in os.environ.items() if k != 'CXX'}
    kept.update(env, PYTHONPATH=os.pathsep.join([str(folder), str(ROOT)]))
    kept['PYTHONDONTWRITEBYTECODE'] = '1'
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
    venv.create(folder, with_pip=False)
    return str(folder / SCRIPTS / 'python')


@pytest.fixture
def stack(bare_python, tmp_path):
    return Stack(bare_python, tmp_path)


def test_this_environment_is_fine():
    done = subprocess.run(
        [sys.executable, *DOCTOR], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout
    assert done.stdout.endswith(
        '\nall required parts are fine: detection runs, and classification\n'
    )
    module = sys.modules['mmcv._ext'].__file__
    kind = "torchvision's" if module.endswith('.py') else 'compiled'
    assert entry(done.stdout, 'mmcv operators') == [
        f'mmcv operators {kind} any ok'
    ]
    assert entry(done.stdout, 'stack') == [
        f'stack {stacks.choose().name} one ok'
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
Python               {python:16} >=3.10,<3.14     ok
stack                openmmlab        one              ok
numpy                2.4.6            any              ok
opencv-python        5.0.0            any              ok
joblib               1.6.0            any              ok
pycocotools          2.0.11           any              ok
torch                2.14.1           >=2.6            ok
torchvision          0.29.1           any              ok
torch + torchvision  2.14.1 + 0.29.1  torch>=2.14.0    ok
setuptools           80.10.2          <81              ok
mmengine             0.10.7           >=0.10.3,<1      ok
mmcv                 2.1.0            >=2.0.0,<=2.1.0  ok
mmcv operators       compiled         any              ok
mmdet                3.3.0            >=3.3,<3.4       ok
mmpretrain           1.2.0            >=1.2,<1.3       ok
mmrazor              1.0.0            ==1.0.0          ok

all required parts are fine: detection runs, and classification
"""
    )


def test_one_more_process_looks_at_all(stack):
    starts = stack.folder / 'starts'
    (stack.folder / 'sitecustomize.py').write_text(
        f"open({str(starts)!r}, 'a').write('x')"
    )
    stack.run()
    assert starts.read_text() == 'xx'  # the doctor, and its probe


def test_the_stack_of_onedl(stack):
    """Its own packages are named; MMEngine's setuptools is not needed."""
    for name, _ in stacks.OPENMMLAB.packages.values():
        stack.remove(name)
    for name, version in ONEDL.items():
        stack.release(name, version)
    ours = stack.folder / 'mmcv' / '_ext'
    shutil.copytree(install_mmcv.OPERATORS, ours)
    stack.write_operators(ours / '__init__.py')
    done = stack.run()
    assert done.returncode == 0, done.stdout
    assert entry(done.stdout, 'stack') == ['stack onedl one ok']
    assert entry(done.stdout, 'mmcv operators') == [
        "mmcv operators torchvision's any ok"
    ]
    assert '\nsetuptools ' not in done.stdout
    (ours / 'info.py').write_text('# of an older clone')
    stack.remove('onedl-mmdetection')
    done = stack.run()
    assert done.returncode == 1
    assert entry(done.stdout, 'mmcv operators') == [
        'mmcv operators none any FAIL',
        "torchvision's operators are not those of this lshfm_mm",
        'mend: python -m lshfm_mm install_mmcv',
    ]
    assert entry(done.stdout, 'onedl-mmdetection') == [
        'onedl-mmdetection none >=3.5.1,<3.6 FAIL',
        'not installed',
        'mend: pip install -c requirements.lock '
        '"onedl-mmdetection>=3.5.1,<3.6"',
    ]


def test_nothing_installed(bare_python, tmp_path):
    done = run([bare_python, *DOCTOR], tmp_path, {})
    assert done.returncode == 1
    assert done.stderr == ''
    assert entry(done.stdout, 'mmdet') == [
        'mmdet none >=3.3,<3.4 FAIL',
        'not installed',
        'mend: pip install -c requirements.lock "mmdet>=3.3,<3.4"',
    ]
    assert entry(done.stdout, 'mmcv')[2] == (
        'mend: python -m lshfm_mm install_mmcv'
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
        'mend: pip install -c requirements.lock "mmpretrain>=1.2,<1.3"',
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
        assert mend == 'mend: python -m lshfm_mm install_mmcv'
    else:
        wanted = dist + spec if dist == 'mmrazor' else f'"{dist}{spec}"'
        assert mend == f'mend: pip install -c requirements.lock {wanted}'


@pytest.mark.parametrize(
    ('code', 'error'),
    [
        (None, "ModuleNotFoundError: No module named 'mmcv.ops'"),
        (
            'raise ImportError("undefined symbol: _ZN3c10")',
            'ImportError: undefined symbol: _ZN3c10',
        ),
    ],
)
def test_mmcv_without_ops_that_load(stack, code, error):
    (stack.folder / 'mmcv' / 'ops.py').unlink()
    if code:
        stack.write('mmcv.ops', code)
    done = stack.run(PATH='')
    assert done.returncode == 1
    assert entry(done.stdout, 'mmcv') == ['mmcv 2.1.0 >=2.0.0,<=2.1.0 ok']
    assert entry(done.stdout, 'mmcv operators') == [
        'mmcv operators none any FAIL',
        error,
        'mend: python -m lshfm_mm install_mmcv',
    ]
    assert 'compiler' not in done.stdout


@pytest.mark.parametrize(
    ('gpu', 'cuda', 'fits'),
    [
        (True, 'not available', False),
        (True, '13.0', True),
        (False, 'not available', True),
    ],
)
def test_operators_for_the_gpu_that_torch_sees(stack, gpu, cuda, fits):
    stack.write_operators('_ext.so', gpu, cuda)
    done = stack.run()
    assert (done.returncode == 0) is fits
    row = entry(done.stdout, 'mmcv operators')
    assert row == (
        ['mmcv operators compiled any ok']
        if fits
        else [
            'mmcv operators none any FAIL',
            'OSError: they were compiled without CUDA, and torch sees a GPU',
            'mend: python -m lshfm_mm install_mmcv',
        ]
    )


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


def test_a_folder_that_pip_left_is_no_distribution(stack):
    stack.release('mmcv-lite', '2.1.0')
    assert 'write into the same folders' in stack.run().stdout
    (stack.folder / 'mmcv_lite-2.1.0.dist-info/METADATA').unlink()
    assert stack.run().returncode == 0


def test_a_crash_says_its_last_line(stack):
    stack.write(
        'joblib',
        'import os, sys; print("glibc\\nabort", file=sys.stderr, flush=True);'
        ' os._exit(134)',
    )
    done = stack.run()
    assert entry(done.stdout, 'joblib')[1] == 'abort'


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


def test_machine_is_fine_without_a_compiler(bare_python, tmp_path):
    command = [bare_python, *DOCTOR, '--machine']
    done = run(command, tmp_path, {'PATH': ''})
    assert (done.returncode, done.stdout, done.stderr) == (0, '', '')
    done = run([*command, '--compiled'], tmp_path, {'PATH': ''})
    assert (done.returncode, done.stdout) == (1, '')
    assert done.stderr.startswith('error: compiler: no C++ compiler found')


@pytest.mark.skipif(shutil.which('c++') is None, reason='needs a C++ compiler')
def test_machine_is_fine_with_a_compiler(bare_python, tmp_path):
    command = [bare_python, *DOCTOR, '--machine', '--compiled']
    done = run([*command, '--stack', 'onedl'], tmp_path, {})
    assert (done.returncode, done.stdout, done.stderr) == (0, '', '')


def test_machine_with_the_other_stack(stack):
    assert stack.run('--machine', '--stack', 'openmmlab').returncode == 0
    done = stack.run('--machine', '--stack', 'onedl')
    assert done.returncode == 1
    assert done.stdout == (
        'error: stack: onedl is asked for, but mmengine 0.10.7, mmcv 2.1.0, '
        'mmdet 3.3.0, mmpretrain 1.2.0 of openmmlab would be written over; '
        'take another environment, for example "make env STACK=onedl '
        'VENV=.venv-onedl", or "pip uninstall -y mmengine mmcv mmdet '
        'mmpretrain" first\n'
    )


@pytest.mark.parametrize('release', [(3, 9, 18), (3, 14, 0)])
def test_another_python(monkeypatch, release):
    monkeypatch.setattr('sys.version_info', release)
    check = doctor.check_python()
    version = '.'.join(map(str, release))
    assert check.error == f'this is {version}, needed is >=3.10,<3.14'
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
        ('3.14.0', '>=3.10,<3.14', False),
        ('1.0', '', True),
    ],
)
def test_satisfies(version, spec, fits):
    assert stacks.satisfies(version, spec) is fits


@pytest.mark.parametrize('name', stacks.STACKS)
def test_lock_is_within_the_ranges(name):
    text = (ROOT / 'requirements.lock').read_text()
    pins = re.findall(r'^([\w-]+)==([^\s;]+)', text, re.M)
    assert '\nsetuptools<81\n' in text
    for part in doctor.parts(stacks.STACKS[name]):
        versions = [x for name, x in pins if name == part.dists[0]]
        assert versions or part.dists == ('setuptools',)
        assert all(stacks.satisfies(x, part.spec) for x in versions)
        assert part.module != 'mmcv' or stacks.STACKS[name].mmcv in versions


@pytest.mark.slow
@pytest.mark.parametrize('order', [1, -1])
def test_mixed_stacks_are_refused_until_mended(tmp_path, order):
    """Real packages of both by the real pip, which says nothing."""
    folder = tmp_path / 'env'
    venv.create(folder, with_pip=True)
    python = str(folder / SCRIPTS / 'python')

    def pip(*args):
        env = {**os.environ, 'PIP_NO_DEPS': '1'}
        command = [python, '-m', 'pip', *args]
        subprocess.run(command, env=env, check=True, capture_output=True)

    for name in ['mmengine==0.10.7', 'onedl-mmengine==0.10.12'][::order]:
        pip('install', name)
    done = run([python, *DOCTOR], tmp_path, {})
    assert done.returncode == 1
    row, error, mend = entry(done.stdout, 'stack')
    assert row == 'stack openmmlab + onedl one FAIL'
    assert error == (
        'mmengine 0.10.7, onedl-mmengine 0.10.12 write into the same folders'
    )
    for tool in (
        ('install_mmcv',),
        ('install_mmcv', '--compiled'),
        ('doctor', '--machine', '--stack', 'onedl'),
    ):
        refused = run([python, '-m', 'lshfm_mm', *tool], tmp_path, {})
        assert refused.returncode == 1
        told = refused.stdout + refused.stderr
        assert (
            told == f'error: stack: {error}; {mend.removeprefix("mend: ")}\n'
        )
    commands = [shlex.split(x) for x in re.findall(r'`pip (.*?)`', mend)]
    uninstall, *installs = commands
    assert [x[0] for x in commands] == ['uninstall', 'install', 'install']
    for stack, install in zip(stacks.STACKS.values(), installs, strict=True):
        pip(*uninstall)
        assert run([python, '-c', 'import mmengine'], tmp_path, {}).returncode
        # What is in quotes can be installed; the first package is enough.
        (wanted,) = (x for x in install if 'mmengine' in x)
        pip('install', wanted)
        done = run([python, *DOCTOR], tmp_path, {})
        assert entry(done.stdout, 'stack') == [f'stack {stack.name} one ok']
        uninstall = ['uninstall', '-y', wanted.partition('>')[0]]
