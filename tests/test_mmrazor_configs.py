"""MMRazor's own distillations go through our tools, from training to export.

``make mmrazor`` runs all and writes docs/mmrazor_configs.md.
"""

import json
import math
import multiprocessing
import os
import pickle
import re
from pathlib import Path
from typing import Any

import cv2
import mmrazor
import numpy as np
import pytest
import torch
from mmdet.datasets import CocoDataset
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmrazor.registry import MODELS

from lshfm_mm.cli import upstream
from lshfm_mm.compat.mmrazor_configs import (
    patch_config_reading,
    todays,
    todays_path,
)
from lshfm_mm.datasets import shapes
from lshfm_mm.errors import ConfigError
from lshfm_mm.export.student import student_config
from lshfm_mm.utils.checkpoints import load

from . import mmrazor_run

REPO = Path(__file__).parent.parent
PAGE = REPO / 'docs/mmrazor_configs.md'
WRITE = 'WRITE_MMRAZOR' in os.environ  # make mmrazor
CONFIGS = Path(mmrazor.__file__).parent / '.mim/configs/distill'
TOP = """# MMRazor's own distillations

Train with a config of MMRazor as it is, or with your copy of it:

```bash
python tools/train.py \\
    mmrazor::distill/mmdet/pkd/pkd_fpn_retina_x101_retina_r50_2x_coco.py
```

MMRazor 1.0.0 itself does not import on today's torch, and its configs name
packages and files of its time. Our tools read mmcls as mmpretrain, and find
the files of mmdet and mmcls that have other names now; the config that a run
leaves behind has today's names. All else is MMRazor's: the teacher's weights
load non-strictly and lie in the checkpoints. `tools/test.py` and
`tools/export_student.py` take the student alone.

`make mmrazor` trains each for two steps on made data in the format of the
config, with random weights for those that it downloads; it resumes, tests and
exports, and the student loads strictly in its own config. Images, batches and
schedules are smaller, the models are not. These go all the way:

| config, in `mmrazor::distill/` | algorithm | losses | what it needs |
|---|---|---|---|"""
END = """
The file `mmcls/crd/datasets/crd_cifar10_bs16.py` holds data only. The two for
mmdet3d and mmseg need those packages, and say so.
"""
NAMES = sorted(
    path.relative_to(CONFIGS).as_posix()
    for package in ('mmdet', 'mmcls')
    for path in CONFIGS.glob(f'{package}/*/*.py')
)


@pytest.fixture(scope='session')
def data_root(tmp_path_factory) -> Path:
    """COCO, ImageNet, CIFAR-10 and CIFAR-100, in their own formats, tiny."""
    root = tmp_path_factory.mktemp('mmrazor') / 'data'
    _write_coco(root / 'coco')
    _write_imagenet(root / 'imagenet')
    images = np.random.default_rng(0).integers(0, 256, (10, 3072), 'uint8')
    for name, folder, files in (
        ('cifar10', 'batches-py', [f'data_batch_{n}' for n in range(1, 6)]),
        ('cifar100', 'python', ['train']),
    ):
        at = root / name / f'{name.replace("r1", "r-1")}-{folder}'
        at.mkdir(parents=True)
        key = 'labels' if name == 'cifar10' else 'fine_labels'
        # One image a class: MMRazor's CRDDataset needs as many of each.
        each = np.split(np.arange(10), len(files))
        for part, labels in zip(files, each, strict=True):
            content = {'data': images[labels], key: labels.tolist()}
            (at / part).write_bytes(pickle.dumps(content))
        test = {'data': images[:5], key: [*range(5)]}
        kind = 'test_batch' if name == 'cifar10' else 'test'
        (at / kind).write_bytes(pickle.dumps(test))
    return root


def _write_coco(root: Path) -> None:
    """Shapes, called as classes of COCO."""
    shapes.generate(root, num_train=4, num_val=2, size=96, seed=0)
    for split in ('train', 'val'):
        file = root / f'annotations/{split}.json'
        content = json.loads(file.read_text('utf-8'))
        content['categories'] = [
            dict(id=number, name=name)
            for number, name in enumerate(CocoDataset.METAINFO['classes'], 1)
        ]
        named = root / f'annotations/instances_{split}2017.json'
        named.write_text(json.dumps(content), 'utf-8')
        (root / split).rename(root / f'{split}2017')


def _write_imagenet(root: Path) -> None:
    """One photograph for each of the 1000 classes, linked."""
    root.mkdir(parents=True)
    image = np.random.default_rng(0).integers(0, 256, (80, 96, 3), 'uint8')
    cv2.imwrite(str(root / 'image.JPEG'), image)
    for split in ('train', 'val'):
        for number in range(1000):
            folder = root / split / f'n{number:08d}'
            folder.mkdir(parents=True)
            os.link(root / 'image.JPEG', folder / 'image.JPEG')


# The quickest of them, of an algorithm and a backbone that only MMRazor has.
QUICK = 'mmcls/ofd/ofd_backbone_resnet50_resnet18_8xb16_cifar10.py'
# Students that are built of MMRazor's own classes.
OF_MMRAZOR = {'deit', 'ofd'}
# What an install of ours does not bring.
PACKAGES = {'deit': 'timm'}


def _shown() -> dict[str, str]:
    """The rows of the page, by the name of the config."""
    text = PAGE.read_text('utf-8') if PAGE.exists() else ''
    return {x.split('`')[1]: x for x in text.splitlines() if '| `' in x}


@pytest.mark.slow
@pytest.mark.parametrize('name', [x for x in NAMES if x != QUICK])
def test_a_config_goes_all_the_way(name, data_root, tmp_path):
    for package in filter(None, [PACKAGES.get(name.split('/')[1])]):
        pytest.importorskip(package)
    run(name, data_root, tmp_path)


def test_the_quickest_goes_all_the_way(data_root, tmp_path):
    run(QUICK, data_root, tmp_path)


def run(name: str, data: Path, work: Path) -> None:
    """Train, resume, test and export; look at what is left."""
    (work / 'data').symlink_to(data)
    child = multiprocessing.get_context('forkserver').Process(
        target=mmrazor_run.main,
        args=(f'mmrazor::distill/{name}', work, data.parent / 'torch'),
    )
    child.start()
    child.join()
    assert child.exitcode == 0, (work / 'log').read_text('utf-8')[-900:]
    left = Config.fromfile(work / f'run/{Path(name).name}')
    _check_training(work, left)
    _check_student(work, name.split('/')[1])
    shown, row = _shown(), _row(name, left)
    if WRITE:
        shown[name] = row
        lines = [TOP, *(shown[name] for name in sorted(shown)), END]
        PAGE.write_text('\n'.join(lines), 'utf-8')
    assert shown.get(name) == row
    for file in (work / 'run').glob('*.pth'):  # of a GB
        file.unlink()


def _check_training(work: Path, cfg: Config) -> None:
    """Two steps and an evaluation, then the next one and no earlier."""
    first, second = sorted((work / 'run').glob('*/vis_data/scalars.json'))
    steps = []
    for file in (first, second):
        lines = map(json.loads, file.read_text('utf-8').splitlines())
        steps.append([x for x in lines if any('distill' in k for k in x)])
        for line in steps[-1]:
            assert all(
                math.isfinite(value)
                for value in line.values()
                if isinstance(value, float)
            )
    by_epoch = 'max_epochs' in cfg.train_cfg
    assert [x['step'] for x in steps[0]] == [1, 2]
    assert [x['step'] for x in steps[1]] == ([3, 4] if by_epoch else [3])
    # Random detectors find nothing, of which COCO has no metrics.
    is_coco = 'coco' in str(cfg.get('data_root'))
    [log] = (work / 'test').glob('*/*.log')
    wanted = 'Evaluating bbox' if is_coco else 'accuracy/top1'
    assert wanted in log.read_text('utf-8')


def _check_student(work: Path, family: str) -> None:
    """It is the one that was trained, and its own config builds it."""
    cfg = Config.fromfile(work / 'student.py')
    imports = (cfg.get('custom_imports') or {}).get('imports', [])
    assert imports == (['lshfm_mm'] if family in OF_MMRAZOR else [])
    if not imports:
        assert 'mmrazor' not in re.sub("'[^']*//[^']*'", '', cfg.pretty_text)
    exported = torch.load(work / 'student.pth', weights_only=True)
    last = (work / 'run/last_checkpoint').read_text(encoding=None)
    trained = load('checkpoint', str(work / last))['state_dict']
    init_default_scope(cfg.default_scope)
    student = MODELS.build(dict(cfg.model, _scope_=cfg.default_scope))
    student.load_state_dict(exported['state_dict'], strict=True)
    for key, value in student.state_dict().items():
        torch.testing.assert_close(
            value, trained[f'architecture.{key}'], rtol=0, atol=0
        )


def _row(name: str, cfg: Config) -> str:
    """What the page shows of a config that went all the way."""
    family = name.split('/')[1]
    distiller = cfg.model.distiller
    kinds = dict.fromkeys(x['type'] for x in distiller.distill_losses.values())
    needs = []
    if family in PACKAGES:
        needs.append(f'`pip install {PACKAGES[family]}`')
    if family in OF_MMRAZOR:
        needs.append("this package, for the student's own config")
    kind, losses = cfg.model.type, ', '.join(kinds)
    cells = (f'`{name}`', kind, losses, ' and '.join(needs))
    return f'| {" | ".join(cells)} |'


@pytest.mark.parametrize(
    ('former', 'path'),
    [
        (
            'mmdet::faster_rcnn/faster_rcnn_r50_fpn_1x_coco.py',
            'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
        ),
        (
            'mmdet::fcos/fcos_x101_64x4d_fpn_gn-head_mstrain_640-800_2x_coco'
            '.py',
            'mmdet::fcos/fcos_x101-64x4d_fpn_gn-head_ms-640-800-2x_coco.py',
        ),
        (
            'mmdet::pisa/pisa_faster_rcnn_r50_fpn_1x_coco.py',
            'mmdet::pisa/faster-rcnn_r50_fpn_pisa_1x_coco.py',
        ),
        (
            'mmdet::foveabox/fovea_r50_fpn_4x4_1x_coco.py',
            'mmdet::foveabox/fovea_r50_fpn_4xb4-1x_coco.py',
        ),
        (
            'mmcls::deit/deit-base_pt-16xb64_in1k.py',
            'mmpretrain::deit/deit-base_16xb64_in1k.py',
        ),
        (
            'mmcls::_base_/default_runtime.py',
            'mmpretrain::_base_/default_runtime.py',
        ),
        ('mmdet::sort/no_such.py', 'mmdet::sort/no_such.py'),
        ('no_such_package::a.py', 'no_such_package::a.py'),
        ('../mine::of.py', '../mine::of.py'),
        ('faster_rcnn_r50_fpn_1x_coco.py', 'faster_rcnn_r50_fpn_1x_coco.py'),
    ],
)
def test_a_former_name_of_a_config_is_found(former, path):
    assert todays_path(former) == path


def test_a_value_gets_todays_names():
    """Only where it is a name: data in folders of that name stays."""
    former = dict(
        default_scope='mmcls',
        custom_imports=dict(imports=['mmcls.models', 'mine']),
        model=dict(
            backbone=dict(type='mmcls.ResNet', depth=18),
            teacher=dict(_scope_='mmcls', type='ImageClassifier'),
        ),
        pipeline=(dict(type='mmcls.PackClsInputs'), dict(type='Resize')),
        visualizer=dict(type='my.ClsVisualizer'),
        data_root='mmcls/data',
        name='mmcls',
        val=dict(type='CIFAR10', test_mode=True),
        train=dict(type='CIFAR10', test_mode=False),
    )
    assert todays(former) == dict(
        default_scope='mmpretrain',
        custom_imports=dict(imports=['mmpretrain.models', 'mine']),
        model=dict(
            backbone=dict(
                type='mmpretrain.ResNet', depth=18, _scope_='mmpretrain'
            ),
            teacher=dict(_scope_='mmpretrain', type='ImageClassifier'),
        ),
        pipeline=(
            dict(type='mmpretrain.PackInputs', _scope_='mmpretrain'),
            dict(type='Resize'),
        ),
        visualizer=dict(type='my.ClsVisualizer'),
        data_root='mmcls/data',
        name='mmcls',
        # Without a split mmpretrain evaluates on the training set.
        val=dict(type='CIFAR10', test_mode=True, split='test'),
        train=dict(type='CIFAR10', test_mode=False),
    )


def test_the_bases_of_a_copy_are_read_too(tmp_path, monkeypatch):
    for name in ('_file2dict', '_get_cfg_path'):  # put back afterwards
        monkeypatch.setattr(Config, name, Config.__dict__[name])
    path = tmp_path / 'mine.py'
    path.write_text(
        "_base_ = ['mmcls::_base_/datasets/cifar10_bs16.py']\n"
        "visualizer = dict(_scope_='mmcls', type='ClsVisualizer')\n"
        'base_of_train = _base_.train_dataloader\n'
    )
    patch_config_reading()
    patched = Config._file2dict
    patch_config_reading()
    assert Config._file2dict is patched  # and not patched twice
    cfg = Config.fromfile(path)
    assert cfg.visualizer == dict(
        _scope_='mmpretrain', type='UniversalVisualizer'
    )
    assert cfg.train_dataloader.dataset.pipeline[-1].type == 'PackInputs'


@pytest.mark.parametrize('package', ['mmdet3d', 'mmseg'])
def test_a_config_of_an_absent_package_says_so(package):
    [path] = CONFIGS.glob(f'{package}/*/*.py')
    with pytest.raises(ConfigError, match=rf'\({package}\w* is not inst'):
        upstream.upstream_tool('train', [str(path)])


def test_the_student_normalises_as_its_algorithm_did():
    """MMEngine's preprocessor stands in the configs of classifiers."""
    algorithm: dict[str, Any] = dict(
        type='ImgDataPreprocessor',
        mean=[129.304, 124.070, 112.434],
        std=[68.170, 65.392, 70.418],
        bgr_to_rgb=True,
    )
    model = dict(
        _scope_='mmrazor',
        type='SelfDistill',
        data_preprocessor=algorithm,
        architecture=dict(
            _scope_='mmpretrain',
            type='ImageClassifier',
            backbone=dict(type='ResNet', depth=18),
        ),
    )
    init_default_scope('mmpretrain')
    student = MODELS.build(student_config(Config(dict(model=model))).model)
    batch = dict(inputs=torch.randint(0, 256, (2, 3, 8, 8)))
    torch.testing.assert_close(
        student.data_preprocessor(batch)['inputs'],
        MODELS.build(algorithm)(batch)['inputs'],
    )


def test_nothing_of_mmrazor_is_left_around_a_student():
    sgd = dict(optimizer=dict(type='SGD', lr=0.1))
    steps = dict(type='MultiStepLR', milestones=[1])
    images = dict(
        type='CIFAR10',
        pipeline=[dict(type='PackInputs')],
        scale=(32, 32),
    )
    packed = dict(
        images,
        pipeline=[dict(_scope_='mmrazor', type='PackCRDClsInputs')],
    )
    crd = dict(_scope_='mmrazor', type='CRDDataset', dataset=packed)
    plain = dict(
        optim_wrapper=sgd,
        param_scheduler=steps,
        val_cfg=dict(type='ValLoop', fp16=True),
        default_hooks=dict(timer=dict(type='IterTimerHook')),
        custom_hooks=[dict(type='EMAHook')],
        train_dataloader=dict(dataset=images, batch_size=2),
    )
    student = dict(  # as in MMRazor's FBKD: it began with the zoo's weights
        cfg_path='mmpretrain::resnet/resnet18_8xb16_cifar10.py',
        pretrained=True,
    )
    cfg = Config(
        dict(
            model=dict(type='mmrazor.SelfDistill', architecture=student),
            optim_wrapper=dict(
                constructor='mmrazor.SeparateOptimWrapperConstructor',
                architecture=sgd,
                generator=sgd,
            ),
            param_scheduler=dict(architecture=steps, generator=steps),
            model_wrapper_cfg=dict(
                type='mmengine.MMSeparateDistributedDataParallel'
            ),
            val_cfg=dict(type='mmrazor.SelfDistillValLoop', fp16=True),
            default_hooks=dict(
                plain['default_hooks'],
                visualization=dict(
                    _scope_='mmrazor', type='RazorVisualizationHook'
                ),
            ),
            custom_hooks=[
                dict(type='mmrazor.StopDistillHook'),
                dict(type='EMAHook'),
            ],
            train_dataloader=dict(dataset=crd, batch_size=2),
        )
    )
    left = student_config(cfg).to_dict()
    assert left.pop('model')['type'] == 'ImageClassifier'
    pack = left['train_dataloader']['dataset']['pipeline'][0]
    assert pack.pop('_scope_') == 'mmpretrain'
    assert left == plain
