"""Vision transformers and DETRs as teachers, in whole trainings on shapes."""

import copy
import re
from itertools import product
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from mmdet.apis import init_detector
from mmdet.registry import MODELS as MMDET_MODELS
from mmengine.config import Config
from mmpretrain.models import VisionTransformer
from mmpretrain.registry import MODELS as MMPRETRAIN
from mmrazor.registry import MODELS
from torch import nn

from lshfm_mm.calibration.calibrate import calibrate
from lshfm_mm.errors import ConfigError
from lshfm_mm.export import export_student
from lshfm_mm.export.student import plain_config
from lshfm_mm.pairing import write_config
from lshfm_mm.teachers.images import patch_of_teacher

from .conftest import mmdet_config
from .test_detectors import (
    PLAIN_L2,
    distil,
    faster,
    losses_of,
    record,
    retinanet,
)
from .test_foundation import STATISTICS
from .test_resuming import trained, weights

TOKENS = dict(type='TokensToMap')
RESAMPLE = dict(type='ResampleConnector')
LOSSES = [
    dict(type='LSHLoss', feature_dim=16, std=0.25),
    dict(type='RelativeL2Loss'),
]
FALLING = 0.97  # of the mimicking loss, at the end to at the start


@MMPRETRAIN.register_module()
class RegisterViT(VisionTransformer):
    """With a class token and four registers, as DINOv2 has them."""

    num_extra_tokens = 5

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.cls_token = nn.Parameter(torch.zeros(1, 5, self.embed_dims))


def vit(kind='RegisterViT', out_type='raw', size=28):
    """DINOv2's patch and layer scale; narrow, and made for small images."""
    return dict(
        type='mmpretrain.ImageClassifier',
        data_preprocessor=STATISTICS,
        backbone=dict(
            type=f'mmpretrain.{kind}',
            arch=dict(
                embed_dims=16,
                num_layers=2,
                num_heads=2,
                feedforward_channels=32,
            ),
            img_size=size,
            patch_size=14,
            layer_scale_init_value=1.0,
            out_type=out_type,
        ),
        head=None,
    )


def built(model):
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = MMDET_MODELS.build(model)
        model.init_weights()
    return model


@pytest.fixture(scope='module')
def vit_weights(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp('vit') / 'vit.pth'
    torch.save(dict(state_dict=built(vit()).state_dict()), path)
    return str(path)


@pytest.fixture
def from_vit(make_config, vit_weights):
    """A RetinaNet whose neck mimics the tokens of a ViT; its config."""

    def make(weight=1.0):
        cfg = make_config('retinanet_student')
        cfg.train_dataloader.dataset.pipeline[2].scale = (64, 48)
        cfg.model = dict(
            _scope_='mmrazor',
            type='FeatureMimicDistill',
            architecture=cfg.model,
            teacher=vit(),
            teacher_ckpt=vit_weights,
            teacher_size=14,
            distiller=dict(
                type='LSHFMDistiller',
                taps=dict(
                    fpn=dict(
                        student='neck',
                        teacher='backbone',
                        record='output',
                        normalize=True,
                        weights='inside',
                    )
                ),
                connectors=dict(
                    fpn=[
                        dict(
                            type='ConvConnector',
                            in_channels=64,
                            out_channels=16,
                        ),
                        RESAMPLE,
                    ]
                ),
                teacher_connectors=dict(fpn=TOKENS),
                losses=dict(fpn=[dict(x, loss_weight=weight) for x in LOSSES]),
            ),
        )
        return cfg

    return make


def mimicking(runner, name):
    """A mimicking loss of each iteration."""
    history = runner.message_hub.get_scalar(f'train/distill.{name}')
    return torch.tensor(history.data[0])


def check_whole_training(make, tmp_path, name, plain):
    """It falls, resumes bit for bit, exports, and is plain at weight 0."""
    whole = make()
    runner = trained(whole, 2)
    values = mimicking(runner, name)
    assert values.isfinite().all() and len(values) == runner.iter == 12
    assert values[-3:].mean() < FALLING * values[:3].mean()
    parts = make()
    trained(parts, 1)
    trained(parts, 2, resume=True)
    path = Path(whole.work_dir) / 'epoch_2.pth'
    found = [weights(path), weights(Path(parts.work_dir) / 'epoch_2.pth')]
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(x, found[1][k]) for k, x in found[0].items())
    assert not any('teacher' in key for key in found[0])
    export_student(str(path), str(tmp_path / 'student.pth'))
    student = plain_config(Config(whole.to_dict()))
    init_detector(student, str(tmp_path / 'student.pth'), device='cpu')
    off = trained(make(weight=0.0), 1).model.student.state_dict()
    alone = trained(plain(), 1).model.state_dict()
    assert alone.keys() == off.keys()
    assert all(torch.equal(x, off[key]) for key, x in alone.items())


def test_a_vit_teaches_the_neck_of_a_detector(from_vit, make_config, tmp_path):
    def plain():
        cfg = make_config('retinanet_student')
        cfg.train_dataloader.dataset.pipeline[2].scale = (64, 48)
        return cfg

    check_whole_training(from_vit, tmp_path, 'loss_fpn_relativel2', plain)


def of_vit(teacher, **more):
    tap = dict(student='neck', teacher='backbone', record='output')
    return distil(
        retinanet(4),
        teacher,
        dict(fpn=tap),
        dict(fpn=[PLAIN_L2]),
        connectors=dict(fpn=RESAMPLE),
        **more,
    )


@pytest.mark.parametrize(
    ('size', 'grid'),
    [(14, (5, 5)), ((28, 42), (2, 3)), (28, (4, 4))],
    ids=str,
)
def test_the_teacher_sees_the_images_resized(batch, size, grid):
    """And interpolates its position embeddings, which are of 2 x 2."""
    model = of_vit(vit('VisionTransformer', 'featmap'), teacher_size=size)
    calls = [record(x) for x in (model.student.neck, model.teacher.backbone)]
    inputs = model.data_preprocessor(copy.deepcopy(batch), True)['inputs']
    loss = losses_of(model, batch)['distill.loss_fpn_featurel2']
    ((_, maps),), (((images,), (found,)),) = calls
    # The images of both, by hand: RetinaNet and this ViT normalise alike.
    sides = tuple(14 * x for x in grid)
    expected = F.interpolate(inputs, sides, mode='bilinear', antialias=True)
    torch.testing.assert_close(images, expected, rtol=1e-4, atol=1e-4)
    assert found.shape == (2, 16, *grid)
    # Maps of 8, 4, 2, 1 and 1; the one of 4 is the nearest to each grid.
    nearest = 1 if grid != (2, 3) else 2
    ours = F.interpolate(
        maps[nearest],
        grid,
        mode='bilinear',
        antialias=grid[0] < maps[nearest].shape[2],
    )
    torch.testing.assert_close(loss, (ours - found).square().mean())


def test_maps_of_a_vit_are_its_tokens_in_their_places(batch):
    teacher = built(vit('RegisterViT', 'featmap'))
    losses = []
    for kind, steps in (('featmap', None), ('raw', dict(fpn=TOKENS))):
        teacher.backbone.out_type = kind
        model = MODELS.build(
            dict(
                _scope_='mmrazor',
                type='FeatureMimicDistill',
                architecture=retinanet(4),
                teacher=teacher,
                teacher_size=(28, 70),
                distiller=dict(
                    type='LSHFMDistiller',
                    taps=dict(
                        fpn=dict(
                            student='neck', teacher='backbone', record='output'
                        )
                    ),
                    losses=dict(fpn=[PLAIN_L2]),
                    connectors=dict(fpn=RESAMPLE),
                    teacher_connectors=steps,
                ),
            )
        )
        torch.manual_seed(0)
        model.init_weights()
        losses.append(losses_of(model, batch)['distill.loss_fpn_featurel2'])
    assert losses[0] == losses[1] > 0


@pytest.mark.parametrize(
    ('more', 'message'),
    [
        (
            {},
            'teacher_size: the teacher cuts images into patches of 14 px, and '
            '64 x 64 px are no multiple, so that its patches would not lie on '
            "the student's pixels; set it to 14",
        ),
        (
            dict(teacher_size=(56, 64)),
            'teacher_size: the teacher cuts images into patches of 14 px, and '
            '56 x 64 px are no multiple',
        ),
        (
            dict(teacher_size=0),
            'teacher_size: must be an int >= 1, but got 0',
        ),
        (
            dict(teacher_size=(56, 56, 3)),
            'teacher_size: must be an int, or height and width, but got',
        ),
    ],
)
def test_images_that_are_no_multiple_of_the_patch(batch, more, message):
    with pytest.raises(ConfigError) as error:
        losses_of(of_vit(vit('VisionTransformer', 'featmap'), **more), batch)
    assert str(error.value).startswith(message)


def test_boxes_of_rois_are_not_resized():
    with pytest.raises(ConfigError, match='teacher_size: RoIMimicDistill giv'):
        distil(
            faster(4),
            faster(4),
            dict(roi='roi_head.bbox_head.fc_cls'),
            dict(roi=[PLAIN_L2]),
            'RoIMimicDistill',
            teacher_size=32,
        )


# DETRs


DETRS = {
    'detr': 'detr/detr_r50_8xb2-150e_coco.py',
    'conditional': 'conditional_detr/conditional-detr_r50_8xb2-50e_coco.py',
    'deformable': 'deformable_detr/deformable-detr_r50_16xb2-50e_coco.py',
    'dino': 'dino/dino-4scale_r50_8xb2-12e_coco.py',
}


def detr(kind, base):
    """A DETR of one layer; mmdet fixes its width at 256."""
    model = mmdet_config(DETRS[kind]).model
    model.backbone.update(
        depth=18, base_channels=base, init_cfg=None, frozen_stages=-1
    )
    model.neck.in_channels = [base * 2**i for i in model.backbone.out_indices]
    for part in (model.encoder, model.decoder):
        part.num_layers = 1
        for layer in part.layer_cfg.values():
            if 'feedforward_channels' in layer:
                layer.feedforward_channels = 32
            layer.pop('dropout', None)
    model.num_queries = model.test_cfg.max_per_img = 12
    model.bbox_head.num_classes = 6
    return model


MEMORY = dict(layer='encoder', record='output', weights='inside')


def memories(student, teacher, losses, **more):
    """A pair of DETRs; the config of what distils them."""
    connectors = dict(memory=TOKENS)
    return dict(
        _scope_='mmrazor',
        type='FeatureMimicDistill',
        architecture=student,
        teacher=teacher,
        distiller=dict(
            type='LSHFMDistiller',
            taps=dict(memory=dict(MEMORY, **more)),
            losses=dict(memory=losses),
            connectors=connectors,
            teacher_connectors=connectors,
        ),
    )


@pytest.fixture
def padded(batch):
    """Of the second image the right third is padding."""
    batch['inputs'][1] = batch['inputs'][1][:, :, :42]
    sample = batch['data_samples'][1]
    sample.set_metainfo(dict(img_shape=(64, 42), pad_shape=(64, 42)))
    sample.gt_instances.bboxes.tensor[:, 0::2].clamp_(max=42)
    return batch


@pytest.mark.parametrize('std', ['features', 'number'])
def test_calibration_sees_all_levels_of_tokens(batch, std):
    """Against the rows of the memory itself, in float64."""
    torch.manual_seed(0)
    loss = dict(type='LSHLoss', feature_dim=256, num_hashes=16)
    loss.update(bias='mean', std=0.1)
    if std == 'features':
        loss['std'] = 'features'
    model = MODELS.build(
        memories(detr('dino', 4), built(detr('dino', 8)), [loss])
    )
    rows = []
    model.teacher.encoder.register_forward_hook(
        lambda layer, args, given: rows.append(given.flatten(0, 1).double())
    )
    weight = model.distiller.distill_losses.loss_memory_lsh.weight
    drawn = weight.double().clone()
    calibrate(model, [batch], 1)
    projected = rows[0] @ drawn.T
    middle = projected.mean(dim=0)
    spread = (projected - middle).square().mean().sqrt()
    scale = spread if std == 'features' else 1.0
    calibrated = model.distiller.distill_losses.loss_memory_lsh
    assert torch.allclose(calibrated.bias.double(), -middle / scale, atol=1e-4)
    assert torch.allclose(calibrated.weight.double(), drawn / scale)


def test_equal_patches_of_images_that_are_resized():
    """They cut alike only what is alike."""
    one, two = (nn.Conv2d(3, 4, 16, 16) for _ in range(2))
    assert patch_of_teacher(nn.Sequential(one), nn.Sequential(two)) is None
    assert patch_of_teacher(nn.Sequential(one), nn.Sequential(two), True) == 16


@pytest.mark.parametrize('kind', DETRS)
def test_memories_of_detrs_are_compared_place_by_place(padded, kind):
    """Value and gradient; tokens of padding do not count."""
    torch.manual_seed(0)
    model = MODELS.build(
        memories(detr(kind, 4), built(detr(kind, 8)), [PLAIN_L2])
    )
    model.init_weights()
    model.train()
    calls = [record(x) for x in (model.student.encoder, model.teacher.encoder)]
    decoder = record(model.teacher.decoder)
    loss = losses_of(model, padded)['distill.loss_memory_featurel2']
    assert not decoder  # of the teacher: nothing behind the encoder runs
    (((_, ours),), ((_, theirs),)) = calls
    strides = (32,) if 'deform' not in kind and kind != 'dino' else (8, 16, 32)
    sizes = [64 // x for x in strides] + [1] * (len(strides) == 3)
    assert ours.shape == theirs.shape == (2, sum(x * x for x in sizes), 256)
    expected, start = 0.0, 0
    for size in sizes:
        means = []
        for i, width in enumerate((64, 42)):
            each = [
                (ours[i, place] - theirs[i, place]).double().square().mean()
                for y, x in product(range(size), range(size))
                if (x + 0.5) * 64 / size < width
                for place in [start + y * size + x]
            ]
            means.append(sum(each) / len(each))
        expected = expected + sum(means) / 2
        start += size * size
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=0)
    gradients = [
        torch.autograd.grad(x, ours, retain_graph=True)[0]
        for x in (loss, expected)
    ]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-9)


def test_a_detr_teaches_a_detr(make_config, tmp_path):
    teacher = tmp_path / 'detr.pth'
    torch.save(dict(state_dict=built(detr('dino', 8)).state_dict()), teacher)

    def plain():
        cfg = make_config('retinanet_student')
        cfg.model = detr('dino', 4)
        cfg.optim_wrapper = dict(
            type='OptimWrapper',
            optimizer=dict(type='AdamW', lr=1e-3),
            clip_grad=dict(max_norm=1),
        )
        return cfg

    def make(weight=1.0):
        cfg = plain()
        losses = [dict(LOSSES[1], loss_weight=weight)]
        cfg.model = memories(cfg.model, detr('dino', 8), losses)
        cfg.model.update(teacher_ckpt=str(teacher))
        return cfg

    name = 'loss_memory_relativel2'
    check_whole_training(make, tmp_path, name, plain)


@pytest.mark.parametrize(
    ('model', 'layer', 'message'),
    [
        (
            lambda: detr('deformable', 4),
            'decoder.layers.0',
            "'decoder.layers.0' of the student, a DeformableDETR, sees quer",
        ),
        (
            lambda: detr('detr', 4),
            'bbox_head.fc_cls',
            "'bbox_head.fc_cls' of the student, a DETR, sees queries, and "
            'those of two models do not match one by one; tap its backbone, '
            'neck or encoder',
        ),
        (
            lambda: sparse(),
            'roi_head.bbox_head.0.fc_cls',
            "'roi_head.bbox_head.0.fc_cls' of the student, a SparseRCNN, sees "
            'queries, and those of two models do not match one by one; tap '
            'its backbone, neck or rpn_head',
        ),
    ],
)
def test_queries_are_refused_with_the_reason(model, layer, message):
    with pytest.raises(ConfigError) as error:
        distil(
            model(),
            model(),
            dict(query=dict(layer=layer)),
            dict(query=[PLAIN_L2]),
        )
    assert str(error.value).startswith(f'taps.query: {message}')


def sparse():
    model = mmdet_config('sparse_rcnn/sparse-rcnn_r50_fpn_1x_coco.py').model
    model.backbone.update(depth=18, base_channels=4, init_cfg=None)
    model.neck.in_channels = [4, 8, 16, 32]
    head = model.roi_head
    head.update(num_stages=1, stage_loss_weights=[1])
    head.bbox_head = head.bbox_head[:1]
    model.train_cfg.rcnn = model.train_cfg.rcnn[:1]
    return model


def test_make_config_pairs_the_encoders_of_detrs(tmp_path):
    for name, base in (('teacher', 8), ('student', 4)):
        cfg = Config(dict(model=detr('dino', base), default_scope='mmdet'))
        cfg.dump(tmp_path / f'{name}.py')
    state = built(detr('dino', 8)).state_dict()
    torch.save(dict(state_dict=state), tmp_path / 'teacher.pth')
    chosen = write_config(
        *(str(tmp_path / f'{x}.py') for x in ('teacher', 'student')),
        str(tmp_path / 'distil.py'),
        str(tmp_path / 'teacher.pth'),
    )
    assert 'the encoders see strides [8, 16, 32, 64]' in chosen
    distiller = Config.fromfile(tmp_path / 'distil.py').model.distiller
    assert distiller.taps == dict(memory=dict(MEMORY, normalize=True))
    tokens = dict(memory=TOKENS)
    assert distiller.connectors == distiller.teacher_connectors == tokens


def test_the_config_on_the_page_mimics(tmp_path, monkeypatch, batch):
    """A ViT of DINOv2's own width and patch; shallow, to be quick."""
    page = Path(__file__).parent.parent / 'docs/connectors.md'
    blocks = re.findall(r'```python\n(.*?)```', page.read_text('utf-8'), re.S)
    monkeypatch.chdir(tmp_path)
    Path('from_dinov2.py').write_text(blocks[0], 'utf-8')
    cfg = Config.fromfile('from_dinov2.py').model
    small = dict(VisionTransformer.arch_zoo['dinov2-small'], num_layers=1)
    monkeypatch.setitem(VisionTransformer.arch_zoo, 'dinov2-small', small)
    cfg.architecture.backbone.init_cfg = None
    state = built(cfg.teacher).state_dict()
    torch.save(dict(state_dict=state), 'dinov2.pth')
    model = MODELS.build(cfg)
    loss = losses_of(model, batch)['distill.loss_fpn_relativel2']
    assert loss.isfinite() and loss > 0
    # The other block, on two DETRs.
    scope = {}
    exec(blocks[1], scope)
    config = dict(
        _scope_='mmrazor',
        type='FeatureMimicDistill',
        architecture=detr('detr', 4),
        teacher=built(detr('detr', 8)),
        distiller=scope['distiller'],
    )
    losses = losses_of(MODELS.build(config), batch)
    assert losses['distill.loss_memory_relativel2'] > 0
