"""Compiling mmcv: ``install_mmcv --compiled`` with a real Python and pip."""

import os
import platform
import re
import shutil
import subprocess
import sysconfig

import pytest

from lshfm_mm.compat import compile_mmcv
from lshfm_mm.compat.stacks import OPENMMLAB, STACKS

from .mmcv_machine import (
    Machine,
    make_python,
    write_wheel,
)

pytestmark = pytest.mark.skipif(
    os.name == 'nt', reason='its environments and compilers are those of Unix'
)
needs_compiler = pytest.mark.skipif(
    shutil.which('c++') is None, reason='needs a C++ compiler'
)


@pytest.fixture(scope='module')
def python(tmp_path_factory):
    return make_python(tmp_path_factory.mktemp('env'))


@pytest.fixture
def machine(python, tmp_path):
    here = Machine(python, tmp_path)
    yield here
    here.clean()


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


BAD = {'mmcv/__init__.py': '', 'mmcv/ops.py': 'raise OSError("why")'}


def test_a_bad_wheel_leaves_the_cache_and_replaces_nothing(machine):
    """And the next way is tried in the same run."""
    machine.run()
    kept = machine.site / 'mmcv' / '_ext' / 'boxes.py'
    assert kept.is_file()
    machine.cache.mkdir(parents=True)
    wheel = write_wheel(machine.cache, 'mmcv', '2.1.0', BAD)
    done = machine.run('--compiled', CXX='no-such-compiler')
    assert done.stdout == (
        f'mmcv: removing {wheel}: its operators do not load under torch '
        f'2.14.1+cpu (OSError: why)\n'
    )
    assert done.stderr.startswith('error: compiler: no C++ compiler found')
    assert done.returncode == 1
    assert not wheel.exists()
    assert machine.run().stdout.endswith('operators is in place\n')
    assert kept.is_file()


def test_a_wheel_stays_where_mmcv_itself_cannot_be_imported(machine):
    machine.cache.mkdir(parents=True)
    files = {'mmcv/__init__.py': 'raise OSError("why")'}
    wheel = write_wheel(machine.cache, 'mmcv', '2.1.0', files)
    done = machine.run('--compiled')
    assert done.returncode == 1
    assert done.stderr == (
        f'error: mmcv: {wheel} cannot be imported (OSError: why); what was '
        f'installed stays\n'
    )
    assert wheel.exists()
    assert not (machine.site / 'mmcv').exists()


@needs_compiler
def test_a_built_wheel_that_does_not_work(machine):
    machine.release(init='_ext = 1')
    done = machine.run('--compiled')
    assert done.returncode == 1
    assert ' its operators do not load under torch 2.14.1+cpu (' in done.stdout
    assert done.stderr.splitlines()[-1] == (
        'error: mmcv: the wheel that was built does not work; what was '
        'installed stays'
    )
    assert not list(machine.cache.glob('*.whl'))


@needs_compiler
def test_a_published_wheel_that_does_not_load_is_built_instead(machine):
    """In the same run: the next one would download it again."""
    page = machine.folder / 'cpu-torch2140'
    page.mkdir()
    write_wheel(page, 'onedl-mmcv', '2.3.6', BAD)
    machine.release('onedl-mmcv', '2.3.6')
    done = machine.run('--compiled', '--stack', 'onedl')
    assert done.returncode == 0, done.stdout + done.stderr
    assert 'onedl_mmcv-2.3.6-py3-none-any.whl: its operators' in done.stdout
    assert re.search(PROGRESS % 2, done.stdout)
    assert done.stdout.endswith('onedl_mmcv-2.3.6-py3-none-any.whl\n')
    assert machine.run('--compiled').stdout == (
        'mmcv: 2.3.6 with compiled operators is in place\n'
    )


def test_windows_is_refused(monkeypatch):
    """Before anything is installed, too: the doctor asks for the compiler."""
    monkeypatch.setattr(os, 'name', 'nt')
    with pytest.raises(SystemExit, match='on Linux and macOS only; take'):
        compile_mmcv.find_compiler()


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
