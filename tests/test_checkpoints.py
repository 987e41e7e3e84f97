"""No file of weights runs code, whatever way it comes in."""

import functools
import hashlib
import http.server
import os
import pickle
import re
import runpy
import shutil
import subprocess
import sys
import threading
import zipfile
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.fileio import LocalBackend
from mmengine.runner import Runner
from mmengine.runner import checkpoint as mm_checkpoint
from mmengine.runner.checkpoint import load_checkpoint
from mmrazor.registry import MODELS

from lshfm_mm.compat.mmengine import patch_loaders
from lshfm_mm.errors import ConfigError
from lshfm_mm.export.student import check_weights, export_student
from lshfm_mm.training.averaging import average_checkpoints
from lshfm_mm.utils.checkpoints import code_in, download, load, read_checkpoint

REPO = Path(__file__).parent.parent
INIT = 'model.architecture.backbone.init_cfg'
FORMATS = ('zip', 'legacy', 'pickle')
MKDIR = f'{os.mkdir.__module__}.mkdir'  # posix or nt
HOLDS = (
    f'{{}} holds {MKDIR}, which would run when loaded, and has not; if you '
    f'trust it, let the tool that made it save its state_dict alone, as plain '
    f'tensors'
)

UNREADABLE = (
    '{} is not a readable checkpoint (not without running code in it); give a '
    '.pth file saved by MMEngine or torch.save'
)


@pytest.fixture(autouse=True)
def _patched():
    """MMEngine as our tools have it."""
    patch_loaders()


def refusal(path):
    """Of a file with code in it; of zip files torch tells the names."""
    return (HOLDS if zipfile.is_zipfile(path) else UNREADABLE).format(path)


class Bomb:
    """Makes a folder when it is loaded: harmless, but it could be worse."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.fixture(params=['', '1'], ids=['default', 'forced'])
def forced(request, monkeypatch):
    """With and without the variable that makes torch.load run code."""
    if request.param:
        monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')


@pytest.fixture
def marker(tmp_path):
    """The folder that code would make; it must not be there at the end."""
    path = tmp_path / 'marker'
    yield path
    assert not path.exists()


@pytest.fixture(params=FORMATS)
def bomb(request, tmp_path, marker):
    """A checkpoint of each format that torch reads, with code in it."""
    content = {
        'meta': {'epoch': 1, 'iter': 1, 'note': Bomb(marker)},
        'state_dict': {'x': torch.ones(3)},
        'message_hub': {},
    }
    if request.param == 'pickle':
        del content['state_dict']  # pickle alone writes tensors with code
    return write(tmp_path / 'bomb.pth', content, request.param)


def write(path, content, kind):
    if kind == 'pickle':
        path.write_bytes(pickle.dumps(content))
    else:
        new = kind == 'zip'
        torch.save(content, path, _use_new_zipfile_serialization=new)
    return str(path)


def test_the_bomb_is_live(bomb, marker):
    """Otherwise the tests below prove nothing."""
    with suppress(RuntimeError):  # a pickle alone is no checkpoint
        torch.load(bomb, weights_only=False)
    assert marker.is_dir()
    marker.rmdir()


@pytest.mark.parametrize(
    'read',
    [
        lambda path, out: read_checkpoint('checkpoint', path),
        lambda path, out: export_student(path, out),
        lambda path, out: load_checkpoint(torch.nn.Linear(1, 1), path),
    ],
    ids=['read', 'export', 'mmengine'],
)
def test_code_is_named_and_not_run(read, bomb, tmp_path, forced):
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ConfigError) as error:
        read(bomb, str(tmp_path / 'out.pth'))
    assert str(error.value) == f'checkpoint: {refusal(bomb)}'
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    'scheme', ['', 'pavi://', 's3://', 'a:petrel://', 'openmmlab://']
)
def test_code_is_not_run_wherever_a_file_is_kept(
    scheme, bomb, tmp_path, forced, monkeypatch
):
    """The services behind these addresses stand on this disk here."""
    safe = torch.serialization.get_safe_globals()
    name = f'{scheme}{bomb}'
    backend = LocalBackend()
    backend.get = lambda path: Path(path.split('://')[1]).read_bytes()
    monkeypatch.setattr(
        mm_checkpoint, 'get_file_backend', lambda *_, **__: backend
    )
    model = SimpleNamespace(
        name='bomb.pth', download=lambda path: shutil.copy(bomb, path)
    )
    cloud = SimpleNamespace(get=lambda _: model)
    monkeypatch.setitem(sys.modules, 'pavi', SimpleNamespace(modelcloud=cloud))
    monkeypatch.setattr(
        mm_checkpoint, 'get_external_models', lambda: {bomb: bomb}
    )
    with pytest.raises((ConfigError, pickle.UnpicklingError)):
        load_checkpoint(torch.nn.Linear(1, 1), name)
    # And what holds none is read.
    torch.save({'weight': torch.ones(1, 1), 'bias': torch.ones(1)}, bomb)
    linear = torch.nn.Linear(1, 1)
    load_checkpoint(linear, name)
    assert linear.weight.item() == linear.bias.item() == 1
    assert torch.serialization.get_safe_globals() == safe


def test_a_mean_is_of_plain_tensors(bomb, tmp_path):
    out = tmp_path / 'out.pth'
    with pytest.raises(ConfigError) as error:
        average_checkpoints([bomb, bomb], str(out))
    assert str(error.value) == f'checkpoints: {refusal(bomb)}'
    assert not out.exists()


@pytest.mark.parametrize(
    ('field', 'overrides'),
    [
        ('teacher_ckpt', {'model.teacher_ckpt': '{}'}),
        ('checkpoint', {'load_from': '{}'}),
        ('checkpoint', {f'{INIT}.checkpoint': '{}'}),
    ],
    ids=['teacher', 'load_from', 'init_cfg'],
)
def test_a_runner_refuses_code(
    field, overrides, make_config, tmp_path, marker
):
    """Of a config that asks for the patches, where no tool has looked."""
    path = write(tmp_path / 'bomb.pth', {'x': Bomb(marker)}, 'zip')
    cfg = make_config('faster_rcnn_recommended')
    if f'{INIT}.checkpoint' in overrides:
        cfg.model.architecture.backbone.init_cfg = dict(type='Pretrained')
    cfg.merge_from_dict({k: v.format(path) for k, v in overrides.items()})
    cfg.experiment_name = tmp_path.name
    with pytest.raises(ConfigError) as error:
        Runner.from_cfg(cfg).train()
    assert str(error.value) == f'{field}: {HOLDS.format(path)}'


@pytest.mark.parametrize(
    ('tool', 'arguments', 'field'),
    [
        ('train', ['--cfg-options', 'model.teacher_ckpt={}'], 'teacher_ckpt'),
        ('train', ['--cfg-options', 'load_from={}'], 'load_from'),
        (
            'train',
            ['--cfg-options', f'{INIT}.type=Pretrained']
            + [f'{INIT}.checkpoint={{}}'],
            f'{INIT}.checkpoint',
        ),
        ('train', ['--resume', '{}'], None),
        ('test', ['{}'], 'checkpoint'),
        ('export_student', ['{}', '-o', '{}.out'], 'checkpoint'),
    ],
    ids=['teacher', 'load_from', 'init_cfg', 'resume', 'test', 'export'],
)
def test_a_tool_refuses_code_in_one_line(
    tool, arguments, field, make_config, tmp_path, marker, monkeypatch
):
    monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')
    path = write(tmp_path / 'bomb.pth', {'x': Bomb(marker)}, 'zip')
    cfg = make_config('faster_rcnn_recommended')
    cfg.model.architecture.backbone.init_cfg = dict(type='Kaiming')
    cfg.dump(tmp_path / 'mine.py')
    start = [] if tool == 'export_student' else [str(tmp_path / 'mine.py')]
    if tool == 'train':
        start += ['--work-dir', str(tmp_path / 'work')]
    arguments = [*start, *(x.format(path) for x in arguments)]
    monkeypatch.setattr(sys, 'argv', [tool, *arguments])
    monkeypatch.setenv('LOCAL_RANK', '0')
    with pytest.raises(SystemExit) as error:
        runpy.run_path(str(REPO / f'tools/{tool}.py'), run_name='__main__')
    line = str(error.value)
    assert line.startswith('error: ') and '\n' not in line
    assert line.endswith(HOLDS.format(path))
    if field is not None:
        assert line == f'error: {field}: {HOLDS.format(path)}'
    assert not list(tmp_path.glob('**/*.out'))
    assert not list(tmp_path.glob('work/**/epoch*'))


def test_all_names_are_told_once_and_in_order(tmp_path, marker):
    content = [Bomb(marker), Bomb(marker), Config()]
    path = write(tmp_path / 'x.pth', content, 'zip')
    names = code_in(Path(path))
    assert MKDIR in names and 'mmengine.config.config.Config' in names
    assert names == sorted({*names})
    assert code_in(Path(write(path, content, 'legacy'))) == []


@pytest.mark.parametrize('content', [b'', b'junk', b'PK\x03\x04', b'\x80\x02'])
def test_what_is_no_checkpoint_is_said_to_be_none(content, tmp_path):
    path = tmp_path / 'x.pth'
    path.write_bytes(content)
    with pytest.raises(ConfigError, match='is not a readable checkpoint') as e:
        load('teacher_ckpt', str(path))
    assert '\n' not in str(e.value)


def test_home_is_understood(tmp_path, monkeypatch):
    for name in ('HOME', 'USERPROFILE'):  # of Unix, of Windows
        monkeypatch.setenv(name, str(tmp_path))
    torch.save({'x': torch.ones(1)}, tmp_path / 'x.pth')
    assert load('teacher_ckpt', '~/x.pth')['x'] == 1


# URLs


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A folder of files, the URL at which they are served, what was asked."""
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'cache'))
    folder = tmp_path / 'served'
    folder.mkdir()
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            super().do_GET()

        def log_message(self, *args):
            pass

    handler = functools.partial(Handler, directory=folder)
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as host:
        threading.Thread(target=host.serve_forever, daemon=True).start()
        yield folder, f'http://127.0.0.1:{host.server_port}', asked
        host.shutdown()


def cached(tmp_path):
    """Files in the cache; a lock stays, and is empty."""
    files = (tmp_path / 'cache').rglob('*')
    return [x.name for x in files if x.is_file() and x.stat().st_size]


def test_a_url_is_read_once_and_as_safely_as_a_file(
    server, tmp_path, marker, forced
):
    folder, url, asked = server
    torch.save({'state_dict': {'x': torch.ones(2)}}, folder / 'good.pth')
    for _ in range(2):
        content = read_checkpoint('teacher_ckpt', f'{url}/good.pth')
        assert torch.equal(content['state_dict']['x'], torch.ones(2))
    assert asked == ['/good.pth']
    torch.save({'x': Bomb(marker)}, folder / 'bad.pth')
    for read in (
        lambda x: read_checkpoint('checkpoint', x),
        lambda x: load_checkpoint(torch.nn.Linear(1, 1), x),
    ):
        with pytest.raises(ConfigError) as error:
            read(f'{url}/bad.pth')
        assert str(error.value) == f'checkpoint: {HOLDS.format(url)}'.replace(
            f'{url} ', f'{url}/bad.pth '
        )
    with pytest.raises(ConfigError, match='could not be downloaded'):
        read_checkpoint('teacher_ckpt', f'{url}/absent.pth')
    assert sorted(cached(tmp_path)) == ['bad.pth', 'good.pth']


@pytest.mark.parametrize('scheme', ['', 'torchvision://'])
def test_the_hash_in_a_name_is_checked(scheme, server, tmp_path, monkeypatch):
    """By MMEngine's loaders, too, for what a student starts from."""
    folder, url, _ = server
    state = {'weight': torch.ones(1, 1), 'bias': torch.zeros(1)}
    torch.save(state, folder / 'x.pth')
    digest = hashlib.sha256((folder / 'x.pth').read_bytes()).hexdigest()
    names = {}
    for kind, start in (('right', digest[:8]), ('wrong', '0badc0de')):
        names[kind] = f'{url}/model-{start}.pth'
        (folder / f'model-{start}.pth').write_bytes(
            (folder / 'x.pth').read_bytes()
        )
    monkeypatch.setattr(
        'mmengine.runner.checkpoint.get_torchvision_models', lambda: names
    )
    given = {k: f'{scheme}{k}' if scheme else v for k, v in names.items()}
    model = torch.nn.Linear(1, 1)
    load_checkpoint(model, given['right'])
    assert model.weight.item() == 1
    with pytest.raises(ConfigError) as error:
        load_checkpoint(model, given['wrong'])
    assert str(error.value) == (
        f'checkpoint: {names["wrong"]} is not the file that its name tells '
        f'(invalid hash value (expected "0badc0de", got "{digest}")); try '
        f'again, or fetch it elsewhere and give its path'
    )
    assert cached(tmp_path) == [f'model-{digest[:8]}.pth']


FETCH = """
import sys
from lshfm_mm.utils.checkpoints import download
print('ready', flush=True)
sys.stdin.readline()
print(download('teacher_ckpt', sys.argv[1]).stat().st_size)
"""


def test_two_processes_download_a_file_once(server):
    """Both at the same time: this one, and one that says when it is ready."""
    folder, url, asked = server
    torch.save({'x': torch.ones(500_000)}, folder / 'big.pth')
    child = python(FETCH, f'{url}/big.pth')
    assert 'ready\n' in child.stdout  # OneDL's packages print, too
    child.stdin.write('\n')
    child.stdin.flush()
    size = download('teacher_ckpt', f'{url}/big.pth').stat().st_size
    assert int(child.communicate()[0]) == size >= 2_000_000
    assert asked == ['/big.pth']


def python(code, *arguments):
    """Start a process on code."""
    return subprocess.Popen(
        [sys.executable, '-W', 'ignore', '-c', code, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=REPO,
        text=True,
    )


# Exports


@pytest.fixture
def training(tmp_path):
    """A checkpoint with a student of 4 MB."""
    path = tmp_path / 'training.pth'
    state = {'architecture.x': torch.ones(1_000_000)}
    torch.save({'state_dict': state, 'meta': {'epoch': 1}}, path)
    return str(path)


def old_and_new(tmp_path):
    """A file that is to be overwritten, and one that is not there."""
    (tmp_path / 'old.pth').write_text('precious')
    return [str(tmp_path / 'old.pth'), str(tmp_path / 'new.pth')]


def assert_untouched(tmp_path):
    assert (tmp_path / 'old.pth').read_text() == 'precious'
    assert not (tmp_path / 'new.pth').exists()


def test_a_full_disk_leaves_no_half_of_an_export(training, tmp_path):
    """A limit on the size of files fails as a full disk does."""
    reason = 'Windows has no limit on the size of files'
    resource = pytest.importorskip('resource', reason=reason)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for out in old_and_new(tmp_path):
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
        try:
            with pytest.raises(ConfigError) as error:
                export_student(training, out, force=True)
            with pytest.raises(ConfigError):
                average_checkpoints([training], out)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        said = f'out: nothing can be written to {tmp_path} ('
        assert str(error.value).startswith(said)
        assert '\n' not in str(error.value)
    assert_untouched(tmp_path)
    assert not list(tmp_path.glob('_partial_*'))


DIES = """
import os, sys
from pathlib import Path
import torch
from lshfm_mm.export.student import export_student

def half(content, path):
    Path(path).write_bytes(b'half')
    os._exit(9)  # nothing more runs, as after a kill

torch.save = half
export_student(*sys.argv[1:], force=True)
"""


def test_a_kill_leaves_no_half_of_an_export(training, tmp_path):
    out, _ = old_and_new(tmp_path)
    child = python(DIES, training, out)
    child.communicate()
    assert child.returncode == 9
    assert_untouched(tmp_path)
    (half,) = [x for x in tmp_path.iterdir() if x.read_bytes() == b'half']
    assert half.name.startswith('_partial_')


@pytest.mark.parametrize('existing', ['out.pth', 'out.py'])
def test_nothing_is_overwritten_unless_forced(existing, tmp_path, make_config):
    """Neither the checkpoint nor the config beside it."""
    cfg = make_config('faster_rcnn_recommended')
    cfg.dump(tmp_path / 'mine.py')
    student = MODELS.build(cfg.model.architecture).state_dict()
    training = str(tmp_path / 'training.pth')
    torch.save(
        dict(state_dict={f'architecture.{k}': v for k, v in student.items()}),
        training,
    )
    out = tmp_path / 'out.pth'
    (tmp_path / existing).write_text('precious')
    arguments = training, str(out)
    with pytest.raises(ConfigError, match=f'{existing} exists; give another'):
        export_student(*arguments, config=str(tmp_path / 'mine.py'))
    assert (tmp_path / existing).read_text() == 'precious'
    assert len(list(tmp_path.glob('out.*'))) == 1
    config = str(tmp_path / 'mine.py')
    export_student(*arguments, force=True, config=config)
    exported = torch.load(out)['state_dict']
    key = 'roi_head.bbox_head.fc_cls.weight'
    assert torch.equal(exported[key], student[key])
    assert 'model' in Config.fromfile(tmp_path / 'out.py')


def test_what_is_evaluated_is_looked_at_first(bomb, make_config, forced):
    with pytest.raises(ConfigError, match=re.escape(refusal(bomb))):
        check_weights(make_config('faster_rcnn_student'), bomb)


def test_an_exported_weight_is_written_once_and_no_view_whole(tmp_path):
    """Heads of all levels share filters; a view is not its whole storage."""
    filters, whole = torch.randn(64, 64, 3, 3), torch.randn(100_000)
    state = {
        'architecture.a.weight': filters,
        'architecture.b.weight': filters,
        'architecture.turned': filters.transpose(0, 1),
        'architecture.view': whole[:2],
        'architecture.empty': torch.zeros(0),
    }
    source, out = tmp_path / 'training.pth', tmp_path / 'student.pth'
    torch.save({'meta': {}, 'state_dict': state}, source)
    export_student(str(source), str(out))
    found = torch.load(out, weights_only=True)['state_dict']
    assert found.keys() == {x.removeprefix('architecture.') for x in state}
    for name, value in state.items():
        assert torch.equal(found[name.removeprefix('architecture.')], value)
    assert found['a.weight'].data_ptr() == found['b.weight'].data_ptr()
    assert out.stat().st_size < 2.1 * filters.nbytes
