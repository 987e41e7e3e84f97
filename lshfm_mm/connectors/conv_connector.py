"""A connector of maps."""

from collections.abc import Sequence
from typing import Any

from mmrazor.models.architectures.connectors.base_connector import (
    BaseConnector,
)
from mmrazor.registry import MODELS
from torch import Tensor, nn

from ..errors import ConfigError, check_int

Widths = int | Sequence[int | None] | None


@MODELS.register_module()
class ConvConnector(BaseConnector):
    """A 1 x 1 convolution from the student's channels to the teacher's.

    One convolution serves all levels of a pyramid. Where the widths differ
    from level to level, as in SSD or YOLOv3, each level has its own.

    Args:
        in_channels (int | list[int], optional): Channels of the student. A
            list gives each level a convolution of its own; a level whose
            entry is None stays as it is. Defaults to those of the tapped
            layer.
        out_channels (int | list[int], optional): Channels of the teacher,
            likewise.
        bias (bool): Whether the convolution has a bias. Defaults to True.
        init_cfg (dict, optional): MMEngine's.

    Raises:
        ConfigError: If a width is not an int >= 1, or the lists differ in
            length.
    """

    convs: nn.ModuleList

    def __init__(
        self,
        in_channels: Widths = None,
        out_channels: Widths = None,
        bias: bool = True,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.bias = bias
        for field in ('in_channels', 'out_channels'):
            widths = getattr(self, field)
            for width in widths if isinstance(widths, Sequence) else [widths]:
                if width is not None:
                    check_int(f'ConvConnector.{field}', width)
        if in_channels is not None and out_channels is not None:
            self.set_widths(None, None)

    @property
    def is_ready(self) -> bool:
        """Whether all widths are known."""
        return hasattr(self, 'convs')

    @property
    def out_width(self) -> int | None:
        """Channels of the teacher; None where levels differ."""
        first: Any = self.convs[0]
        return None if self.per_level else first.out_channels

    @property
    def own(self) -> list[int]:
        """Indices of the levels with a convolution of their own."""
        convs = self.convs if self.per_level else ()
        return [i for i, x in enumerate(convs) if isinstance(x, nn.Conv2d)]

    def set_widths(
        self, student: list[int] | None, teacher: list[int] | None
    ) -> None:
        """Fill in what the config does not give.

        Layers give the channels of each level, or None where they do not tell.

        Raises:
            ConfigError: If channels cannot be known, or the numbers of
                levels differ.
        """
        columns = [
            self._levels('in_channels', student),
            self._levels('out_channels', teacher),
        ]
        lengths = {len(x) for x in columns if isinstance(x, Sequence)}
        if len(lengths) > 1:
            raise ConfigError(
                f'ConvConnector: the student has channels {columns[0]} and '
                f'the teacher {columns[1]}; give both for the same levels, '
                f'None for one without a partner'
            )
        self.per_level = bool(lengths)
        count = lengths.pop() if lengths else 1
        pairs = zip(
            *(x if isinstance(x, Sequence) else [x] * count for x in columns),
            strict=True,
        )
        self.convs = nn.ModuleList(
            nn.Identity()
            if width is None or target is None
            else nn.Conv2d(width, target, 1, bias=self.bias)
            for width, target in pairs
        )

    def _levels(
        self, field: str, found: list[int] | None
    ) -> int | Sequence[int | None]:
        widths = getattr(self, field)
        if widths is None and found:
            widths = found if len({*found}) > 1 else found[0]
        if widths is None:
            raise ConfigError(
                f'ConvConnector.{field}: cannot be read off the tapped layer; '
                f'give it'
            )
        return widths

    def forward_levels(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Map levels, (N, in_channels, H, W) -> (N, out_channels, H, W).

        Raises:
            ConfigError: If a feature is no map, or each level has a
                convolution of its own, and there are more or fewer of them.
        """
        for feature in features:
            if feature.dim() != 4:  # of 3, torch makes one image
                raise ConfigError(
                    f'ConvConnector: takes maps, (B, C, H, W), but got '
                    f'{tuple(feature.shape)}; take LinearConnector, or put '
                    f'TokensToMap before it'
                )
        convs = [*self.convs] * (1 if self.per_level else len(features))
        if len(convs) != len(features):
            raise ConfigError(
                f'ConvConnector: has widths for {len(convs)} levels, but the '
                f'student gives {len(features)}; give one for each'
            )
        return [conv(x) for conv, x in zip(convs, features, strict=True)]

    def forward_train(self, feature: Tensor) -> Tensor:
        """Map one map, (N, in_channels, H, W) -> (N, out_channels, H, W)."""
        return self.forward_levels([feature])[0]
