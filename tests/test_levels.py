"""A list of layers, one for each level, is one tap: RTMDet, YOLOX and kin."""

import copy
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmdet.registry import MODELS as MMDET_MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import distance2bbox
from mmengine.structures import InstanceData
from mmrazor.registry import MODELS

from lshfm_mm.distillers.widths import set_projection
from lshfm_mm.errors import ConfigError
from lshfm_mm.export import export_student
from lshfm_mm.losses.hashing import random_projection
from lshfm_mm.utils.rng import forked_rng

from .conftest import L2, mmdet_config
from .test_connectors import yolov3
from .test_detectors import (
    PLAIN_L2,
    distil,
    losses_of,
    record,
    retinanet,
    shrink,
)
from .test_home import assert_same, distilled, left_behind, trained
from .test_pairing import write  # noqa: F401
from .test_silent import two_images

RTMDET = dict(cls='bbox_head.rtm_cls', reg='bbox_head.rtm_reg')
YOLOX = dict(
    cls='bbox_head.multi_level_conv_cls', reg='bbox_head.multi_level_conv_reg'
)
LOSSES = [
    dict(type='LSHLoss', num_hashes=20),
    PLAIN_L2,
    dict(type='RelativeL2Loss'),
]


def rtmdet(width=16, kernel=1):
    model = mmdet_config('rtmdet/rtmdet_tiny_8xb32-300e_coco.py').model
    model.data_preprocessor.pad_size_divisor = 32
    model.backbone.update(
        widen_factor=0.0625, init_cfg=None, norm_cfg=dict(type='BN')
    )
    model.neck.update(
        in_channels=[16, 32, 64], out_channels=16, norm_cfg=dict(type='BN')
    )
    model.bbox_head.update(
        in_channels=16,
        feat_channels=width,
        num_classes=6,
        pred_kernel_size=kernel,
        norm_cfg=dict(type='BN'),
    )
    return model


def yolox(width=8):
    model = mmdet_config('yolox/yolox_tiny_8xb8-300e_coco.py').model
    model.backbone.widen_factor = 0.0625
    model.neck.update(in_channels=[16, 32, 64], out_channels=8)
    model.bbox_head.update(in_channels=8, feat_channels=width, num_classes=6)
    model.data_preprocessor.pop('batch_augments')
    return model


PAIRS = {'rtmdet': (rtmdet, RTMDET), 'yolox': (yolox, YOLOX)}


def small_yolov3(*widths):
    """Models whose head has a width of its own at each level."""
    models = []
    for width in widths:
        model = yolov3(width)
        model.backbone = dict(type='ResNet', depth=18, base_channels=4)
        model.backbone['out_indices'] = (1, 2, 3)
        model.neck.in_channels = [32, 16, 8]
        model.bbox_head.out_channels = [4 * width, 2 * width, width]
        models.append(model)
    return models


def images_of(sizes, seed=0):
    """A raw batch of images of sizes, with two objects each."""
    generator = torch.Generator().manual_seed(seed)
    batch = dict(inputs=[], data_samples=[])
    for height, width in sizes:
        shape = torch.tensor([width, height] * 2)
        corners = torch.rand(2, 2, 2, generator=generator).sort(dim=1).values
        boxes = corners.flatten(1) * (shape - 9)
        boxes[:, 2:] += 8
        sample = DetDataSample(
            gt_instances=InstanceData(bboxes=boxes, labels=torch.arange(2))
        )
        sample.set_metainfo(
            dict(
                img_shape=(height, width),
                scale_factor=(1, 1),
                batch_input_shape=None,
            )
        )
        image = torch.randint(256, (3, height, width), generator=generator)
        batch['inputs'].append(image.to(torch.uint8))
        batch['data_samples'].append(sample)
    return batch


def layer(model, name):
    return model.get_submodule(name)


def features_at(model, tap):
    """Calls of each layer of a list, in both models."""
    return [
        [record(x) for x in layer(owner, tap)]
        for owner in (model.student, model.teacher)
    ]


def last_inputs(calls):
    return [x[-1][0][0] for x in calls]


def looped(students, teachers, masks, weight, window):
    """The losses of one set of samples, location by location, in float64."""
    total = dict(lsh=0.0, featurel2=0.0)
    scale = 0.0
    half = window // 2
    padded = [
        [F.pad(x.double(), [half] * 4) for x in y]
        for y in (students, teachers)
    ]
    images = len(students[0])
    counting = [sum(int(m[i].sum()) for m in masks) for i in range(images)]
    share = 1 / max(sum(x > 0 for x in counting), 1)
    for i in range(images):
        for s, t, mask in zip(*padded, masks, strict=True):
            for y, x in mask[i].nonzero().tolist():
                a, b = (
                    z[i, :, y : y + window, x : x + window].flatten()
                    for z in (s, t)
                )
                part = share / counting[i]
                sides = torch.where(weight @ b > 0, 1.0, -1.0)
                each = F.softplus(-sides * (weight @ a))
                total['lsh'] = total['lsh'] + part * each.mean()
                error = ((a - b) ** 2).mean()
                total['featurel2'] = total['featurel2'] + part * error
                scale += part * float((b**2).mean())
    return total | dict(relativel2=total['featurel2'] / (scale or 1.0))


def assert_is_loop(model, losses, name, calls, masks, window=1):
    """Values and gradients of the losses at a tap are those of the loop."""
    students, teachers = map(last_inputs, calls)
    doubles = [x.detach().double().requires_grad_() for x in students]
    lsh = model.distiller.distill_losses[f'loss_{name}_lsh']
    expected = looped(doubles, teachers, masks, lsh.weight.double(), window)
    for kind, value in expected.items():
        found = losses[f'distill.loss_{name}_{kind}']
        torch.testing.assert_close(
            found.double(), value.detach(), rtol=1e-5, atol=1e-9
        )
        ours = torch.autograd.grad(found, students, retain_graph=True)
        theirs = torch.autograd.grad(
            value, doubles, retain_graph=True, allow_unused=True
        )
        for one, other in zip(ours, theirs, strict=True):
            other = torch.zeros_like(one) if other is None else other
            torch.testing.assert_close(
                one.double(), other.double(), rtol=1e-4, atol=1e-8
            )


def inside(sizes, maps):
    """Locations of each image, padded to 32 px: what RTMDet trains."""
    masks = [torch.zeros(x[:, 0].shape, dtype=torch.bool) for x in maps]
    for level, mask in enumerate(masks):
        for one, size in zip(mask, sizes, strict=True):
            rows, columns = (-(-x // 32) * 4 >> level for x in size)
            one[:rows, :columns] = True
    return masks


@pytest.mark.parametrize(
    ('kind', 'kernel'), [('rtmdet', 1), ('rtmdet', 3), ('yolox', 1)]
)
def test_a_list_is_one_set_of_samples(kind, kernel):
    make, taps = PAIRS[kind]
    more = dict(kernel=kernel) if kind == 'rtmdet' else {}
    model = distil(
        make(**more), make(**more), taps, dict.fromkeys(taps, LOSSES)
    )
    for one in [*model.teacher.modules(), *model.student.modules()]:
        if isinstance(one, torch.nn.Conv2d):  # at their start: all but 0
            torch.nn.init.kaiming_normal_(one.weight)
    losses_of(model, images_of([(64, 64)] * 2))  # looks for what need not run
    calls = {name: features_at(model, at) for name, at in taps.items()}

    draw = random.Random(kernel)
    for seed in range(3):
        sizes = [
            (16 * draw.randint(2, 5), 16 * draw.randint(2, 5)) for _ in '12'
        ]
        losses = losses_of(model, images_of(sizes, seed))
        for name, both in calls.items():
            maps = last_inputs(both[0])
            masks = [x.new_ones(x[:, 0].shape).bool() for x in maps]
            if kind == 'rtmdet':
                masks = inside(sizes, maps)
            assert_is_loop(model, losses, name, both, masks, kernel)


@pytest.mark.parametrize(('lite', 'window'), [(False, 3), (True, 1)])
def test_of_ssds_sequences_the_last_layer_is_tapped(lite, window):
    """It has no module for its class loss, so that all locations count."""
    model = mmdet_config('ssd/ssd300_coco.py').model
    model.backbone = dict(
        type='ResNet', depth=18, base_channels=4, out_indices=(1, 2, 3)
    )
    model.neck = dict(
        type='FPN', in_channels=[8, 16, 32], out_channels=16, num_outs=3
    )
    model.bbox_head.update(
        in_channels=[16] * 3, num_classes=6, use_depthwise=lite
    )
    model.bbox_head.norm_cfg = dict(type='BN')
    model.bbox_head.anchor_generator = dict(
        type='SSDAnchorGenerator',
        scale_major=False,
        input_size=300,
        basesize_ratio_range=(0.15, 0.9),
        strides=[8, 16, 32],
        ratios=[[2], [2, 3], [2]],
    )
    at = 'bbox_head.cls_convs'
    model = distil(model, model, dict(cls=at), dict(cls=LOSSES))
    calls = [
        [record(x[-1]) for x in owner.bbox_head.cls_convs]
        for owner in (model.student, model.teacher)
    ]
    losses = losses_of(model, images_of([(64, 64)] * 2))
    maps = last_inputs(calls[0])
    assert [x.shape[1:] for x in maps] == [
        (16, 64 // i, 64 // i) for i in (8, 16, 32)
    ]
    masks = [x.new_ones(x[:, 0].shape).bool() for x in maps]
    assert_is_loop(model, losses, 'cls', calls, masks, window)


def weights_seen(model, batch):
    """The losses of a batch, and which samples count at each tap."""
    seen = {}
    model.distiller.observers.append(lambda _, found: seen.update(found))
    losses = losses_of(model, batch)
    return losses, {k: [w > 0 for w in x.weights] for k, x in seen.items()}


def rows_of(maps):
    """Predictions of all levels, (B, locations, C), image by image."""
    rows = [x.permute(0, 2, 3, 1).flatten(1, 2) for x in maps]
    return torch.cat(rows, 1)


def positive(make, at):
    taps = dict(reg=dict(layer=at, weights='positive'))
    model = distil(make(), make(), taps, dict(reg=LOSSES))
    for one in [*model.teacher.modules(), *model.student.modules()]:
        if isinstance(one, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(one.weight)
    losses_of(model, two_images())  # looks for what need not run
    return model


def test_positive_locations_are_those_of_the_box_loss_of_yolox():
    model = positive(yolox, YOLOX['reg'])
    head = model.student.bbox_head
    head.use_l1 = True
    calls = features_at(model, YOLOX['reg'])
    boxes = record(head.loss_l1)
    losses, masks = weights_seen(model, two_images())
    predicted = rows_of([x[-1][1] for x in calls[0]])
    mask = torch.cat([x.flatten(1) for x in masks['reg']], 1)
    assert 0 < mask.sum() < mask.numel()
    assert torch.equal(predicted[mask], boxes[0][0][0])
    assert_is_loop(model, losses, 'reg', calls, masks['reg'])


def test_positive_locations_are_those_of_the_box_loss_of_rtmdet():
    model = positive(rtmdet, RTMDET['reg'])
    head = model.student.bbox_head
    calls = features_at(model, RTMDET['reg'])
    boxes = record(head.loss_bbox)
    losses, masks = weights_seen(model, two_images())
    maps = [x[-1][1] for x in calls[0]]
    points = head.prior_generator.grid_priors(
        [x.shape[2:] for x in maps], device='cpu'
    )
    found = []
    for index, (x, at, mask) in enumerate(
        zip(maps, points, masks['reg'], strict=True)
    ):
        shown = rows_of([x])[mask.flatten(1)] * (8 << index)
        centres = at.expand(2, -1, 2)[mask.flatten(1)]
        found.append(distance2bbox(centres, shown))
    assert sum(map(len, found)) > 0
    expected = [x[0][0] for x in boxes]
    torch.testing.assert_close(torch.cat(found), torch.cat(expected))
    assert_is_loop(model, losses, 'reg', calls, masks['reg'])


def test_a_regression_layer_counts_what_the_class_loss_counts(batch):
    """Or by weights, as RetinaNet's box loss does, objects alone."""
    kinds = {}
    for weights in ('uniform', 'positive'):
        tap = dict(layer='bbox_head.retina_reg', weights=weights)
        model = distil(
            retinanet(4), retinanet(8), dict(reg=tap), dict(reg=[PLAIN_L2])
        )
        losses = 'loss_cls', 'loss_bbox'
        given = [record(layer(model.student.bbox_head, x)) for x in losses]
        _, masks = weights_seen(model, batch)
        kinds[weights] = [x.flatten(1) for x in masks['reg']]
        index = ('uniform', 'positive').index(weights)
        expected = [
            x[0][2].view(2, y.shape[1], -1).bool().any(2)
            for x, y in zip(given[index], kinds[weights], strict=True)
        ]
        for one, other in zip(kinds[weights], expected, strict=True):
            assert torch.equal(one, other)
    assert any((x != y).any() for x, y in zip(*kinds.values(), strict=True))


def test_positive_needs_labels_of_each_level(batch):
    model = distil(
        shrink('fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py', 4, neck=32),
        shrink('fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py', 8, neck=32),
        dict(reg=dict(layer='bbox_head.conv_reg', weights='positive')),
        dict(reg=[PLAIN_L2]),
    )
    with pytest.raises(ConfigError) as error:
        losses_of(model, batch)
    assert str(error.value) == (
        "taps.reg.weights: 'positive' needs a head of the student whose class "
        "loss gets the labels of each level; use 'balanced'"
    )


def test_levels_that_share_a_layer_are_recorded_once():
    models = [MMDET_MODELS.build(rtmdet()) for _ in '12']
    for model in models:
        model.init_weights()
        for index in (1, 2):
            model.bbox_head.rtm_cls[index] = model.bbox_head.rtm_cls[0]
    model = MODELS.build(
        dict(
            _scope_='mmrazor',
            type='FeatureMimicDistill',
            architecture=models[0],
            teacher=models[1],
            distiller=dict(
                type='LSHFMDistiller',
                taps=dict(cls=RTMDET['cls']),
                losses=dict(cls=LOSSES),
            ),
        )
    ).train()
    batch = images_of([(64, 64)] * 2)
    losses_of(model, batch)
    calls = [record(x.bbox_head.rtm_cls[0]) for x in models]
    seen = {}
    model.distiller.observers.append(lambda _, found: seen.update(found))
    losses_of(model, batch)
    levels = seen['cls'].levels
    assert [x.student.shape[-1] for x in levels] == [8, 4, 2]
    for one, (inputs, _), (others, _) in zip(levels, *calls, strict=True):
        assert torch.equal(one.student, inputs[0])
        assert torch.equal(one.teacher, others[0])
    std = model.teacher.bbox_head.rtm_cls[0].weight.std()
    hashes = model.distiller.distill_losses['loss_cls_lsh'].weight
    expected = random_projection(20, 16, float(std), 0)
    torch.testing.assert_close(hashes, expected)


def test_the_std_is_of_all_class_layers_together():
    model = distil(
        rtmdet(), rtmdet(), dict(cls=RTMDET['cls']), dict(cls=LOSSES)
    )
    teacher = MMDET_MODELS.build(rtmdet())
    for number, one in enumerate(teacher.bbox_head.rtm_cls, 1):
        torch.nn.init.normal_(one.weight, std=number)
    weights = [x.weight.flatten() for x in teacher.bbox_head.rtm_cls]
    loss = copy.deepcopy(model.distiller.distill_losses['loss_cls_lsh'])
    set_projection('loss', loss, teacher.bbox_head.rtm_cls, 'input')
    expected = random_projection(20, 16, float(torch.cat(weights).std()), 0)
    torch.testing.assert_close(loss.weight, expected)


def test_the_confidence_is_that_of_the_teachers_list():
    tap = dict(layer=RTMDET['cls'], weights='confidence')
    model = distil(rtmdet(), rtmdet(), dict(cls=tap), dict(cls=[PLAIN_L2]))
    calls = features_at(model, RTMDET['cls'])
    losses = losses_of(model, images_of([(64, 64)] * 2))
    square = [
        (s - t).square().mean(1).flatten(1)
        for s, t in zip(*map(last_inputs, calls), strict=True)
    ]
    scores = [x[-1][1].sigmoid().amax(1).flatten(1) for x in calls[1]]
    scores = torch.cat(scores, 1)
    shares = scores / scores.sum(1, keepdim=True) / 2
    expected = (torch.cat(square, 1) * shares).sum()
    torch.testing.assert_close(losses['distill.loss_cls_featurel2'], expected)


def test_levels_of_several_widths():
    """YOLOv3: a connector has a convolution for each, LSHLoss has one set."""
    models = small_yolov3(4, 8)
    tap = dict(pred='bbox_head.convs_pred')
    model = distil(
        *models,
        tap,
        dict(pred=[L2]),
        connectors=dict(pred=dict(type='ConvConnector')),
    )
    connector = model.distiller.connectors['pred']
    widths = [
        [x.in_channels for x in head.bbox_head.convs_pred]
        for head in (model.student, model.teacher)
    ]
    assert len({*widths[0]}) == 3
    assert [x.in_channels for x in connector.convs] == widths[0]
    assert [x.out_channels for x in connector.convs] == widths[1]
    losses = losses_of(model, two_images())
    losses['distill.loss_pred_l2'].backward()
    assert all(x.weight.grad.any() for x in connector.convs)
    with pytest.raises(ConfigError) as error:
        distil(models[0], models[0], tap, dict(pred=[dict(type='LSHLoss')]))
    assert str(error.value) == (
        f'loss_pred_lsh: has one set of hash functions, but the levels of the '
        f'teacher there are {widths[0]} wide; take RelativeL2Loss, or a tap '
        f'for each level'
    )


def test_a_tower_is_no_list_of_levels(batch):
    model = distil(
        retinanet(4),
        retinanet(4),
        dict(tower='bbox_head.cls_convs'),
        dict(tower=[PLAIN_L2]),
    )
    with pytest.raises(ConfigError) as error:
        losses_of(model, batch)
    assert str(error.value) == (
        'taps.tower: the layer there is a list of 4, which gave 20 features; '
        'only one with a layer for each level is a tap, else tap one of its '
        'layers'
    )


# make_config


@pytest.mark.parametrize('kind', PAIRS)
def test_make_config_taps_the_list(kind, write, capsys):  # noqa: F811
    make, taps = PAIRS[kind]
    cfg = write(make(24), make(), tap='dense')
    assert cfg.model.type == 'FeatureMimicDistill'
    assert cfg.model.distiller.taps == dict(cls=taps['cls'])
    width = make().bbox_head.feat_channels
    assert cfg.model.distiller.connectors.cls == dict(
        type='ConvConnector', in_channels=width, out_channels=24
    )
    line = '# Both classify the locations of strides [8, 16, 32], by a layer'
    assert f'{line} each.\n' in cfg.text


def test_make_config_says_why_lists_do_not_fit(write):  # noqa: F811
    for teacher, student, reason in (
        (rtmdet(kernel=3), rtmdet(), 'windows differ, 1 and 3'),
        (rtmdet(), retinanet(4), r'levels differ, \[8, 16, 32, 64, 128'),
        (*small_yolov3(4, 4), 'widths change from level to level'),
    ):
        with pytest.raises(ConfigError, match=f'dense: {reason}'):
            write(teacher, student, tap='dense')


# Whole trainings


def save_teacher(make, file):
    """Weights whose norms know how large features are, as trained ones do."""
    with forked_rng():
        torch.manual_seed(1)
        model = MMDET_MODELS.build(make()).train()
        for one in model.modules():
            if isinstance(one, torch.nn.BatchNorm2d):
                one.momentum = 1.0
        data = model.data_preprocessor(images_of([(64, 64)] * 4))
        model(data['inputs'], None, mode='tensor')
        torch.save({'state_dict': model.state_dict()}, file)


def config_of(kind, make_config, tmp_path, weight):
    """A distillation of shapes, and the plain training of its student."""
    plain = make_config('retinanet_student')
    make, taps = PAIRS[kind]
    plain.model = make()
    plain.work_dir = str(tmp_path)
    plain.train_cfg.update(max_epochs=2, val_interval=2)
    plain.train_dataloader.batch_size = 4
    plain.default_hooks.checkpoint.update(interval=1)
    plain.param_scheduler = []
    plain.custom_hooks = [dict(type='lshfm_mm.hooks.ExactResumeHook')]
    plain.optim_wrapper.optimizer.lr = 0.01
    ours = distilled(plain, tmp_path, weight=weight)
    save_teacher(make, ours.model.teacher_ckpt)
    both = [
        dict(type='LSHLoss', std=0.5, bias='median', loss_weight=weight),
        dict(type='RelativeL2Loss', loss_weight=weight),
    ]
    distiller = ours.model.distiller
    distiller.taps = {
        name: dict(layer=at, normalize=True) for name, at in taps.items()
    }
    distiller.losses = dict.fromkeys(taps, both)
    ours.custom_hooks.append(dict(type='LSHCalibrationHook'))
    return ours, plain


@pytest.mark.parametrize('kind', PAIRS)
def test_class_and_regression_layers_of_all_levels(
    kind, make_config, tmp_path
):
    """A whole training: it learns, resumes bit for bit, and is exported."""
    ours, _ = config_of(kind, make_config, tmp_path, 1)
    run = trained(ours, 'ours')
    logs = run.message_hub.log_scalars
    for tap in PAIRS[kind][1]:
        for loss in ('lsh', 'relativel2'):
            values, _ = logs[f'train/distill.loss_{tap}_{loss}'].data
            assert len(values) == 6 and np.isfinite(values).all()
        values, _ = logs[f'train/distill.loss_{tap}_lsh'].data
        assert values[-3:].mean() < values[:3].mean()
    first = str(tmp_path / 'ours/epoch_1.pth')
    again = trained(ours, 'again', first)
    assert_same(left_behind(run), left_behind(again))
    out = str(tmp_path / 'student.pth')
    export_student(str(tmp_path / 'ours/epoch_2.pth'), out)
    student = MMDET_MODELS.build(ours.model.architecture)
    student.load_state_dict(torch.load(out, weights_only=True)['state_dict'])


@pytest.mark.parametrize('kind', PAIRS)
def test_weight_zero_is_plain_training(kind, make_config, tmp_path):
    runs = config_of(kind, make_config, tmp_path, 0)
    names = 'ours', 'plain'
    assert_same(
        *(left_behind(trained(x, n)) for x, n in zip(runs, names, strict=True))
    )
