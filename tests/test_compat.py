"""What ``import lshfm_mm`` and our tools change of the stack, and no more."""

import importlib
import pickle
import subprocess
import sys
from pathlib import Path

import mmcv
import numpy as np
import pytest
import torch
from mmengine.device import get_device
from mmengine.logging import HistoryBuffer
from mmengine.runner import checkpoint

from lshfm_mm.compat import mmengine, mmrazor
from lshfm_mm.errors import ConfigError
from lshfm_mm.utils.checkpoints import read_checkpoint
from lshfm_mm.utils.safe_classes import declare_safe_classes


class Marker:
    """Leaves a file behind if a checkpoint may run code."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), 'w')


# Of all that MMEngine and torch let one replace; ids, since it is compared.
STATE = """
import os, sys
import torch
from mmengine.config import Config
from mmengine.device import utils as device
from mmengine.registry import HOOKS
from mmengine.runner import checkpoint
from torch.nn import Linear

def state():
    return {
        **{name: id(value) for name, value in vars(checkpoint).items()},
        **{str(x): id(y) for x, y in
           checkpoint.CheckpointLoader._schemes.items()},
        'hook': id(HOOKS.get('CheckpointHook')),
        'device': device.DEVICE,
        'load': id(torch.load),
        'reading': id(Config._file2dict),
        'settings': [
            torch.get_default_dtype(), torch.get_default_device(),
            torch.get_num_threads(), torch.is_grad_enabled(),
            torch.are_deterministic_algorithms_enabled(),
            torch.get_float32_matmul_precision(),
            torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark,
            torch.random.get_rng_state().sum().item(),
        ],
    }

device.DEVICE = 'mps'  # as on a Mac
before = state()
import lshfm_mm, mmrazor.models
assert state() == before, {k for k in before if state()[k] != before[k]}
"""
# A file that the user has chosen to trust, loaded as MMEngine does.
LOADED = """
os.environ['TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD'] = '1'
def load():
    checkpoint.load_checkpoint(Linear(1, 1), sys.argv[1])
"""
BY_CONFIG = """
from mmengine.config import Config
Config.fromfile(sys.argv[2])
load()
"""


class Reach:
    """Asks for an attribute that no checkpoint needs."""

    def __reduce__(self):
        return getattr, (HistoryBuffer, '__init__')


def test_every_model_of_mmrazor_is_registered():
    from mmrazor.registry import MODELS

    for name in ('SingleTeacherDistill', 'FpnTeacherDistill', 'PKDLoss'):
        assert name in MODELS.module_dict
    own = [
        model
        for model in MODELS.module_dict.values()
        if model.__module__.startswith('mmrazor.')
    ]
    assert len(own) >= 113


def test_quantization_says_why_it_is_not_there():
    from mmrazor.models.quantizers import NativeQuantizer

    if not isinstance(sys.modules[mmrazor.QUANTIZATION[0]], mmrazor._Absent):
        pytest.skip('MMRazor imports as it is')
    with pytest.raises(ImportError, match='cannot quantize with torch'):
        NativeQuantizer()


def test_it_says_what_it_did_at_debug_level():
    said = subprocess.run(
        [
            *(sys.executable, '-W', 'ignore', '-c'),
            'import logging; logging.basicConfig(level=logging.DEBUG); '
            'import lshfm_mm',
        ],
        capture_output=True,
        text=True,
    )
    assert said.returncode == 0
    assert (
        'DEBUG:lshfm_mm.compat.mmrazor:MMRazor quantization cannot'
        in said.stderr
    )
    assert (
        'DEBUG:lshfm_mm.utils.safe_classes:declared safe for torch.load'
        in said.stderr
    )


@pytest.mark.parametrize(
    ('found', 'left'), [('mps', 'cpu'), ('cuda', 'cuda'), ('cpu', 'cpu')]
)
def test_a_mac_computes_on_its_cpu(found, left, monkeypatch):
    monkeypatch.setattr('mmengine.device.utils.DEVICE', found)
    mmengine.patch_device()
    assert get_device() == left


def fresh(code, *arguments):
    """Run code in a new process."""
    return subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', code, *map(str, arguments)],
        capture_output=True,
        text=True,
    )


@pytest.fixture
def trusted(tmp_path):
    """A checkpoint with code in it, and what that would leave behind."""
    path, marker = tmp_path / 'trusted.pth', tmp_path / 'marker'
    state = dict(weight=torch.ones(1, 1), bias=torch.ones(1))
    torch.save(dict(state_dict=state, note=Marker(marker)), path)
    return path, marker


def test_importing_changes_nothing_for_others(trusted):
    path, marker = trusted
    done = fresh(f'{STATE}{LOADED}load()', path)
    assert done.returncode == 0, done.stderr
    assert marker.exists()
    assert 'lshfm_mm' not in done.stdout + done.stderr


def test_our_tools_patch_mmengine_and_say_so(trusted, tmp_path):
    path, marker = trusted
    tool = 'from lshfm_mm import cli\ncli.load_stack()\ncli.run_main(load)'
    done = fresh(f'{STATE}{LOADED}{tool}', path)
    assert done.returncode == 1
    assert done.stderr.startswith(f'error: checkpoint: {path} holds ')
    assert done.stdout.count('INFO - lshfm_mm loads weights in MMEngi') == 1
    assert done.stdout.count('INFO - lshfm_mm lets MMEngine compute on') == 1
    assert not marker.exists()


def test_a_config_may_ask_for_the_patches(trusted, tmp_path):
    path, marker = trusted
    config = tmp_path / 'config.py'
    config.write_text(
        "custom_imports = dict(imports=['lshfm_mm.compat.patched_mmengine'])"
    )
    done = fresh(f'{STATE}{LOADED}{BY_CONFIG}', path, config)
    assert f'ConfigError: checkpoint: {path} holds ' in done.stderr
    assert not marker.exists()


def test_mmrazor_is_told_of_no_newer_mmcv_than_it_knows(monkeypatch):
    monkeypatch.setattr(mmcv, '__version__', '9.9')
    monkeypatch.delitem(sys.modules, 'mmrazor')
    with pytest.raises(AssertionError, match='MMCV==9.9'):
        importlib.import_module('mmrazor')
    mmrazor._import_mmrazor()
    assert 'mmrazor' in sys.modules
    assert mmcv.__version__ == '9.9'


def test_a_module_that_imports_is_left_alone(monkeypatch):
    monkeypatch.setitem(
        sys.modules, mmrazor.QUANTIZATION[0], sys.modules['mmrazor']
    )
    before = dict(sys.modules)
    assert mmrazor.patch_mmrazor() is False
    assert dict(sys.modules) == before


def test_what_mmengine_writes_loads(tmp_path):
    declare_safe_classes()  # OneDL's loader withdraws them
    path = tmp_path / 'checkpoint.pth'
    history = HistoryBuffer(np.array([1.0, 2.0]), np.array([1, 1]))
    state = dict(a=np.float32(3), b=np.int64(4), c=np.float64(5), d=history)
    torch.save({'message_hub': state}, path)
    loaded = torch.load(path)['message_hub']
    assert (loaded['a'], loaded['b'], loaded['c']) == (3, 4, 5)
    assert loaded['d'].mean() == history.mean()


def test_mmpretrain_is_imported_beside_transformers_5(tmp_path):
    """Of which its multimodal models, made for 4, want what is gone."""
    for name in ('transformers', 'transformers-5.0.0.dist-info'):
        (tmp_path / name).mkdir()
    (tmp_path / 'transformers/__init__.py').touch()
    about = 'Metadata-Version: 2.1\nName: transformers\nVersion: 5.0.0\n'
    (tmp_path / 'transformers-5.0.0.dist-info/METADATA').write_text(about)
    code = (
        'import sys\n'
        f'sys.path.insert(0, {str(tmp_path)!r})\n'
        'import lshfm_mm, mmpretrain.models, mmpretrain.datasets\n'
        'from mmrazor.models.architectures.heads import DeiTClsHead\n'
        'print(DeiTClsHead.__mro__)\n'
    )
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', code],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert 'mmpretrain' not in done.stderr
    assert 'VisionTransformerClsHead' in done.stdout


def test_an_mmpretrain_that_does_not_import_stops_no_detector(tmp_path):
    """As one of another time does, whose mmcv is too new."""
    broken = tmp_path / 'mmpretrain'
    (broken / 'models').mkdir(parents=True)
    (broken / '__init__.py').touch()
    (broken / 'models/__init__.py').write_text('raise AssertionError("MMCV")')
    code = (
        f'import sys; sys.path.insert(0, {str(tmp_path)!r})\n'
        'from lshfm_mm.compat import mmrazor\n'
        'mmrazor._import_on_mmpretrain()\n'
        'print([x for x in sys.modules if x.startswith("mmcls")])'
    )
    done = fresh(
        'import sys; sys.argv[0] = "-m"; sys.orig_argv = ["-m", "lshfm_mm", '
        f'"doctor"]; sys.argv[1:] = ["doctor"]\n{code}'
    )
    assert done.stdout == '[]\n', done.stderr
    assert 'mmpretrain cannot be imported (MMCV)' in done.stderr


def test_a_loader_that_mmengine_lacks_is_not_added():
    """OneDL's has one; all that is patched is there already."""
    text = Path(checkpoint.__file__).read_text('utf-8')
    there = 'def _safe_torch_load' in text
    assert hasattr(checkpoint, '_safe_torch_load') is there


@pytest.mark.parametrize('kind', ['code', 'attribute'])
def test_what_could_run_code_is_refused(tmp_path, kind):
    marker = tmp_path / 'marker'
    path = tmp_path / 'checkpoint.pth'
    content = Marker(marker) if kind == 'code' else Reach()
    torch.save({'state_dict': {'x': content}}, path)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path)
    name = f'{open.__module__}.open'  # io, or _io
    match = f'holds {name}, which' if kind == 'code' else 'not a readable'
    with pytest.raises(ConfigError, match=match):
        read_checkpoint('teacher_ckpt', str(path))
    assert not marker.exists()
