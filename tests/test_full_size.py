"""The COCO config at full size: one optimisation step on the CPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS as ROOT
from mmengine.runner import Runner
from pycocotools.coco import COCO

from lshfm_mm.datasets import shapes
from lshfm_mm.utils.configs import model_config

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
    ('name', 'active', 'mimic', 'shape'),
    [
        (
            'recommended_roi-fpn_faster-rcnn_r101_faster-rcnn_r50_1x_coco',
            ['roi', 'fpn'],
            ['roi_lsh', 'fpn_relativel2'],
            (4096, 1024),
        ),
        (
            'lshl2-pkd-kl_roi-fpn-logits_faster-rcnn_r101_faster-rcnn_r50_'
            '1x_coco',
            ['lsh', 'l2', 'fpn', 'logits'],
            ['lsh_lsh', 'l2_featurel2', 'fpn_pkd', 'logits_kldivergence'],
            (4096, 1024),
        ),
        (
            'lshl2_cls_retinanet_r101_retinanet_r50_1x_coco',
            ['lsh'],
            ['lsh_lsh'],
            (4096, 2304),
        ),
    ],
)
def test_one_step_at_full_size(
    coco_like, tmp_path, name, active, mimic, shape
):
    """2 x 3 x 800 x 1333, R101 -> R50, all taps together."""
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
            'model.distiller.active': active,
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
    losses = runner.model.distiller.distill_losses
    assert losses[f'loss_{mimic[0]}'].weight.shape == shape
    logged = runner.message_hub.log_scalars
    for key in mimic:
        value = logged[f'train/distill.loss_{key}'].current()
        assert np.isfinite(value) and value > 0


@pytest.fixture
def images(tmp_path):
    """Four images of 512 px: of ImageNet's layout, and of COCO's."""
    shapes.generate(tmp_path, num_train=4, num_val=1, size=512, seed=0)
    (tmp_path / 'meta.txt').write_text(
        ''.join(f'{x:06d}.png {x}\n' for x in range(4))
    )
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize(
    ('name', 'annotations', 'shape', 'hashes'),
    [
        (
            'imagenet/lshl2-correct_pooled_resnet34_resnet18_in1k',
            'meta.txt',
            (224, 224),
            (2048, 512),
        ),
        (
            'coco14/lshl2_pooled_resnet101_resnet50_stage2_coco14',
            'annotations/train.json',
            (448, 448),
            (2048, 2048),
        ),
    ],
)
def test_one_step_of_a_classifier(
    images, tmp_path, name, annotations, shape, hashes
):
    """Networks, images and losses of the paper; four images."""
    cfg = Config.fromfile(REPO / f'configs/{name}.py')
    cfg.model.teacher.cfg_path = str(REPO / cfg.model.teacher.cfg_path)
    teacher = ROOT.build(model_config('teacher', cfg.model.teacher))
    # A teacher says something of these images, and is right about none or
    # some: the class of each is its index.
    torch.nn.init.normal_(teacher.head.fc.weight, std=0.06)
    checkpoint = tmp_path / 'teacher.pth'
    torch.save({'state_dict': teacher.state_dict()}, checkpoint)
    cfg.merge_from_dict(
        {
            'model.teacher_ckpt': str(checkpoint),
            'model.architecture.backbone.init_cfg': None,
            'load_from': None,
            'train_dataloader.batch_size': 4,
            'train_dataloader.num_workers': 0,
            'train_dataloader.persistent_workers': False,
            'train_dataloader.dataset.data_root': str(images),
            'train_dataloader.dataset.ann_file': annotations,
            'train_dataloader.dataset.data_prefix': 'train',
            'train_dataloader.dataset.split': '',
            'val_dataloader': None,
            'val_evaluator': None,
            'val_cfg': None,
            'train_cfg': dict(
                _delete_=True, type='IterBasedTrainLoop', max_iters=1
            ),
            'param_scheduler': None,
            'default_hooks.checkpoint.by_epoch': False,
            'custom_hooks': [
                x for x in cfg.custom_hooks if 'Average' not in x.type
            ],
            'work_dir': str(tmp_path / 'work'),
        }
    )
    if 'coco14' in name:
        del cfg.train_dataloader.dataset['split']
    runner = Runner.from_cfg(cfg)
    model = runner.model
    seen = []
    for owner in (model.student, model.teacher):
        owner.backbone.register_forward_hook(
            lambda module, inputs, output: seen.append(inputs[0].shape)
        )
    model.init_weights()
    before = model.student.head.fc.weight.clone()
    runner.train()
    assert set(seen) == {(4, 3, *shape)}
    assert not torch.equal(before, model.student.head.fc.weight)
    assert all(p.isfinite().all() for p in model.parameters())
    loss = model.distiller.distill_losses['loss_lsh_lsh']
    assert loss.weight.shape == hashes
    logged = runner.message_hub.log_scalars
    for key in ('student.loss', 'distill.loss_l2_featurel2'):
        assert np.isfinite(logged[f'train/{key}'].current())


MEMORY = """
import sys
import torch
import torch.nn.functional as F
from lshfm_mm.losses import lsh_loss

def mebibytes():  # ru_maxrss would hold the peak of the parent process
    with open('/proc/self/status') as status:
        lines = [x for x in status if x.startswith('VmHWM')]
    return int(lines[0].split()[1]) / 1024

torch.manual_seed(0)
weight, bias = torch.randn(4096, 256 * 9) * 0.01, torch.zeros(4096)
levels = [
    [torch.randn(2, 256, *size).relu() for _ in range(2)]
    for size in ((100, 168), (50, 84), (25, 42), (13, 21), (7, 11))
]
for student, _ in levels:
    student.requires_grad_()
small = torch.randn(1, 256, 8, 8, requires_grad=True)
lsh_loss(small, small.detach(), weight, bias).backward()  # loads libraries
start, total = mebibytes(), 0
for student, teacher in levels:
    if sys.argv[1] == 'convolution':
        total = total + lsh_loss(student, teacher, weight, bias)
        continue
    rows = [
        F.unfold(x, 3, padding=1).transpose(1, 2).flatten(0, 1)
        for x in (student, teacher)
    ]
    with torch.no_grad():
        codes = (F.linear(rows[1], weight, bias) > 0).float()
    total = total + F.binary_cross_entropy_with_logits(
        F.linear(rows[0], weight, bias), codes
    )
total.backward()
print(float(total), mebibytes() - start)
"""


@pytest.mark.slow
@pytest.mark.skipif(
    not sys.platform.startswith('linux'), reason='reads memory from /proc'
)
def test_memory_of_the_dense_loss():
    """2 images of 800 x 1333, K = 4096: a quarter of what unfolding needs."""
    found = {}
    for form in ('convolution', 'unfold'):
        process = subprocess.run(
            [sys.executable, '-c', MEMORY, form],
            capture_output=True,
            text=True,
            check=True,
            cwd=REPO,
        )
        found[form] = [float(x) for x in process.stdout.split()[-2:]]
    print(found)
    (value, ours), (expected, unfolded) = found.values()
    assert value == pytest.approx(expected, rel=1e-4)
    assert 0 < ours <= unfolded / 4
