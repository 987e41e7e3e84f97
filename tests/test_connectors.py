"""Connectors: from the student's width to the teacher's, level by level."""

import copy

import pytest
import torch
import torch.nn.functional as F
from mmdet.registry import MODELS as MMDET_MODELS
from mmengine.config import Config
from mmengine.runner import Runner
from mmrazor.registry import MODELS
from torch import nn

from lshfm_mm.connectors import ConvConnector, LinearConnector
from lshfm_mm.distillers.taps import widths_of
from lshfm_mm.errors import ConfigError
from lshfm_mm.pairing import write_config

from .conftest import mmdet_config
from .test_detectors import (
    NECK,
    PLAIN_L2,
    distil,
    losses_of,
    record,
    retinanet,
)
from .test_training import epochs

CLASS_LAYER = dict(cls='bbox_head.retina_cls')


def build(**cfg):
    return MODELS.build(dict(_scope_='mmrazor', **cfg))


@pytest.mark.parametrize(
    ('given', 'expected'),
    [
        (dict(), (3, 5)),
        (dict(in_features=3), (3, 5)),
        (dict(out_features=5), (3, 5)),
        (dict(in_features=4, out_features=6), (4, 6)),
    ],
)
def test_a_linear_connector_fills_in_what_is_not_given(given, expected):
    connector = build(type='LinearConnector', **given)
    assert connector.is_ready == (len(given) == 2)
    if not connector.is_ready:
        connector.set_widths([3], [5])
    x = torch.randn(7, expected[0])
    linear = connector.linear
    assert linear.weight.shape == expected[::-1]
    torch.testing.assert_close(connector(x), F.linear(x, *linear.parameters()))


def test_one_convolution_serves_all_levels_of_one_width():
    connector = ConvConnector()
    connector.set_widths([3, 3, 3], [5])
    maps = [torch.randn(2, 3, x, x) for x in (8, 4, 1)]
    (conv,) = connector.convs
    for x, y in zip(maps, connector.forward_levels(maps), strict=True):
        expected = torch.einsum('oi,nihw->nohw', conv.weight[..., 0, 0], x)
        torch.testing.assert_close(y, expected + conv.bias[:, None, None])
        torch.testing.assert_close(connector(x), y)
    assert connector.own == []


@pytest.mark.parametrize(
    'given',
    [
        dict(in_channels=[3, 4, None], out_channels=[5, 6, None]),
        dict(in_channels=[3, 4, None], out_channels=5),
        dict(out_channels=[5, 6, None], bias=False),
    ],
)
def test_a_level_of_its_own_width_has_a_convolution_of_its_own(given):
    connector = build(type='ConvConnector', **given)
    if not connector.is_ready:
        connector.set_widths([3, 4, 2], None)
    maps = [torch.randn(2, c, 4, 4) for c in (3, 4, 2)]
    out = connector.forward_levels(maps)
    targets = given['out_channels']
    targets = [targets] * 2 if isinstance(targets, int) else targets[:2]
    assert [x.shape[1] for x in out[:2]] == targets
    assert out[2] is maps[2]
    assert connector.own == [0, 1]
    for conv, x, y in zip(connector.convs[:2], maps, out, strict=False):
        torch.testing.assert_close(y, F.conv2d(x, conv.weight, conv.bias))
        assert (conv.bias is None) == ('bias' in given)
    with pytest.raises(ConfigError, match='widths for 3 levels, but the stu'):
        connector.forward_levels(maps[:2])


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (
            lambda: LinearConnector(in_features=0),
            'LinearConnector.in_features: must be an int >= 1, but got 0',
        ),
        (
            lambda: ConvConnector(out_channels=[4, 'a']),
            "ConvConnector.out_channels: must be an int >= 1, but got 'a'",
        ),
        (
            lambda: LinearConnector().set_widths(None, [4]),
            'LinearConnector.in_features: cannot be read off the tapped',
        ),
        (
            lambda: LinearConnector().set_widths([4], [4, 5]),
            'LinearConnector.out_features: cannot be read off the tapped',
        ),
        (
            lambda: ConvConnector(in_channels=4).set_widths([4], None),
            'ConvConnector.out_channels: cannot be read off the tapped',
        ),
        (
            lambda: ConvConnector([4, 5], [4, 5, 6]),
            'ConvConnector: the student has channels .4, 5. and the teacher',
        ),
    ],
)
def test_wrong_widths_are_an_error(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_the_distiller_fills_in_the_widths_of_both_models(batch):
    """At a class layer and at necks, without touching the random state."""
    student, teacher = retinanet(4, neck=8), retinanet(8)
    for layer, tap in (('cls', CLASS_LAYER['cls']), ('fpn', NECK)):
        torch.manual_seed(3)
        model = distil(
            student,
            teacher,
            {layer: tap},
            {layer: [PLAIN_L2]},
            connectors={layer: dict(type='ConvConnector')},
        )
        (conv,) = model.distiller.connectors[layer].convs
        assert conv.weight.shape == (16, 8, 1, 1)
        loss = losses_of(model, batch)[f'distill.loss_{layer}_featurel2']
        loss.backward()
        assert all(x.grad.any() for x in conv.parameters())


def test_a_width_that_no_layer_tells_must_be_given():
    with pytest.raises(ConfigError) as error:
        distil(
            retinanet(4),
            retinanet(8),
            dict(stem=dict(layer='backbone.layer1', record='output')),
            dict(stem=[PLAIN_L2]),
            connectors=dict(stem=dict(type='ConvConnector')),
        )
    assert str(error.value) == (
        'connectors.stem: ConvConnector.in_channels: cannot be read off the '
        'tapped layer; give it'
    )


def yolov3(width):
    """YOLOv3, whose levels have widths of their own, with few channels."""
    model = mmdet_config('yolo/yolov3_d53_8xb8-320-273e_coco.py').model
    model.backbone.init_cfg = None
    model.neck.out_channels = [4 * width, 2 * width, width]
    model.bbox_head.update(
        num_classes=6,
        in_channels=model.neck.out_channels,
        out_channels=[8, 8, 8],
    )
    return model


def test_each_level_of_yolov3_gets_a_convolution(batch):
    model = distil(
        yolov3(4),
        yolov3(6),
        dict(fpn=NECK),
        dict(fpn=[PLAIN_L2]),
        connectors=dict(fpn=dict(type='ConvConnector')),
    )
    convs = model.distiller.connectors['fpn'].convs
    assert [tuple(x.weight.shape[:2]) for x in convs] == [
        (24, 16),
        (12, 8),
        (6, 4),
    ]
    calls = [record(x.neck) for x in (model.student, model.teacher)]
    loss = losses_of(model, batch)['distill.loss_fpn_featurel2']
    students, teachers = (x[0][1] for x in calls)
    expected = sum(
        (conv(s) - t).square().mean()
        for conv, s, t in zip(convs, students, teachers, strict=True)
    )
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert all(x.grad.any() for x in convs.parameters())


def test_a_convolution_without_a_partner_is_an_error(batch):
    """DDP would wait for its gradient."""
    model = distil(
        yolov3(4),
        yolov3(6),
        dict(fpn=NECK),
        dict(fpn=[PLAIN_L2]),
        connectors=dict(fpn=dict(type='ConvConnector')),
    )
    # Before the recorder, which comes next.
    hooks = model.teacher.neck._forward_hooks
    hook = model.teacher.neck.register_forward_hook(lambda _, x, y: y[:2])
    hooks.move_to_end(hook.id, last=False)
    message = r'has convolutions for the levels \[2\] of the student, which h'
    with pytest.raises(ConfigError, match=message):
        losses_of(model, batch)


def test_make_config_writes_a_convolution_for_each_level(tmp_path):
    """As for YOLOv3 of two widths; the config trains."""
    for name, width in (('teacher', 6), ('student', 4)):
        cfg = Config(dict(model=yolov3(width), default_scope='mmdet'))
        cfg.dump(tmp_path / f'{name}.py')
    torch.manual_seed(0)
    built = MMDET_MODELS.build(yolov3(6))
    torch.save(dict(state_dict=built.state_dict()), tmp_path / 'teacher.pth')
    chosen = write_config(
        *(str(tmp_path / f'{x}.py') for x in ('teacher', 'student')),
        str(tmp_path / 'distil.py'),
        str(tmp_path / 'teacher.pth'),
        tap='fpn',
    )
    assert 'without LSH, since widths change from level to level' in chosen
    cfg = Config.fromfile(tmp_path / 'distil.py')
    assert cfg.model.distiller.connectors.fpn == dict(
        type='ConvConnector', in_channels=[16, 8, 4], out_channels=[24, 12, 6]
    )
    MODELS.build(cfg.model)


def test_widths_of_layers():
    assert widths_of(nn.Linear(3, 4), 'input') == [3]
    assert widths_of(nn.Conv2d(3, 4, 1), 'output') == [4]
    assert widths_of(MMDET_MODELS.build(yolov3(4).neck), 'output') == [
        16,
        8,
        4,
    ]
    assert widths_of(nn.ReLU(), 'input') is None


def test_necks_of_several_widths_need_a_connector_only_where_none_fits():
    """Levels are paired by shape: some may fit, others are left out."""
    tap, loss = dict(fpn=NECK), dict(fpn=[PLAIN_L2])
    message = r'is \[16, 8, 4\] wide and the teacher \[24, 12, 6\]; add to'
    with pytest.raises(ConfigError, match=message):
        distil(yolov3(4), yolov3(6), tap, loss)
    distil(yolov3(4), retinanet(8), tap, loss)
    other = yolov3(6)
    other.neck.out_channels = other.bbox_head.in_channels = [24, 8, 6]
    distil(yolov3(4), other, tap, loss)


def test_the_model_can_be_copied_at_any_time_of_a_training(make_config):
    """With all hooks that our tools add, as EMA does, and users' hooks."""
    copies = []

    def after(self, runner, *args, **kwargs):
        copies.append(copy.deepcopy(runner.model))

    types = ['FirstBatchAuditHook', 'NonFiniteHook', 'AlignmentHook']
    types += ['LossScaleHook', 'ExactResumeHook']
    changes = {
        **epochs(1),
        'custom_hooks': [dict(type=x) for x in types],
        'model.distiller.connectors': dict(
            roi=dict(type='LinearConnector', in_features=256, out_features=256)
        ),
    }
    cfg = make_config('faster_rcnn_lshfm', changes)
    cfg.experiment_name = cfg.work_dir
    runner = Runner.from_cfg(cfg)
    for hook in runner.hooks:
        if type(hook).__name__ == 'AlignmentHook':
            hook.__class__ = type('Copies', (type(hook),), {})
            hook.__class__.after_train_iter = after
    runner.train()
    assert len(copies) == runner.iter > 2
    state = runner.model.state_dict()
    for key, value in copies[-1].state_dict().items():
        assert torch.equal(value, state[key])
    data = runner.model.data_preprocessor(
        next(iter(runner.train_dataloader)), True
    )
    copies[0].train()
    losses = copies[0].student(**data, mode='loss')
    assert losses and copies[0].teacher is runner.model.teacher
