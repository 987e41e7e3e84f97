"""MMRazor's own distillations go through our tools, from training to export.

``make mmrazor`` runs all and writes docs/mmrazor_configs.md.
"""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import cv2
import mmrazor
import numpy as np
import pytest
import torch
from mmdet.datasets import CocoDataset
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from lshfm_mm.datasets import shapes

REPO = Path(__file__).parent.parent
CONFIGS = Path(mmrazor.__file__).parent / '.mim/configs/distill'
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
        for part, labels in zip(files, np.split(np.arange(10), len(files))):
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


@pytest.mark.slow
@pytest.mark.parametrize('name', NAMES)
def test_a_config_goes_all_the_way(name, data_root, tmp_path):
    run(name, data_root, tmp_path)


def run(name: str, data: Path, work: Path) -> None:
    (work / 'data').symlink_to(data)
    environ = dict(os.environ, OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES='')
    environ['TORCH_HOME'] = str(data.parent / 'torch')
    answer = subprocess.run(
        [sys.executable, '-W', 'ignore', '-m', 'tests.mmrazor_run']
        + [str(CONFIGS / name), str(work)],
        cwd=REPO,
        env=environ,
        capture_output=True,
        text=True,
    )
    assert answer.returncode == 0, answer.stdout[-3000:] + answer.stderr
