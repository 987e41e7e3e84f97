"""Networks of the common benchmark of distillation on CIFAR-100.

They are those of "Contrastive Representation Distillation" (Tian, Krishnan,
Isola; ICLR 2020; github.com/HobbitLong/RepDistiller). Each takes images of
32 x 32 pixels and gives its last map, after the last ReLU; the mean over the
map is the feature that the linear classifier reads. The benchmark's ResNet50
is mmpretrain's ``ResNet_CIFAR`` with ``zero_init_residual=False``.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from mmengine.model import Sequential
from mmengine.registry import MODELS
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock
from torchvision.models.shufflenetv2 import InvertedResidual as ShuffleUnitV2
from torchvision.ops import Conv2dNormActivation as ConvNorm

from ..errors import ConfigError

KAIMING = dict(type='Kaiming', layer='Conv2d')  # normal, by the fan out
STEM = 24  # channels of a ShuffleNet's first layer
Block = Callable[[int, int, int], nn.Module]  # of channels in, out, stride


class Chain(Sequential):
    """Layers by their names, one after the other; gives the last map."""

    def __init__(
        self, init_cfg: dict[str, Any] | None, **layers: nn.Module
    ) -> None:
        super().__init__(OrderedDict(layers), init_cfg=init_cfg)

    def forward(self, images: Tensor) -> tuple[Tensor]:
        """Map (N, 3, H, W) to (N, C, H / stride, W / stride)."""
        return (super().forward(images),)


@MODELS.register_module()
class CIFARResNet(Chain):
    """ResNet with 6n + 2 layers, stride 4 (He et al., CVPR 2016).

    Where the shape changes, the shortcut is a convolution with batch norm;
    the paper pads with zeros there.

    Args:
        depth (int): Number of layers, 6n + 2.
        widths (tuple[int]): Channels of the first layer and of the three
            stages. The benchmark's "x4" has (32, 64, 128, 256). Defaults to
            (16, 16, 32, 64).
        init_cfg (dict, optional): Defaults to the benchmark's.

    Raises:
        ConfigError: If there is no ResNet of this depth.
    """

    def __init__(
        self,
        depth: int,
        widths: tuple[int, int, int, int] = (16, 16, 32, 64),
        init_cfg: dict[str, Any] | None = KAIMING,
    ) -> None:
        blocks = _blocks(depth, 2)
        stem, *stages = widths
        super().__init__(
            init_cfg,
            stem=ConvNorm(3, stem),
            **_stages(_residual, stem, stages, [blocks] * 3, (1, 2, 2)),
        )


@MODELS.register_module()
class CIFARWideResNet(Chain):
    """Wide ResNet of 6n + 4 layers, stride 4 (Zagoruyko, Komodakis, 2016).

    Args:
        depth (int): Number of layers, 6n + 4.
        widen_factor (int): Channels of the three stages over (16, 32, 64).
        init_cfg (dict, optional): Defaults to the benchmark's.

    Raises:
        ConfigError: If there is no wide ResNet of this depth.
    """

    def __init__(
        self,
        depth: int,
        widen_factor: int,
        init_cfg: dict[str, Any] | None = KAIMING,
    ) -> None:
        blocks = _blocks(depth, 4)
        stages = [16 * widen_factor, 32 * widen_factor, 64 * widen_factor]
        super().__init__(
            init_cfg,
            stem=nn.Conv2d(3, 16, 3, padding=1, bias=False),
            **_stages(PreActBlock, 16, stages, [blocks] * 3, (1, 2, 2)),
            norm=nn.BatchNorm2d(stages[-1]),
            relu=nn.ReLU(inplace=True),
        )


@MODELS.register_module()
class CIFARVGG(Chain):
    """VGG with batch norm and one linear layer, stride 8.

    From Simonyan, Zisserman (ICLR 2015); the last two stages have the same
    resolution.

    Args:
        depth (int): 8 or 13 layers, as the originals with three linear ones
            are counted.
        init_cfg (dict, optional): Defaults to the benchmark's.

    Raises:
        ConfigError: If the depth is another.
    """

    def __init__(
        self, depth: int, init_cfg: dict[str, Any] | None = KAIMING
    ) -> None:
        if depth not in (8, 13):
            raise ConfigError(f'depth: must be 8 or 13, but got {depth!r}')
        convs = (depth - 3) // 5
        stages = (64, 128, 256, 512, 512)
        super().__init__(
            init_cfg,
            **_stages(_pool_conv, 3, stages, [convs] * 5, (1, 2, 2, 2, 1)),
        )


@MODELS.register_module()
class CIFARMobileNetV2(Chain):
    """MobileNetV2, stride 16 (Sandler et al., CVPR 2018).

    The benchmark's has ReLU for ReLU6, expands with a layer even by 1, and
    does not round its widths. It gives 1280 channels, or more if wider.

    Args:
        widen_factor (float): Channels over the original's. Defaults to 0.5.
        init_cfg (dict, optional): Defaults to the benchmark's.
    """

    def __init__(
        self,
        widen_factor: float = 0.5,
        init_cfg: dict[str, Any] | None = KAIMING,
    ) -> None:
        stem, first, *stages = (
            int(x * widen_factor) for x in (32, 16, 24, 32, 64, 96, 160, 320)
        )
        counts, strides = (2, 3, 4, 3, 3, 1), (1, 2, 2, 1, 2, 1)
        super().__init__(
            init_cfg,
            stem=ConvNorm(3, stem, stride=2),
            first=InvertedResidual(stem, first, 1, expansion=1),
            **_stages(InvertedResidual, first, stages, counts, strides),
            last=ConvNorm(stages[-1], int(1280 * max(widen_factor, 1)), 1),
        )


@MODELS.register_module()
class CIFARShuffleNetV1(Chain):
    """ShuffleNet of 3 groups, 960 channels, stride 8 (Zhang et al., 2018).

    The benchmark's starts with a 1x1 convolution, without pooling, and has a
    ReLU after the depthwise convolutions.

    Args:
        init_cfg (dict, optional): Defaults to None: torch's initialisation,
            as in the benchmark.
    """

    def __init__(self, init_cfg: dict[str, Any] | None = None) -> None:
        super().__init__(
            init_cfg,
            stem=ConvNorm(3, STEM, 1),
            **_stages(
                ShuffleUnitV1, STEM, (240, 480, 960), (4, 8, 4), [2] * 3
            ),
        )


@MODELS.register_module()
class CIFARShuffleNetV2(Chain):
    """ShuffleNetV2 of 1024 channels, stride 8 (Ma et al., ECCV 2018).

    The benchmark's starts with a 1x1 convolution, without pooling.

    Args:
        init_cfg (dict, optional): Defaults to None: torch's initialisation,
            as in the benchmark.
    """

    def __init__(self, init_cfg: dict[str, Any] | None = None) -> None:
        super().__init__(
            init_cfg,
            stem=ConvNorm(3, STEM, 1),
            **_stages(
                ShuffleUnitV2, STEM, (116, 232, 464), (4, 8, 4), [2] * 3
            ),
            last=ConvNorm(464, 1024, 1),
        )


class PreActBlock(nn.Module):
    """Residual block with BN and ReLU before each convolution.

    Where the width changes, the shortcut starts after the first of them.
    """

    def __init__(self, ins: int, outs: int, stride: int) -> None:
        super().__init__()
        self.norm = nn.Sequential(nn.BatchNorm2d(ins), nn.ReLU(inplace=True))
        self.branch = nn.Sequential(
            ConvNorm(ins, outs, stride=stride),
            nn.Conv2d(outs, outs, 3, padding=1, bias=False),
        )
        self.shortcut: nn.Module | None = None
        if ins != outs:
            self.shortcut = nn.Conv2d(ins, outs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, ins, H, W) to (N, outs, H / stride, W / stride)."""
        active = self.norm(x)
        branch = self.branch(active)
        return branch + (x if self.shortcut is None else self.shortcut(active))


class InvertedResidual(nn.Module):
    """Block of MobileNetV2: widen, depthwise convolution, narrow.

    Between are ``expansion`` times the channels of the input.
    """

    def __init__(
        self, ins: int, outs: int, stride: int, expansion: int = 6
    ) -> None:
        super().__init__()
        wide = ins * expansion
        self.branch = nn.Sequential(
            ConvNorm(ins, wide, 1),
            ConvNorm(wide, wide, stride=stride, groups=wide),
            ConvNorm(wide, outs, 1, activation_layer=None),
        )
        self.is_residual = stride == 1 and ins == outs

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, ins, H, W) to (N, outs, H / stride, W / stride)."""
        branch = self.branch(x)
        return x + branch if self.is_residual else branch


class ShuffleUnitV1(nn.Module):
    """Unit of ShuffleNet: grouped 1x1, shuffle, depthwise, grouped 1x1.

    With stride 2 the input is pooled and stands beside the result, with
    stride 1 it is added. The first 1x1 of a network has no groups.
    """

    def __init__(self, ins: int, outs: int, stride: int) -> None:
        super().__init__()
        own = outs if stride == 1 else outs - ins
        narrow = own // 4
        first = 1 if ins == STEM else 3
        self.branch = nn.Sequential(
            ConvNorm(ins, narrow, 1, groups=first),
            nn.ChannelShuffle(first),
            ConvNorm(narrow, narrow, stride=stride, groups=narrow),
            ConvNorm(narrow, own, 1, groups=3, activation_layer=None),
        )
        self.pool = None if stride == 1 else nn.AvgPool2d(3, stride, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, ins, H, W) to (N, outs, H / stride, W / stride)."""
        branch = self.branch(x)
        if self.pool is None:
            return torch.relu(branch + x)
        return torch.relu(torch.cat((branch, self.pool(x)), 1))


def _blocks(depth: int, rest: int) -> int:
    """Blocks of two layers in each of three stages."""
    blocks, left = divmod(depth - rest, 6)
    if left or blocks < 1:
        raise ConfigError(
            f'depth: must be 6n + {rest}, but got {depth}; take '
            f'{6 * max(blocks, 1) + rest}'
        )
    return blocks


def _stages(
    block: Block,
    ins: int,
    widths: Iterable[int],
    counts: Iterable[int],
    strides: Iterable[int],
) -> dict[str, nn.Module]:
    """Stages of equal blocks, of which the first has the stride."""
    stages: dict[str, nn.Module] = {}
    for outs, count, stride in zip(widths, counts, strides, strict=True):
        stages[f'stage{len(stages) + 1}'] = nn.Sequential(
            block(ins, outs, stride),
            *(block(outs, outs, 1) for _ in range(1, count)),
        )
        ins = outs
    return stages


def _residual(ins: int, outs: int, stride: int) -> nn.Module:
    shortcut = None
    if stride != 1 or ins != outs:
        shortcut = ConvNorm(ins, outs, 1, stride, activation_layer=None)
    return BasicBlock(ins, outs, stride, shortcut)


def _pool_conv(ins: int, outs: int, stride: int) -> nn.Module:
    conv = ConvNorm(ins, outs, bias=True)
    return conv if stride == 1 else nn.Sequential(nn.MaxPool2d(stride), conv)
