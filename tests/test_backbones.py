"""The networks of the CIFAR-100 benchmark, as its configs build them."""

import math
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmpretrain.registry import MODELS as MMPRETRAIN
from torch import nn
from torch.nn import functional as F

from lshfm_mm.backbones import cifar as backbones
from lshfm_mm.errors import ConfigError
from lshfm_mm.pairing.inspect import build_model
from lshfm_mm.utils.rng import forked_rng

CONFIGS = Path(__file__).parent.parent / 'configs/cifar100'
# Parameters with the classifier of 100 classes, and the side of the last map.
NETWORKS = {
    'resnet20': (278_324, 8),
    'resnet32': (472_756, 8),
    'resnet56': (861_620, 8),
    'resnet110': (1_736_564, 8),
    'resnet8x4': (1_233_540, 8),
    'resnet32x4': (7_433_860, 8),
    'wrn-16-2': (703_284, 8),
    'wrn-40-1': (569_780, 8),
    'wrn-40-2': (2_255_156, 8),
    'vgg8': (3_965_028, 4),
    'vgg13': (9_462_180, 4),
    'mobilenet-v2': (812_836, 2),
    'shufflenet-v1': (949_258, 4),
    'shufflenet-v2': (1_355_528, 4),
    'resnet50': (23_705_252, 4),
}


@pytest.mark.parametrize('name', NETWORKS)
def test_a_network_is_the_benchmarks(name):
    model = build_model(
        'model', Config.fromfile(CONFIGS / f'{name}_cifar100.py')
    ).train()
    count, side = NETWORKS[name]
    assert sum(x.numel() for x in model.parameters()) == count
    images = torch.randn(
        2, 3, 32, 32, generator=torch.Generator().manual_seed(0)
    )
    maps = model.backbone(images)
    assert [x.shape for x in maps] == [
        (2, model.head.fc.in_features, side, side)
    ]
    assert maps[0].min() == 0  # after the last ReLU
    (feature,) = model.neck(maps)
    torch.testing.assert_close(feature, maps[0].mean((2, 3)))
    scores = model.head((feature,))
    assert scores.shape == (2, 100)
    scores.square().sum().backward()
    without = [k for k, x in model.named_parameters() if x.grad is None]
    assert without == []


@pytest.mark.parametrize(
    'name', [x for x in dir(backbones) if x.startswith('CIFAR')]
)
def test_mmpretrain_finds_them(name):
    assert MMPRETRAIN.get(name) is getattr(backbones, name)


@pytest.mark.parametrize('name', ['resnet8x4', 'wrn-16-2', 'mobilenet-v2'])
def test_convolutions_start_normal_by_their_fan_out(name):
    model = build_model(
        'model', Config.fromfile(CONFIGS / f'{name}_cifar100.py')
    )
    with forked_rng():
        torch.manual_seed(0)
        model.init_weights()
    for layer in model.backbone.modules():
        if isinstance(layer, nn.Conv2d):
            fan_out = layer.out_channels * math.prod(layer.kernel_size)
            weight = layer.weight * math.sqrt(fan_out / 2)
            tolerance = 5 / math.sqrt(2 * weight.numel())  # 5 sigma
            assert weight.std().item() == pytest.approx(1, abs=tolerance)
            assert weight.max() > math.sqrt(3) or weight.numel() < 100
        elif isinstance(layer, nn.BatchNorm2d):
            assert (layer.weight == 1).all() and (layer.bias == 0).all()


@pytest.mark.parametrize(
    ('kind', 'depth', 'message'),
    [
        ('CIFARResNet', 21, 'depth: must be 6n + 2, but got 21; take 20'),
        ('CIFARResNet', 2, 'depth: must be 6n + 2, but got 2; take 8'),
        ('CIFARWideResNet', 20, 'depth: must be 6n + 4, but got 20; take 16'),
        ('CIFARVGG', 16, 'depth: must be 8 or 13, but got 16'),
    ],
)
def test_a_depth_that_there_is_not(kind, depth, message):
    arguments = {'widen_factor': 2} if kind == 'CIFARWideResNet' else {}
    with pytest.raises(ConfigError) as error:
        getattr(backbones, kind)(depth, **arguments)
    assert str(error.value) == message


def test_blocks_compute_what_the_benchmarks_do():
    """In eval mode with fresh statistics batch norm divides by a constant."""

    def conv(x, layer, **kwargs):
        return F.conv2d(x, layer.weight, **kwargs)

    def normed(x, layer, **kwargs):
        return conv(x, layer[0], **kwargs) / scale

    scale = math.sqrt(1 + 1e-5)
    x = torch.randn(2, 24, 6, 6, generator=torch.Generator().manual_seed(0))

    block = backbones.PreActBlock(24, 8, 2).eval()
    active = (x / scale).relu()
    y = normed(active, block.branch[0], stride=2, padding=1).relu()
    expected = conv(y, block.branch[1], padding=1)
    expected = expected + conv(active, block.shortcut, stride=2)
    torch.testing.assert_close(block(x), expected)

    block = backbones.PreActBlock(24, 24, 1).eval()
    y = normed(active, block.branch[0], padding=1).relu()
    expected = x + conv(y, block.branch[1], padding=1)
    torch.testing.assert_close(block(x), expected)

    for outs, stride in ((24, 1), (8, 1), (24, 2)):
        block = backbones.InvertedResidual(24, outs, stride).eval()
        y = normed(x, block.branch[0]).relu()
        y = normed(y, block.branch[1], stride=stride, padding=1, groups=144)
        expected = normed(y.relu(), block.branch[2])
        if (outs, stride) == (24, 1):
            expected = expected + x
        torch.testing.assert_close(block(x), expected)

    x = x.repeat(1, 2, 1, 1)  # no longer as wide as the network's first
    for outs, stride, narrow in ((48, 1, 12), (96, 2, 12)):
        block = backbones.ShuffleUnitV1(48, outs, stride).eval()
        y = normed(x, block.branch[0], groups=3).relu()
        # One channel of each group in turn.
        turns = [j * narrow // 3 + i for i in range(4) for j in range(3)]
        y = normed(
            y[:, turns],
            block.branch[2],
            stride=stride,
            padding=1,
            groups=narrow,
        )
        y = normed(y.relu(), block.branch[3], groups=3)
        if stride == 1:
            expected = x + y
        else:
            expected = torch.cat((y, F.avg_pool2d(x, 3, 2, 1)), 1)
        torch.testing.assert_close(block(x), expected.relu())
