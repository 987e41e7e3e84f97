"""The configs of classifiers follow the recipes of the paper."""

from pathlib import Path
from urllib.parse import urlparse

import mmpretrain
import pytest
import torch
import torch.nn.functional as F
import yaml
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample

REPO = Path(__file__).parent.parent
MEDIAN = dict(bias='median')
RECIPES = {  # folder, pair -> K, weight, other arguments of LSH, embedding
    'imagenet/resnet34_resnet18': (2048, 5, dict(std=0.06), None),
    'imagenet/resnet101_resnet50': (2048, 5, dict(std=0.03), None),
    'imagenet/resnet101_mobilenet-v2': (
        2048,
        5,
        dict(std=0.03),
        (1280, 2048),
    ),
    'voc07/resnet34_resnet18': (2048, 0.5, MEDIAN, (512, 512)),
    'voc07/resnet101_resnet50': (8192, 0.5, MEDIAN, (2048, 2048)),
    'voc07/resnet101_mobilenet-v2': (8192, 0.5, MEDIAN, (1280, 2048)),
    'coco14/resnet101_resnet50': (2048, 3, MEDIAN, (2048, 2048)),
    'coco14/resnet101_mobilenet-v2': (2048, 3, MEDIAN, (1280, 2048)),
    'coco14/resnet101-max_resnet50-max': (2048, 3, MEDIAN, (2048, 2048)),
    'coco14/resnet101-max_mobilenet-v2-max': (
        2048,
        3,
        MEDIAN,
        (1280, 2048),
    ),
}
SCHEDULES = {  # folder -> epochs, images to a step, lr, weight decay
    'imagenet': (100, 256, 0.1, 0.0001),
    'voc07': (60, 16, 0.01, 0.00001),
    'coco14': (60, 32, 0.01, 0.0001),
}


def read(name):
    return Config.fromfile(REPO / f'configs/{name}.py')


def lshl2(hashes, weight, more):
    """The two losses, as a config writes them."""
    lsh = dict(type='LSHLoss', num_hashes=hashes, loss_weight=weight, **more)
    return dict(lsh=[lsh], l2=[dict(type='FeatureL2Loss', loss_weight=weight)])


@pytest.mark.parametrize('pair', RECIPES)
def test_a_pair_follows_the_paper(pair):
    hashes, weight, more, embedding = RECIPES[pair]
    folder, name = pair.split('/')
    if folder == 'imagenet':
        cfg = read(f'{folder}/lshl2-correct_pooled_{name}_in1k')
    else:
        cfg = read(f'{folder}/lshl2_pooled_{name}_{folder}')
    model = cfg.model
    assert model.distiller.losses == lshl2(hashes, weight, more)
    neck, head = model.architecture.neck, model.architecture.head
    if embedding is None:
        assert neck.type == 'GlobalAveragePooling'
    else:
        assert (neck.in_channels, neck.out_channels) == embedding
        assert head.in_channels == embedding[1]
        if name.endswith('-max'):
            assert neck.type == 'GlobalMaxPooling'
        else:
            assert (neck.type, neck.norm_cfg) == ('LinearNeck', None)
    teacher = Config.fromfile(REPO / model.teacher.cfg_path).model
    assert teacher.head.num_classes == head.num_classes
    assert Path(model.teacher.cfg_path).parent.name == folder
    pooling = 'Max' if name.endswith('-max') else 'Average'
    assert teacher.neck.type == f'Global{pooling}Pooling'

    epochs, images, lr, decay = SCHEDULES[folder]
    assert cfg.train_cfg.max_epochs == epochs
    assert cfg.auto_scale_lr.base_batch_size == images
    gpus = 8 if folder == 'imagenet' else 1
    assert cfg.train_dataloader.batch_size * gpus == images
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr) == ('SGD', lr)
    assert (optimizer.momentum, optimizer.weight_decay) == (0.9, decay)
    assert cfg.load_from is None  # one stage
    if folder == 'imagenet':
        tap = dict(layer='head.fc', weights='correct')
        assert cfg.param_scheduler.milestones == [30, 60, 90]
        assert model.distiller.taps == dict(lsh=tap, l2=tap)
        assert cfg.custom_hooks == [
            dict(type='AverageCheckpointsHook', num_epochs=10)
        ]
        return
    assert cfg.param_scheduler.type == 'CosineAnnealingLR'
    assert cfg.param_scheduler.end == epochs
    # Every image counts.
    assert model.distiller.taps == dict(lsh='head.fc', l2='head.fc')
    assert cfg.custom_hooks == [
        dict(type='LSHCalibrationHook', num_batches=None)
    ]
    # No labels and no evaluation in stage 1; stage 2 starts from its end.
    stage1, stage2 = (f'lshl2_pooled_{name}_stage{x}_{folder}' for x in (1, 2))
    first, second = read(f'{folder}/{stage1}'), read(f'{folder}/{stage2}')
    assert second.load_from == f'work_dirs/{stage1}/epoch_{epochs}.pth'
    second.load_from = None
    assert second.to_dict() == cfg.to_dict()
    assert first.load_from is None
    assert first.train_cfg.max_epochs == epochs
    assert first.model.calculate_student_loss is False
    assert first.model.student_trainable == ['neck']
    for split in ('val', 'test'):
        assert first[f'{split}_cfg'] is first[f'{split}_evaluator'] is None
        assert first[f'{split}_dataloader'] is None
    for [loss] in (losses := first.model.distiller.losses).values():
        assert loss.setdefault('loss_weight', 1) == 1
    assert losses == lshl2(hashes, 1, more)
    assert first.model.distiller.taps == model.distiller.taps
    assert first.model.architecture == model.architecture
    assert first.model.teacher_ckpt == model.teacher_ckpt


@pytest.mark.parametrize(
    'name', ['voc07/resnet18_voc07', 'coco14/mobilenet-v2_coco14']
)
def test_bce_is_the_mean_over_images_and_classes(name):
    cfg = read(name)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        head = MODELS.build(cfg.model.head)
    torch.manual_seed(0)
    target = torch.rand(4, head.num_classes) < 0.2
    samples = [DataSample().set_gt_score(x.float()) for x in target]
    feature = torch.randn(4, head.in_channels)
    loss = head.loss((feature,), samples)['loss']
    expected = F.binary_cross_entropy_with_logits(
        head.fc(feature), target.float()
    )
    torch.testing.assert_close(loss, expected)


def test_weights_are_those_that_mmpretrain_names_for_the_network():
    """OneDL's fork names another host."""
    known = {}
    for folder in ('resnet', 'mobilenet_v2'):
        path = Path(mmpretrain.__file__).parent / (
            f'.mim/configs/{folder}/metafile.yml'
        )
        for x in yaml.safe_load(path.read_text())['Models']:
            known[urlparse(x['Weights']).path] = Path(x['Config']).name
    files = {
        'resnet18': 'resnet18_8xb32_in1k.py',
        'resnet34': 'resnet34_8xb32_in1k.py',
        'resnet50': 'resnet50_8xb32_in1k.py',
        'resnet101': 'resnet101_8xb32_in1k.py',
        'mobilenet-v2': 'mobilenet-v2_8xb32_in1k.py',
    }
    for folder in ('voc07', 'coco14'):
        for name, file in files.items():
            config = f'{folder}/{name}_{folder}'
            if not (REPO / f'configs/{config}.py').exists():
                continue
            start = read(config).model.backbone.init_cfg
            assert known[urlparse(start.checkpoint).path] == file
            assert (start.type, start.prefix) == ('Pretrained', 'backbone')
    for pair in [x for x in RECIPES if x.startswith('imagenet')]:
        name = pair.split('/')[1]
        teacher = name.split('_')[0]
        cfg = read(f'imagenet/lshl2-correct_pooled_{name}_in1k')
        ckpt = cfg.model.teacher_ckpt
        assert known[urlparse(ckpt).path] == files[teacher]
