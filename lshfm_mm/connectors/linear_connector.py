"""A connector of features of samples."""

from mmrazor.models.architectures.connectors.base_connector import (
    BaseConnector,
)
from mmrazor.registry import MODELS
from torch import Tensor, nn

from ..errors import ConfigError, check_int


@MODELS.register_module()
class LinearConnector(BaseConnector):
    """A linear layer from the student's width to the teacher's.

    Args:
        in_features (int, optional): Width of the student. Defaults to that
            of the tapped layer.
        out_features (int, optional): Width of the teacher, likewise.
        bias (bool): Whether the layer has a bias. Defaults to True.
        init_cfg (dict, optional): MMEngine's.

    Raises:
        ConfigError: If a width is not an int >= 1.
    """

    def __init__(
        self,
        in_features: int | None = None,
        out_features: int | None = None,
        bias: bool = True,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.widths = in_features, out_features
        for field, width in zip(
            ('in_features', 'out_features'), self.widths, strict=True
        ):
            if width is not None:
                check_int(f'LinearConnector.{field}', width)
        self.bias = bias
        if in_features is not None and out_features is not None:
            self.linear = nn.Linear(in_features, out_features, bias)

    @property
    def is_ready(self) -> bool:
        """Whether both widths are known."""
        return hasattr(self, 'linear')

    @property
    def out_width(self) -> int:
        """Width of the teacher, where both are known."""
        return self.linear.out_features

    def set_widths(
        self, student: list[int] | None, teacher: list[int] | None
    ) -> None:
        """Fill in what the config does not give.

        Layers give the width of each level, or None where they do not tell.

        Raises:
            ConfigError: If a width cannot be known.
        """
        found = []
        for field, width, levels in zip(
            ('in_features', 'out_features'),
            self.widths,
            (student, teacher),
            strict=True,
        ):
            if width is None and levels and len({*levels}) == 1:
                width = levels[0]
            if width is None:
                raise ConfigError(
                    f'LinearConnector.{field}: cannot be read off the tapped '
                    f'layer; give it'
                )
            found.append(width)
        self.linear = nn.Linear(found[0], found[1], self.bias)

    def forward_train(self, feature: Tensor) -> Tensor:
        """Map features, (..., in_features) -> (..., out_features).

        Raises:
            ConfigError: If they are maps.
        """
        if feature.dim() == 4:
            raise ConfigError(
                f'LinearConnector: takes features, (N, D), or tokens, (B, L, '
                f'C), but got maps {tuple(feature.shape)}; take '
                f'ConvConnector, or put LinearConnector before TokensToMap'
            )
        return self.linear(feature)
