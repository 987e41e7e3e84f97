"""The COCO config at full size: one optimisation step on the CPU."""

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS as ROOT
from mmengine.runner import Runner
from pycocotools.coco import COCO

from lshfm_mm import shapes
from lshfm_mm.teacher import model_config

REPO = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def _all_cores():
    torch.set_num_threads(os.cpu_count())
    yield
    torch.set_num_threads(1)


@pytest.fixture
def coco_like(tmp_path):
    """Two images of 800 x 1333 with COCO-format annotations."""
    shapes.generate(tmp_path, num_train=2, num_val=1, size=800, seed=0)
    for path in (tmp_path / 'train').glob('*.png'):
        image = cv2.imread(str(path))
        wide = np.pad(image, ((0, 0), (0, 533), (0, 0)), mode='reflect')
        cv2.imwrite(str(path), wide)
    annotations = COCO(tmp_path / 'annotations/train.json')
    assert len(annotations.anns) > 2
    for info in annotations.dataset['images']:
        info['width'] = 1333
    path = tmp_path / 'annotations/train.json'
    path.write_text(json.dumps(annotations.dataset))
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize(
    'name', ['faster_rcnn_lshfm', 'faster_rcnn_recommended']
)
def test_one_step_at_full_size(coco_like, tmp_path, name):
    """2 x 3 x 800 x 1333, R101 -> R50, RoI and FPN taps together."""
    cfg = Config.fromfile(REPO / f'configs/distill/{name}.py')
    teacher = ROOT.build(model_config('teacher', cfg.model.teacher))
    checkpoint = tmp_path / 'teacher.pth'
    torch.save(
        {
            'state_dict': teacher.state_dict(),
            'meta': {'dataset_meta': {'classes': shapes.CLASSES}},
        },
        checkpoint,
    )
    cfg.merge_from_dict(
        {
            'model.teacher_ckpt': str(checkpoint),
            'model.distiller.active': ['roi', 'fpn'],
            'model.architecture.backbone.init_cfg': None,
            'train_dataloader.num_workers': 0,
            'train_dataloader.persistent_workers': False,
            'train_dataloader.dataset.data_root': str(coco_like),
            'train_dataloader.dataset.ann_file': 'annotations/train.json',
            'train_dataloader.dataset.data_prefix.img': 'train/',
            'train_dataloader.dataset.metainfo': dict(classes=shapes.CLASSES),
            'val_dataloader': None,
            'val_evaluator': None,
            'val_cfg': None,
            'train_cfg': dict(
                _delete_=True, type='IterBasedTrainLoop', max_iters=1
            ),
            'param_scheduler': None,
            'default_hooks.checkpoint.by_epoch': False,
            'work_dir': str(tmp_path / 'work'),
        }
    )
    runner = Runner.from_cfg(cfg)
    shapes_seen = []
    runner.model.student.backbone.register_forward_hook(
        lambda module, inputs, output: shapes_seen.append(inputs[0].shape)
    )
    runner.model.init_weights()
    weight = runner.model.student.neck.fpn_convs[0].conv.weight
    before = weight.clone()
    runner.train()
    assert shapes_seen == [(2, 3, 800, 1344)]  # padded to a multiple of 32
    assert not torch.equal(before, weight)
    assert all(p.isfinite().all() for p in runner.model.parameters())
    projection = runner.model.distiller.distill_losses['loss_roi_lsh'].weight
    assert projection.shape == (4096, 1024)
    losses = runner.message_hub.log_scalars
    for key in ('roi_lsh', 'fpn_pkd'):
        value = losses[f'train/distill.loss_{key}'].current()
        assert np.isfinite(value) and value > 0
