"""What can be a tap: layers of two names, nested outputs, any call."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmpretrain.models.heads import LinearClsHead
from mmrazor.models.task_modules import RecorderManager
from torch import nn

from lshfm_mm.distillers.records import Records
from lshfm_mm.distillers.taps import Tap
from lshfm_mm.errors import ConfigError
from lshfm_mm.pairing.inspect import inspect_config

from .conftest import mmdet_config
from .test_classification import classifier
from .test_detectors import distil, losses_of

L2 = [dict(type='FeatureL2Loss')]


def rtmdet(widen):
    """RTMDet: its head shares convolutions between levels."""
    model = mmdet_config('rtmdet/rtmdet_tiny_8xb32-300e_coco.py').model
    model.backbone.update(widen_factor=widen, init_cfg=None)
    channels = [int(x * widen) for x in (256, 512, 1024)]
    model.neck.update(in_channels=channels, out_channels=channels[0])
    model.bbox_head.update(
        in_channels=channels[0], feat_channels=channels[0], num_classes=6
    )
    return model


def test_a_layer_of_two_names_is_tapped_by_either(batch):
    values = []
    for name in (
        'bbox_head.cls_convs.0.1.conv',
        'bbox_head.cls_convs.2.1.conv',
    ):
        model = distil(
            rtmdet(0.0625), rtmdet(0.0625), dict(cls=name), dict(cls=L2)
        )
        heads = model.student.bbox_head.cls_convs
        assert heads[2][1].conv is heads[0][1].conv
        seen = []
        model.distiller.observers.append(lambda _, x, to=seen: to.append(x))
        values.append(losses_of(model, batch)['distill.loss_cls_featurel2'])
        assert len(seen[0]['cls'].levels) == 3  # each level passes it
    assert values[0] == values[1] != 0
    with pytest.raises(ConfigError) as error:
        distil(
            rtmdet(0.0625),
            rtmdet(0.0625),
            dict(cls='bbox_head.cls_convs.2.7.conv'),
            dict(cls=L2),
        )
    assert "no layer 'bbox_head.cls_convs.2.7.conv'; did you" in str(error)


class Layer(nn.Module):
    def __init__(self, given):
        super().__init__()
        self.given = given

    def forward(self, x):
        return self.given(x)


def recorded(given):
    """Features at a tap on a layer that gives something of a tensor."""
    model = nn.Sequential(Layer(given))
    output = dict(_scope_='mmrazor', type='ModuleOutputs', source='0')
    manager = RecorderManager(dict(tap=output))
    manager.initialize(model)
    tap = Tap('0', '0', 'output')
    with manager:
        model(torch.ones(1, 2))
    return Records(dict(tap=tap), manager, manager).features('tap')


@pytest.mark.parametrize(
    'given',
    [
        lambda x: dict(maps=[x, dict(last=(x + 1,))], size=(3, 4), mask=x > 0),
        lambda x: [[x], (x + 1, None), x.long()],
        lambda x: (x, x + 1),
    ],
    ids=['dict', 'lists', 'tuple'],
)
def test_features_are_found_however_deep_they_lie(given):
    first, second = recorded(given)
    assert first.eq(1).all() and second.eq(2).all()


def test_what_has_no_features_is_one_line():
    with pytest.raises(ConfigError) as error:
        recorded(lambda x: SimpleNamespace(x=x))
    assert str(error.value) == (
        'taps.tap: the output of its layer is a SimpleNamespace without '
        'features; tap a layer in it'
    )


def test_a_layer_that_is_called_by_keyword_is_found(monkeypatch):
    monkeypatch.setattr(
        LinearClsHead,
        'forward',
        lambda self, x: self.fc(input=self.pre_logits(x)),
    )
    view = inspect_config('student', Config(dict(model=classifier(4))))
    assert (view.pooled.name, view.pooled.width) == ('head.fc', 32)
