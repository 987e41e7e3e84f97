"""Foundation models as teachers: no class layer, and no labels."""

import json
import re
import shutil
import statistics
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmrazor.registry import MODELS

from lshfm_mm.calibration.calibrate import calibrate
from lshfm_mm.calibration.sketches import SpreadSketch
from lshfm_mm.errors import ConfigError
from lshfm_mm.losses import LSHLoss
from lshfm_mm.teachers.loading import build_teacher
from lshfm_mm.teachers.settings import TeacherSettings
from lshfm_mm.utils.configs import model_config

from .processes import run_python, run_tool

REPO = Path(__file__).parent.parent
EXAMPLE = REPO / 'configs/examples/foundation_teacher.py'
# DINOv2's shape, small: class token, patches of 14, made for 518 px.
VIT = dict(
    type='mmpretrain.VisionTransformer',
    arch=dict(
        embed_dims=24, num_layers=2, num_heads=3, feedforward_channels=48
    ),
    img_size=518,
    patch_size=14,
    layer_scale_init_value=1.0,
)
STATISTICS = dict(
    type='mmpretrain.ClsDataPreprocessor',
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    to_rgb=True,
)
CNN = dict(
    type='mmpretrain.ResNet', depth=18, base_channels=4, stem_channels=4
)
POOL = dict(type='mmpretrain.GlobalAveragePooling')


def headless(backbone, **parts):
    return dict(
        type='mmpretrain.ImageClassifier',
        backbone=backbone,
        data_preprocessor=STATISTICS,
        **parts,
    )


def random_teacher(backbone=VIT, scale=1.0):
    """A teacher with random weights, its features multiplied by a number."""
    torch.manual_seed(1)
    model = MODELS.build(model_config('teacher', headless(backbone)))
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    norm = getattr(model.backbone, 'ln1', None)
    if norm is not None:
        torch.nn.init.normal_(norm.weight, 1, 0.2)
        torch.nn.init.normal_(norm.bias)  # off the origin, as real ones
        for parameter in norm.parameters():
            parameter.data *= scale
    return model


def distillation(teacher, losses, **settings):
    settings.setdefault('architecture', headless(CNN, neck=POOL))
    return MODELS.build(
        dict(
            _scope_='mmrazor',
            type='FeatureMimicDistill',
            teacher=teacher,
            calculate_student_loss=False,
            student_trainable=['backbone'],
            **settings,
            distiller=dict(
                type='LSHFMDistiller',
                taps=dict(
                    pooled=dict(
                        student='neck', teacher='backbone', record='output'
                    )
                ),
                connectors=dict(
                    pooled=dict(
                        type='LinearConnector',
                        in_features=32,
                        out_features=24,
                    )
                ),
                losses=dict(pooled=losses),
            ),
        )
    )


@pytest.mark.parametrize('bias', ['zero', 'mean', 'median'])
def test_spread_equals_an_explicit_loop(bias):
    generator = torch.Generator().manual_seed(0)
    rows = 3 + torch.randn(5, 40, generator=generator).double()
    first, second = SpreadSketch(5), SpreadSketch(5)
    first.update(rows[:, :7])
    first.update(rows[:, 7:20])
    second.update(rows[:, 20:])
    first.merge(second)
    middle = dict(
        zero=torch.zeros(5),
        mean=rows.mean(dim=1),
        median=rows.median(dim=1).values,
    )[bias]
    total = 0.0
    for stream, center in zip(rows.tolist(), middle.tolist(), strict=True):
        for value in stream:
            total += (value - center) ** 2
    expected = (total / rows.numel()) ** 0.5
    assert float(first.spread(middle)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize('bias', ['zero', 'mean', 'median'])
@pytest.mark.parametrize('scale', [1e-2, 1.0, 1e2])
def test_hash_functions_of_any_scale(scale, bias):
    """Projections of mean square 1; balanced; gradients of middle size."""
    loss = dict(type='LSHLoss', std='features', bias=bias)
    teacher = random_teacher(scale=scale)
    model = distillation(teacher, [loss])
    (loss,) = model.distiller.distill_losses.values()
    assert loss.needs_calibration
    torch.manual_seed(0)
    batches = [dict(inputs=255 * torch.rand(20, 3, 56, 56)) for _ in range(2)]
    calibrate(model, batches, 2)
    assert not loss.needs_calibration
    with torch.no_grad():
        rows = torch.cat(
            [
                teacher.backbone(model.data_preprocessor(x)['inputs'])[-1]
                for x in batches
            ]
        )
    assert 0.3 * scale < rows.square().mean().sqrt() < 3 * scale
    weight, shift = loss.weight.double(), loss.bias.double()
    values = rows.double() @ weight.T + shift
    assert float(values.square().mean()) == pytest.approx(1, rel=1e-3)
    if bias == 'median':
        assert ((values > 0).double().mean(dim=0) - 0.5).abs().max() < 0.026
    # The student's first features are as far off as the teacher's differ.
    student = rows[torch.randperm(len(rows))].double().requires_grad_()
    projections = student @ weight.T + shift
    slope = (projections.sigmoid() - (values > 0).double()).abs()
    saturated = (slope < 0.05).double().mean()
    flat = ((slope - 0.5).abs() < 0.01).double().mean()
    assert saturated < 0.1 and flat < 0.1
    value = loss(student, rows.double())
    assert 0.2 < float(value.detach()) < 2
    value.backward()
    # In units of the feature the gradient is that of all scales.
    relative = student.grad.norm() * student.detach().norm() / value.detach()
    assert 0.2 < float(relative) < 5


def test_a_number_as_std_serves_one_scale():
    """What 'features' is for: with a std of 1 the loss saturates."""
    rows = 100 * torch.randn(50, 24)
    loss = LSHLoss(feature_dim=24, std=1.0)
    slope = (
        (rows @ loss.weight.T)
        .sigmoid()
        .sub((rows @ loss.weight.T > 0).float())
    )
    assert (slope.abs() < 0.05).float().mean() > 0.9


@pytest.fixture(scope='module')
def photos(shapes_root, tmp_path_factory) -> Path:
    """A folder of images, some in a folder of their own, and no labels."""
    folder = tmp_path_factory.mktemp('photos')
    (folder / 'more').mkdir()
    for index, image in enumerate(sorted((shapes_root / 'train').iterdir())):
        shutil.copy(image, folder / ('more' if index % 2 else '.'))
    return folder


@pytest.fixture(scope='module')
def teacher(tmp_path_factory) -> Path:
    """Config of a headless ViT; its weights lie beside it."""
    path = tmp_path_factory.mktemp('vit') / 'vit.py'
    parts = headless(VIT)
    statistics = parts.pop('data_preprocessor')
    Config(dict(model=parts, data_preprocessor=statistics)).dump(path)
    model = random_teacher()
    torch.save(model.state_dict(), path.with_suffix('.pth'))
    return path


def shrink(teacher, photos, epochs):
    """Overrides that make seconds of the example."""
    return (
        f'model.teacher.cfg_path={teacher}',
        f'model.teacher_ckpt={teacher.with_suffix(".pth")}',
        'model.architecture.backbone.base_channels=4',
        'model.architecture.backbone.stem_channels=4',
        'model.architecture.head.in_channels=32',
        'model.distiller.connectors.pooled.in_features=32',
        'model.distiller.connectors.pooled.out_features=24',
        f'train_dataloader.dataset.data_root={photos}',
        'train_dataloader.dataset.pipeline.1.scale=56',
        'train_dataloader.batch_size=4',
        'train_dataloader.num_workers=0',
        'train_dataloader.persistent_workers=False',
        'param_scheduler.milestones=[9]',
        'optim_wrapper.optimizer.lr=0.01',
        'default_hooks.checkpoint.interval=1',
        f'train_cfg.max_epochs={epochs}',
    )


PLAIN = """
import sys
import torch
import mmdet.models, mmpretrain.models
from mmdet.registry import MODELS as MMDET
from mmpretrain.registry import MODELS as MMPRETRAIN
from mmengine.registry import DefaultScope

init_cfg = dict(type='Pretrained', checkpoint=sys.argv[1], prefix='backbone.')
backbone = dict(type='ResNet', depth=18, base_channels=4, init_cfg=init_cfg)
if sys.argv[2] == 'mmdet':
    DefaultScope.get_instance('plain', scope_name='mmdet')
    fpn = dict(type='FPN', in_channels=[4, 8, 16, 32], out_channels=8,
               num_outs=5)
    head = dict(type='RetinaHead', num_classes=3, in_channels=8)
    model = MMDET.build(dict(type='RetinaNet', backbone=dict(
        backbone, stem_channels=4, frozen_stages=1), neck=fpn, bbox_head=head))
else:
    DefaultScope.get_instance('plain', scope_name='mmpretrain')
    head = dict(type='LinearClsHead', num_classes=3, in_channels=32)
    model = MMPRETRAIN.build(dict(type='ImageClassifier', backbone=dict(
        backbone, stem_channels=4), neck=dict(type='GlobalAveragePooling'),
        head=head))
model.init_weights()
given = torch.load(sys.argv[1], weights_only=True)['state_dict']
own = {f'backbone.{k}': v for k, v in model.backbone.state_dict().items()}
assert len(own) == 120 and own.keys() <= given.keys()
assert all(torch.equal(v, given[k]) for k, v in own.items())
assert not any(x.startswith(('lshfm_mm', 'mmrazor')) for x in sys.modules)
print('PLAIN', len(own))
"""


def test_no_labels_to_a_backbone_of_plain_mmdet_and_mmpretrain(
    teacher, photos, tmp_path
):
    """Train, resume, export by the tools; start plain models from the file."""
    work = tmp_path / 'work'
    args = ('--work-dir', work, '--cfg-options')
    said = run_tool(
        'tools/train.py', EXAMPLE, *args, *shrink(teacher, photos, 1)
    )
    assert 'loss_pooled_lsh has median bias and std' in said
    first = torch.load(work / 'epoch_1.pth', weights_only=False)['state_dict']
    args = ('--resume', *args)
    said = run_tool(
        'tools/train.py', EXAMPLE, *args, *shrink(teacher, photos, 2)
    )
    assert 'calibration: no loss waits' in said
    second = torch.load(work / 'epoch_2.pth', weights_only=False)['state_dict']
    hashes = [x for x in first if 'loss_pooled_lsh.' in x]
    assert {x.rpartition('.')[2] for x in hashes} == {
        *('sums', 'bias', 'bias_is', 'spread')
    }
    for name in hashes:
        assert torch.equal(first[name], second[name]), name
    out = tmp_path / 'backbone.pth'
    run_tool('tools/export_student.py', work / 'epoch_2.pth', '-o', out)
    moved = [
        not torch.equal(value, second[name])
        for name, value in first.items()
        if name.startswith('architecture.backbone.') and value.dim() > 1
    ]
    assert moved and all(moved)
    for package in ('mmdet', 'mmpretrain'):
        said = run_python('-c', PLAIN, out, package, cwd=tmp_path)
        assert 'PLAIN 120' in said
        assert 'missing keys' not in said


def test_the_page_has_the_example():
    page = (REPO / 'docs/foundation.md').read_text('utf-8')
    code, *_ = re.findall(r'```python\n(.*?)```', page, re.S)
    assert len(code.splitlines()) > 20
    assert code in EXAMPLE.read_text('utf-8').replace('  # noqa: E501', '')


def test_the_teacher_runs_in_bfloat16_on_images_of_other_sizes():
    """Position embeddings of 518 px interpolate to 56; the loss is float32."""
    teacher = random_teacher()
    model = distillation(
        teacher, [dict(type='RelativeL2Loss')], teacher_precision='bfloat16'
    )
    seen = []
    teacher.backbone.layers[0].attn.qkv.register_forward_hook(
        lambda layer, given, got: seen.append(got)
    )
    losses = model.loss(torch.rand(2, 3, 56, 56))
    (projected,) = seen
    assert projected.shape == (2, 1 + 4 * 4, 3 * 24)
    assert projected.dtype == torch.bfloat16
    assert losses['distill.loss_pooled_relativel2'].dtype == torch.float32


def test_nothing_behind_the_taps_runs():
    """Without a task the head of the student would only take time."""
    head = dict(type='mmpretrain.LinearClsHead', num_classes=3, in_channels=32)
    model = distillation(
        random_teacher(),
        [dict(type='RelativeL2Loss')],
        architecture=headless(CNN, neck=POOL, head=head),
    )
    ran = []
    for part in (model.student.neck, model.student.head):
        part.register_forward_hook(lambda layer, *_: ran.append(layer))
    model.loss(torch.rand(2, 3, 56, 56))
    assert ran == [model.student.neck]


@pytest.mark.parametrize('labels', [True, False])
def test_a_detectors_backbone_learns(labels, make_config, photos, tmp_path):
    """Beside its task or without one: patches of 16 meet strides of 16."""
    cfg = make_config('retinanet_student')
    student = cfg.model
    student.backbone.pop('init_cfg', None)
    backbone = dict(VIT, patch_size=16, out_type='featmap', img_size=224)
    teacher = random_teacher(backbone)
    checkpoint = tmp_path / 'vit.pth'
    torch.save(teacher.state_dict(), checkpoint)
    cfg.model = dict(
        _scope_='mmrazor',
        type='FeatureMimicDistill',
        architecture=student,
        teacher=headless(backbone),
        teacher_ckpt=str(checkpoint),
        calculate_student_loss=labels,
        student_trainable=labels or ['backbone'],
        distiller=dict(
            type='LSHFMDistiller',
            taps=dict(
                c4=dict(
                    student='backbone.layer3',
                    teacher='backbone',
                    record='output',
                )
            ),
            connectors=dict(
                c4=dict(type='ConvConnector', in_channels=16, out_channels=24)
            ),
            losses=dict(
                c4=[
                    dict(type='LSHLoss', std='features', bias='median'),
                    dict(type='RelativeL2Loss'),
                ]
            ),
        ),
    )
    loader = cfg.train_dataloader
    loader.batch_size = 4
    if not labels:
        loader.pop('batch_sampler', None)
        loader.dataset = dict(
            type='mmpretrain.CustomDataset',
            data_root=str(photos),
            with_label=False,
            pipeline=[
                dict(type='LoadImageFromFile'),
                dict(type='mmdet.Resize', scale=(64, 64)),
                dict(type='mmdet.RandomFlip', prob=0.5),
                dict(type='mmdet.PackDetInputs'),
            ],
        )
    for split in ('val', 'test'):
        for part in ('cfg', 'dataloader', 'evaluator'):
            cfg[f'{split}_{part}'] = None
    cfg.train_cfg.max_epochs = 1
    cfg.dump(tmp_path / 'distil.py')
    said = run_tool(
        *('tools/train.py', tmp_path / 'distil.py'),
        *('--work-dir', tmp_path / 'work'),
    )
    assert 'output of backbone, (4, 24, 4, 4)' in said
    assert 'loss_c4_lsh has median bias' in said
    assert ('student.loss_cls' in said) == labels
    state = torch.load(tmp_path / 'work/epoch_1.pth', weights_only=False)
    assert all(x.isfinite().all() for x in state['state_dict'].values())


def test_a_file_of_the_backbone_alone_serves_a_headless_teacher(tmp_path):
    """As timm's: its names have no 'backbone.' before them."""
    model = random_teacher()
    file = tmp_path / 'backbone.pth'
    torch.save(model.backbone.state_dict(), file)
    guest = build_teacher(TeacherSettings(headless(VIT), ckpt=str(file)))
    for key, value in model.state_dict().items():
        assert torch.equal(value, guest.model.state_dict()[key]), key
    state = model.backbone.state_dict()
    state.pop('pos_embed')
    torch.save(state, file)
    with pytest.raises(ConfigError, match=r'1 missing: backbone\.pos_embed'):
        build_teacher(TeacherSettings(headless(VIT), ckpt=str(file)))


def test_features_that_are_all_alike_have_no_scale():
    """Those of a network whose layers do nothing, such as a random DINOv2."""
    teacher = random_teacher()
    teacher.backbone.ln1.weight.data.mul_(1e-6)
    loss = dict(type='LSHLoss', std='features', bias='median')
    model = distillation(teacher, [loss])
    batches = [dict(inputs=255 * torch.rand(8, 3, 56, 56))]
    with pytest.raises(ConfigError, match=r"_lsh\.std: the teacher's feat"):
        calibrate(model, batches, 1)


def test_a_checkpoint_of_another_std_is_calibrated_again():
    target = LSHLoss(feature_dim=3, std='features')
    assert target.needs_calibration
    source = LSHLoss(feature_dim=3, std=0.1)
    target.load_state_dict(source.state_dict(), strict=False)
    assert target.needs_calibration
    with pytest.raises(ConfigError, match="std='features', and is not cali"):
        target(torch.ones(1, 3), torch.ones(1, 3))
    drawn = target.weight.clone()
    target.calibrate(torch.zeros(12), torch.tensor(2.0))
    assert torch.equal(target.weight, drawn / 2)
    again = LSHLoss(feature_dim=3, std='features')
    again.load_state_dict(target.state_dict())
    assert not again.needs_calibration
    assert torch.equal(again.weight, target.weight)


@pytest.mark.parametrize(
    ('saved', 'asked', 'waits'),
    [
        (dict(std='features', bias='mean'), dict(std='features'), True),
        (dict(std='features'), dict(std='features', bias='mean'), True),
        (dict(std='features'), dict(std=0.1), False),
        (dict(std='features', bias='mean'), dict(std=0.1, bias='mean'), True),
        (dict(std=0.1, bias='mean'), dict(std=0.1), False),
    ],
)
def test_what_another_calibration_has_left_is_not_taken(saved, asked, waits):
    source, target = (
        LSHLoss(feature_dim=3, **{'bias': 'zero', **x}) for x in (saved, asked)
    )
    source.calibrate(torch.ones(12), torch.tensor(2.0))
    own = target.weight.clone()
    target.load_state_dict(source.state_dict(), strict=False)
    assert target.needs_calibration == waits
    assert not target.bias.any()
    if target.std != 'features':
        assert torch.equal(target.weight, own)


def test_features_without_any_spread_have_none():
    sketch = SpreadSketch(6)
    rows = torch.rand(6, 1, generator=torch.Generator().manual_seed(0)) + 3
    for _ in range(5):
        sketch.update(rows.expand(6, 37))
    assert float(sketch.spread(rows[:, 0])) < 1e-6


def test_the_experiment_runs_on_any_folder_of_classes(photos, tmp_path):
    """A ViT of DINOv2's shape, the tools, plain backbones and the probe."""
    images = sorted(photos.rglob('*.*'))
    for split in ('train', 'val', 'test'):
        for label, part in (('a', images[:6]), ('b', images[6:])):
            (tmp_path / split / label).mkdir(parents=True)
            for image in part:
                shutil.copy(image, tmp_path / split / label)
    out = tmp_path / 'record.json'
    said = run_python(
        *('benchmarks/foundation.py', tmp_path, '--teacher', 'vit'),
        *('--seeds', 0, '--epochs', 1, '--batch', 4, '--size', 64),
        *('--work-dir', tmp_path / 'work', '--out', out),
    )
    assert 'share of the gap that is closed' in said
    record = json.loads(out.read_text())['vit lshl2']
    assert record['photographs'] == 12
    first = record['seed 0']
    assert {*first} == {'random', 'mimicking'}
    # The probe sees its training images again, which 256 numbers tell apart.
    assert first['mimicking']['train'] == first['mimicking']['test']
    assert first['mimicking']['train'] > 80


def test_the_numbers_of_the_page_are_those_of_the_record():
    record = json.loads((REPO / 'docs/foundation.json').read_text('utf-8'))
    found = record['mobilenet_v2 lshl2']
    page = (REPO / 'docs/foundation.md').read_text('utf-8')
    for arm in ('random', 'mimicking'):
        tests = [v[arm]['test'] for k, v in found.items() if 'seed' in k]
        assert len(tests) == 3
        mean, spread = statistics.mean(tests), statistics.stdev(tests)
        assert f'{mean:.1f} ± {spread:.1f}' in page
    assert f'| {found["teacher"]["test"]:.1f} |' in page
    assert f'{found["closed"]:.0%}'.replace('%', ' %') in page
    assert f'{found["photographs"]:,} photographs' in page
