"""Real parts for all tests: small data, small detectors, real checkpoints."""

import gc
import os
from functools import cache
from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS as MMDET_MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.runner import Runner
from torch._subclasses import FakeTensorMode

import lshfm_mm  # noqa: F401
from lshfm_mm.datasets import shapes
from lshfm_mm.utils.configs import read_config

# What is imported stays: datasets collect garbage, over 10 times as fast so.
gc.freeze()
# Models this small only lose time to more threads.
torch.set_num_threads(1)
# The garbage collector takes a dataloader's queues apart before it tells the
# workers to end: torch then waits this long (5 s) for each of them.
assert torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL == 5
torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL = 0.2

REPO = Path(__file__).parent.parent
SMALL = {
    'model.backbone.base_channels': 4,
    'model.neck.in_channels': [4, 8, 16, 32],
}
TEACHER = {
    'model.backbone.base_channels': 8,
    'model.neck.in_channels': [8, 16, 32, 64],
}
# Short names of the tests -> configs of shapes.
RCNN = 'faster-rcnn_r34_faster-rcnn_r18_shapes'
RETINA = 'retinanet_r34_retinanet_r18_shapes'
RESNET = 'pooled_resnet18-w16_resnet18-w4'
SHAPES = {
    'faster_rcnn_teacher': 'faster-rcnn_r34_shapes',
    'faster_rcnn_student': 'faster-rcnn_r18_shapes',
    'faster_rcnn_lshfm': f'lshl2_roi_{RCNN}',
    'faster_rcnn_lsh': f'lshl2_roi_{RCNN}',
    'faster_rcnn_recommended': f'recommended_roi-fpn_{RCNN}',
    'retinanet_teacher': 'retinanet_r34_shapes',
    'retinanet_student': 'retinanet_r18_shapes',
    'retinanet_lshfm': f'lshl2_cls_{RETINA}',
    'retinanet_lsh': f'lshl2_cls_{RETINA}',
    'single_teacher': 'resnet18-w16_shapes-single',
    'single_student': 'resnet18-w4_shapes-single',
    'single_stage1': f'lshl2_{RESNET}_stage1_shapes-single',
    'single_lshfm': f'lshl2-correct_{RESNET}_stage2_shapes-single',
    'multi_teacher': 'resnet18-w16_shapes-multi',
    'multi_student': 'resnet18-w4_shapes-multi',
    'multi_stage1': f'lshl2_{RESNET}_stage1_shapes-multi',
    'multi_lshfm': f'lshl2_{RESNET}_stage2_shapes-multi',
}
# Of MMRazor: a loss of others, that weighs no samples.
L2 = dict(type='L2Loss', normalize=False, div_element=True, loss_weight=7)


def read_shapes(name: str, tap: str | None = None) -> Config:
    """A config of shapes by its short name; with ``tap``, one for all losses.

    The configs have a tap a loss. Most tests are of several losses at one.
    """
    cfg = Config.fromfile(REPO / f'configs/shapes/{SHAPES[name]}.py')
    if tap is not None:
        distiller = cfg.model.distiller
        losses = [*distiller.losses.lsh]
        if name == 'faster_rcnn_lshfm':
            losses.append(L2)
        elif not name.endswith('_lsh'):
            losses += distiller.losses.l2
        distiller.taps = {tap: distiller.taps.lsh}
        distiller.losses = {tap: losses}
    return cfg


def mmdet_config(path: str) -> Config:
    """A config of mmdet; MMEngine's hub would read 102 metafiles for it."""
    return read_config('config', f'mmdet::{path}')


# Tests marked cuda run here; 'cpu' tries the tests themselves without a GPU.
CUDA_TESTS_ON = os.environ.get('CUDA_TESTS_ON', 'cuda')


def pytest_configure(config):
    """Hide GPUs from all other tests, which mean the same on each machine."""
    if 'cuda' not in config.option.markexpr:
        os.environ['CUDA_VISIBLE_DEVICES'] = ''


def pytest_runtest_setup(item):
    if item.get_closest_marker('cuda') and CUDA_TESTS_ON == 'cuda':
        if not torch.cuda.is_available():
            pytest.skip('there is no GPU')


@pytest.fixture(autouse=True)
def _scope():
    register_all_modules(init_default_scope=True)


@pytest.fixture
def _without_onednn():
    """Its bfloat16 gradients of maps narrower than a stride are wrong."""
    with torch.backends.mkldnn.flags(enabled=False):
        yield


@pytest.fixture(scope='session', autouse=True)
def _base_configs_are_found_once():
    """For each base ``package::path`` MMEngine reads 85 metafiles."""
    with pytest.MonkeyPatch.context() as patch:
        found = staticmethod(cache(Config._get_cfg_path))
        patch.setattr(Config, '_get_cfg_path', found)
        yield


@pytest.fixture(scope='session', autouse=True)
def _written_configs_are_not_formatted():
    """MMEngine formats a config five times a run: 3 of its 4 seconds."""
    with pytest.MonkeyPatch.context() as patch:
        for module in ('mmengine.config.config', 'yapf.yapflib.yapf_api'):
            patch.setattr(
                f'{module}.FormatCode',
                lambda text, **_: (text, True),
                raising=False,  # OneDL's has it in one, OpenMMLab's in both
            )
        yield


@pytest.fixture(scope='session')
def shapes_root(tmp_path_factory) -> Path:
    """Twelve training and six validation images of 64 px."""
    root = tmp_path_factory.mktemp('data') / 'shapes'
    shapes.generate(root, num_train=12, num_val=6, size=64, seed=0)
    return root


@pytest.fixture(scope='session')
def teacher_config(tmp_path_factory) -> Path:
    """The shapes teacher, narrower, as a config file."""
    register_all_modules(init_default_scope=True)
    cfg = read_shapes('faster_rcnn_teacher')
    cfg.merge_from_dict(TEACHER)
    path = tmp_path_factory.mktemp('teacher') / 'teacher.py'
    cfg.dump(path)
    return path


@pytest.fixture(scope='session')
def teacher_checkpoint(teacher_config) -> Path:
    """Weights for :func:`teacher_config`, in MMEngine's format."""
    register_all_modules(init_default_scope=True)
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = MMDET_MODELS.build(Config.fromfile(teacher_config).model)
        model.init_weights()
        # A class layer at its initialisation has a std of 0.01 and gives
        # every class the same score; make it a teacher's.
        torch.nn.init.normal_(model.roi_head.bbox_head.fc_cls.weight, std=0.1)
    path = teacher_config.with_name('teacher.pth')
    torch.save({'state_dict': model.state_dict(), 'meta': {}}, path)
    return path


@pytest.fixture(scope='session')
def retina_teacher(tmp_path_factory) -> Path:
    """Config of a dense teacher; its weights lie beside it."""
    register_all_modules(init_default_scope=True)
    cfg = read_shapes('retinanet_teacher')
    cfg.merge_from_dict(TEACHER)
    path = tmp_path_factory.mktemp('retina') / 'teacher.py'
    cfg.dump(path)
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = MMDET_MODELS.build(cfg.model)
        model.init_weights()
        torch.nn.init.normal_(model.bbox_head.retina_cls.weight, std=0.1)
    torch.save({'state_dict': model.state_dict()}, path.with_suffix('.pth'))
    return path


@pytest.fixture(scope='session')
def make_config(
    shapes_root, teacher_config, teacher_checkpoint, tmp_path_factory
):
    """Read a shapes config, shrunk to seconds; keyword: overrides."""

    def make(name: str, overrides: dict | None = None) -> Config:
        is_paper = name.endswith(('_lshfm', '_lsh'))
        place = 'cls' if name.startswith('retinanet') else 'roi'
        cfg = read_shapes(name, place if is_paper else None)
        small = SMALL
        if 'architecture' in cfg.model:
            small = {
                key.replace('model.', 'model.architecture.'): value
                for key, value in SMALL.items()
            }
            small['model.teacher.cfg_path'] = str(teacher_config)
            small['model.teacher_ckpt'] = str(teacher_checkpoint)
        cfg.merge_from_dict(small)
        for split in ('train', 'val', 'test'):
            loader = cfg[f'{split}_dataloader']
            loader.update(
                batch_size=2, num_workers=0, persistent_workers=False
            )
            loader.dataset.data_root = str(shapes_root)
            loader.dataset.pipeline[2].scale = (64, 64)
            if split != 'train':
                cfg[f'{split}_evaluator'].ann_file = str(
                    shapes_root / 'annotations/val.json'
                )
        cfg.work_dir = str(tmp_path_factory.mktemp('work'))
        cfg.default_hooks.logger.interval = 1
        cfg.merge_from_dict(overrides or {})
        return cfg

    return make


@pytest.fixture
def batch(make_config) -> dict:
    """One raw training batch of two images."""
    cfg = make_config('faster_rcnn_student')
    return next(iter(Runner.build_dataloader(cfg.train_dataloader, seed=0)))


@pytest.fixture
def fake_mode(monkeypatch) -> FakeTensorMode:
    """The mode of tests.fake_cuda; autocast takes its GPU for a real one."""
    common = torch.cuda.amp.common
    monkeypatch.setattr(common, 'amp_definitely_not_available', lambda: False)
    monkeypatch.setattr(torch.cuda, 'is_bf16_supported', lambda: True)
    mode = FakeTensorMode()
    mode.__deepcopy__ = lambda _: mode  # copies of its tensors stay in it
    return mode
