"""The wheel: what is in it, and that it works far from the repository."""

import math
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.hub import get_config
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import lshfm_mm
from lshfm_mm.__main__ import main
from lshfm_mm.compat import stacks

from .conftest import SHAPES
from .test_docs import TRACKED

REPO = Path(__file__).parent.parent
SHIPPED = {
    f'lshfm_mm/.mim/{path}'
    for path in TRACKED
    if path.startswith(('configs/', 'tools/'))
} | {x for x in TRACKED if x.startswith('lshfm_mm/') and Path(x).suffix}
SHIPPED -= {'lshfm_mm/.mim'}


def python(*args, at=sys.executable, cwd=REPO) -> str:
    """Run Python without this repository on its path; return its words."""
    env = {k: v for k, v in os.environ.items() if k != 'PYTHONPATH'}
    answer = subprocess.run(
        [str(at), '-W', 'ignore', *map(str, args)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**env, 'OMP_NUM_THREADS': '1'},
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return answer.stdout + answer.stderr


@pytest.fixture(scope='module')
def make_clone(tmp_path_factory):
    """Copy the tracked files, as of a clean clone."""

    def make() -> Path:
        copy = tmp_path_factory.mktemp('clone')
        for path in TRACKED:
            (copy / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPO / path, copy / path, follow_symlinks=False)
        return copy

    return make


@pytest.fixture(scope='module')
def sdist(make_clone) -> Path:
    copy = make_clone()
    python(
        *(
            '-c',
            'from setuptools import build_meta as b; b.build_sdist("out")',
        ),
        cwd=copy,
    )
    (path,) = (copy / 'out').iterdir()
    assert path.name == f'lshfm_mm-{lshfm_mm.__version__}.tar.gz'
    return path


@pytest.fixture(scope='module')
def wheel(sdist) -> Path:
    """Built from the sdist, as pip does."""
    python(
        *('-m', 'pip', 'wheel', '-q', '--no-deps', '--no-build-isolation'),
        *('-w', sdist.parent, sdist),
    )
    (path,) = sdist.parent.glob('*.whl')
    return path


def test_the_sdist_has_configs_and_tools(sdist):
    with tarfile.open(sdist) as file:
        members = file.getmembers()
    found = {x.name.partition('/')[2] for x in members if x.isfile()}
    assert found >= SHIPPED
    assert len(SHIPPED) > 150
    assert all(x.isfile() or x.isdir() for x in members)


@pytest.mark.slow
def test_the_wheel_trains_outside_the_repository(wheel, tmp_path):
    """In an environment with this one's packages, and lshfm_mm's wheel."""
    with zipfile.ZipFile(wheel) as file:
        found = {x for x in file.namelist() if '.dist-info/' not in x}
    assert found == SHIPPED

    home, work = tmp_path / 'env', tmp_path / 'work'
    venv.create(home, with_pip=False)
    at = home / ('Scripts' if os.name == 'nt' else 'bin') / 'python'
    work.mkdir()
    code = 'import sysconfig; print(sysconfig.get_path("purelib"))'
    packages = Path(python('-c', code, at=at).strip())
    paths = {sysconfig.get_path(x) for x in ('purelib', 'platlib')}
    # MMEngine imports distutils, which Python 3.12 has from setuptools.
    shim = 'import _distutils_hack; _distutils_hack.add_shim()'
    (packages / 'heavy.pth').write_text('\n'.join([*paths, shim]))
    with zipfile.ZipFile(wheel) as file:
        file.extractall(packages)

    (work / 'mine.py').write_text(
        f"_base_ = 'lshfm_mm::shapes/{SHAPES['faster_rcnn_recommended']}.py'\n"
        'train_cfg = dict(max_epochs=1, val_interval=1)\n'
    )
    data = ('--num-train', 16, '--num-val', 4, '--size', 64)

    def run(*args):
        return python(*args, at=at, cwd=work)

    run('-m', 'lshfm_mm', 'make_shapes', 'data/easy_shapes', *data)
    # As mim does: it finds the tool and the config below .mim.
    mim = packages / 'lshfm_mm' / '.mim'
    run(
        *(
            mim / 'tools/train.py',
            mim / 'configs/shapes/faster-rcnn_r34_shapes.py',
        ),
        *('--launcher', 'none', '--work-dir', 'teacher'),
        *('--cfg-options', 'train_cfg.max_epochs=1'),
    )
    out = ('-o', 'work_dirs/shapes/teacher.pth')
    run('-m', 'lshfm_mm', 'export_student', 'teacher/epoch_1.pth', *out)
    said = run('-m', 'lshfm_mm', 'train', 'mine.py')
    assert 'distill.loss_roi_lsh' in said
    assert 'coco/bbox_mAP' in said
    said = run('-c', 'import lshfm_mm; print(lshfm_mm.__file__)')
    assert said.strip() == str(packages / 'lshfm_mm' / '__init__.py')
    checkpoint = work / 'work_dirs/mine/epoch_1.pth'
    run('-m', 'lshfm_mm', 'test', 'mine.py', checkpoint)
    assert sorted(x.name for x in work.iterdir()) == [
        'data',
        'mine.py',
        'teacher',
        'work_dirs',
    ]


@pytest.mark.parametrize('name', ['faster_rcnn_recommended', 'multi_stage1'])
def test_a_config_inherits_from_the_package(name, tmp_path):
    """As from its file: the same dicts, built in the same scope."""
    mine = tmp_path / 'mine.py'
    for base in (
        f'lshfm_mm::shapes/{SHAPES[name]}.py',
        REPO / f'configs/shapes/{SHAPES[name]}.py',
    ):
        mine.write_text(
            f'_base_ = {str(base)!r}\nlater = _base_.model.architecture\n'
        )
        cfg = Config.fromfile(mine)
        teacher = cfg.model.teacher.pop('cfg_path')
        assert Path(teacher).is_file()
        if '::' in str(base):
            packaged = cfg.to_dict()
    assert packaged == cfg.to_dict()


def test_the_package_names_its_configs():
    cfg = get_config('lshfm_mm::distill/faster_rcnn_lshfm.py')
    path = Path(lshfm_mm.__file__).parent / '.mim/configs/distill'
    assert Path(cfg.filename) == path / 'faster_rcnn_lshfm.py'
    # An editable installation has its metadata elsewhere.
    assert MODULE2PACKAGE['lshfm_mm'] == 'lshfm_mm.version'


def test_a_clone_without_links_is_complete(make_clone):
    """On Windows git writes the target of a link into a text file."""
    clone = make_clone()
    for name in ('configs', 'tools'):
        link = clone / 'lshfm_mm/.mim' / name
        link.unlink()
        link.write_text(f'../../{name}', 'utf-8')
    name = f'shapes/{SHAPES["faster_rcnn_recommended"]}.py'
    code = (
        'import lshfm_mm.__main__, lshfm_mm.utils.configs as t; '
        f'print(t.read_config("config", "lshfm_mm::{name}").filename); '
        'print(lshfm_mm.__main__.TOOLS)'
    )
    said = python('-c', code, cwd=clone).splitlines()[-2:]
    assert said == [str(clone / 'configs' / name), str(clone / 'tools')]
    code = 'from setuptools import build_meta as b; b.build_wheel("out")'
    python('-c', code, cwd=clone)
    (wheel,) = (clone / 'out').iterdir()
    with zipfile.ZipFile(wheel) as file:
        found = {x for x in file.namelist() if '.dist-info/' not in x}
    assert found == SHIPPED


def test_the_index_lists_each_metafile():
    index = REPO / 'lshfm_mm/.mim/model-index.yml'
    found = [x for x in TRACKED if x.endswith('/metafile.yml')]
    assert yaml.safe_load(index.read_text())['Import'] == sorted(found)


def test_without_the_name_of_a_tool_all_are_named(monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['-m', 'fly'])
    with pytest.raises(SystemExit) as error:
        main()
    line = str(error.value)
    assert line.startswith('usage: python -m lshfm_mm {analyze,demo,')
    for path in (REPO / 'tools').glob('*.py'):
        assert path.stem in line


def run_bare(*args, cwd=REPO) -> subprocess.CompletedProcess[str]:
    """Run Python where no package but lshfm_mm can be imported."""
    return subprocess.run(
        [sys.executable, *args],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, 'PYTHONPATH': str(REPO)},
    )


@pytest.mark.parametrize(
    'command',
    [
        f'{before}{tool}'
        for before in ('-S -m lshfm_mm ', '-Sm lshfm_mm ', '-Smlshfm_mm ')
        for tool in ('doctor', 'install_mmcv')
    ]
    + ['-S -m lshfm_mm.doctor', '-Smlshfm_mm.doctor'],
)
def test_set_up_runs_where_no_package_is(command):
    done = run_bare(*command.split(), '--help')
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith('usage: ')


@pytest.mark.parametrize(
    'command',
    [
        'other.py install_mmcv',
        'other.py -m lshfm_mm.doctor',
        '-m other install_mmcv',
        '-m other lshfm_mm doctor',
        '-mother -m lshfm_mm doctor',
        '-m lshfm_mm train install_mmcv',
        '-m lshfm_mm.other doctor',
    ],
)
def test_others_get_the_whole_package(command, tmp_path):
    """It asks for the rest of a stack, though a word is the same."""
    (tmp_path / 'other.py').write_text('import lshfm_mm\n')
    (tmp_path / 'mmcv.py').write_text('')
    done = run_bare('-S', *command.split(), cwd=tmp_path)
    assert done.returncode == 1
    line = done.stderr.splitlines()[-1]
    assert 'mmengine is not installed; lshfm_mm needs one of its ' in line
    assert '"python -m lshfm_mm doctor" names the commands' in line


@pytest.mark.parametrize(
    'command',
    ['-m lshfm_mm train', '-m lshfm_mm demo', f'{REPO}/tools/make_config.py'],
)
def test_tools_without_a_stack_name_the_doctor(command, tmp_path):
    done = run_bare('-S', *command.split(), cwd=tmp_path)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith('error: mmengine is not installed; lshfm_mm needs ')
    assert line.endswith('"python -m lshfm_mm doctor" names the commands')


MATHS = """
import sys
for name in ('mmrazor', 'mmengine', 'mmcv', 'mmdet'):
    sys.modules[name] = None  # cannot be imported
import torch
from lshfm_mm.losses import lsh_loss
from lshfm_mm.losses.functional import lsh_loss as same
assert lsh_loss is same
feature = torch.ones(2, 3)
print(lsh_loss(feature, feature, torch.zeros(4, 3), torch.zeros(4)).item())
"""


def test_the_maths_needs_torch_alone():
    """Codes of chance, half of the bits: log 2 of each."""
    assert float(python('-c', MATHS)) == pytest.approx(math.log(2))


@pytest.mark.parametrize('command', ['lshfm_mm doctor', 'lshfm_mm.doctor'])
def test_an_old_python_answers_in_one_line(command, tmp_path):
    old = "import sys; sys.version_info = (3, 8, 18, 'final', 0)\n"
    (tmp_path / 'sitecustomize.py').write_text(old)
    path = os.pathsep.join([str(tmp_path), str(REPO)])
    done = subprocess.run(
        [sys.executable, '-m', *command.split()],
        capture_output=True,
        text=True,
        env={**os.environ, 'PYTHONPATH': path},
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert 'this is Python 3.8, lshfm_mm needs 3.10 or later; ' in line


@pytest.fixture(scope='module')
def package(make_clone) -> metadata.PathDistribution:
    """What pip reads of a clone."""
    copy = make_clone()
    (copy / 'out').mkdir()
    code = (
        'from setuptools import build_meta as b; '
        'b.prepare_metadata_for_build_wheel("out")'
    )
    python('-c', code, cwd=copy)
    (path,) = (copy / 'out').glob('*.dist-info')
    return metadata.PathDistribution(path)


def test_pip_sees_one_version_and_one_range_of_python(package):
    assert package.version == lshfm_mm.__version__
    assert package.metadata['Requires-Python'] == stacks.PYTHON
    extras = {*stacks.STACKS, 'dev', 'docs', 'families'}
    assert set(package.metadata.get_all('Provides-Extra')) == extras


@pytest.mark.parametrize('name', stacks.STACKS)
def test_an_extra_is_a_stack(package, name):
    """All of it but mmcv, which pip cannot install."""
    needed = [Requirement(x) for x in package.requires]
    common = {x.name for x in needed if x.marker is None}
    extra = {
        (x.name, x.specifier)
        for x in needed
        if x.marker and x.marker.evaluate({'extra': name})
    }
    ours = {
        (dist, SpecifierSet(spec))
        for module, (dist, spec) in stacks.STACKS[name].packages.items()
        if module != 'mmcv'
    }
    assert extra == ours
    assert 'mmrazor' in common
    for stack in stacks.STACKS.values():
        assert not common & {dist for dist, _ in stack.packages.values()}


def test_a_commit_is_checked_by_the_ruff_of_the_lock():
    hooks = (REPO / '.pre-commit-config.yaml').read_text('utf-8')
    lock = (REPO / 'requirements.lock').read_text('utf-8')
    (pinned,) = re.findall('^ruff==.*$', lock, re.M)
    assert set(re.findall(r'ruff==[\w.]+', hooks)) == {pinned}
