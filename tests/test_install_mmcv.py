"""The installer of mmcv, run by a real Python with the real pip.

With the real torch and the real release of mmcv: the slow test.
"""

import base64
import csv
import hashlib
import io
import os
import re
import subprocess
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from lshfm_mm.compat import install_mmcv, repack_mmcv, stacks
from lshfm_mm.compat.stacks import Release

from .mmcv_machine import (
    LITE,
    ROOT,
    Machine,
    make_python,
    metadata,
    write_operators,
    write_wheel,
)

pytestmark = pytest.mark.skipif(
    os.name == 'nt', reason='its environments and compilers are those of Unix'
)


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
    wheel = repack_mmcv.repack(archive, operators, 'an-mmcv', out)
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
    assert repack_mmcv.repack(archive, operators, 'an-mmcv', out) == wheel
    assert wheel.read_bytes() == again


def test_interrupted_repacking_leaves_no_wheel(tmp_path, monkeypatch):
    wheel = write_wheel(tmp_path, 'mmcv-lite', '2.1.0', LITE)
    out = tmp_path / 'out'
    out.mkdir()

    def interrupt(self, entry, *args):
        raise KeyboardInterrupt

    monkeypatch.setattr(zipfile.ZipFile, 'writestr', interrupt)
    with pytest.raises(KeyboardInterrupt):
        repack_mmcv.repack(wheel, write_operators(tmp_path / 'o'), 'm', out)
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
    return make_python(tmp_path_factory.mktemp('env'))


@pytest.fixture
def machine(python, tmp_path):
    here = Machine(python, tmp_path)
    yield here
    here.clean()


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


def in_place(python, wheel):
    """Install a wheel as it is, whether it works or not."""
    command = [str(python), '-m', 'pip', 'install', '--no-deps', str(wheel)]
    subprocess.run(command, check=True, capture_output=True)


def test_compiled_operators_that_do_not_load_are_replaced(machine):
    in_place(machine.python, machine.cached('raise ImportError("symbol")'))
    done = machine.run()
    assert done.stdout.endswith(f'{OURS}\n'), done.stderr
    assert (machine.site / 'mmcv' / '_ext').is_dir()


def test_compiled_without_cuda_where_torch_sees_a_gpu(machine):
    """Kept on a machine without, whichever version that is allowed."""
    in_place(machine.python, machine.cached(version='2.0.1'))
    done = machine.run()
    assert done.stdout == (
        'mmcv: 2.0.1 with compiled operators is in place\n'
    ), done.stderr
    machine.write_torch(gpu=True)
    done = machine.run()
    assert done.stdout.endswith(f'{OURS}\n'), done.stderr
    done = machine.run()
    assert done.stdout.endswith("torchvision's operators is in place\n")


def test_operators_that_cannot_be_imported(machine):
    write_operators(machine.folder / 'operators', 'import an_absent_one\n')
    done = machine.run()
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        'error: mmcv: its operators cannot be imported (ModuleNotFoundError: '
        "No module named 'an_absent_one'); what was installed stays"
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
