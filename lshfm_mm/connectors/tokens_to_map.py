"""A connector of tokens."""

from collections.abc import Sequence

from mmrazor.models.architectures.connectors.base_connector import (
    BaseConnector,
)
from mmrazor.registry import MODELS
from torch import Tensor

from ..errors import ConfigError, check_int


@MODELS.register_module()
class TokensToMap(BaseConnector):
    """Turns the tokens of a transformer into maps.

    Of a ViT, class and register tokens stand in front and are left out. The
    memory of a DETR's encoder becomes a map for each level.

    Args:
        num_extra_tokens (int, optional): How many tokens in front are of no
            place. Defaults to what the grid leaves over.
        grid (str, optional): The layer of the model whose output, a map for
            each level, has the places of the tokens. Defaults to the
            positional encoding for a DETR's encoder, and else to the layer
            that cuts images into patches.
        init_cfg (dict, optional): MMEngine's.

    Raises:
        ConfigError: If ``num_extra_tokens`` is not an int >= 0.
    """

    def __init__(
        self,
        num_extra_tokens: int | None = None,
        grid: str | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if num_extra_tokens is not None:
            check_int('TokensToMap.num_extra_tokens', num_extra_tokens, 0)
        self.num_extra_tokens = num_extra_tokens
        self.grid = grid

    def to_maps(
        self, feature: Tensor, sizes: Sequence[tuple[int, int]]
    ) -> list[Tensor]:
        """Turn tokens into maps of levels.

        Args:
            feature (Tensor): Tokens, (B, L, C), row by row.
            sizes (list): Height and width of each level.

        Returns:
            list[Tensor]: (B, C, H, W) of each level.

        Raises:
            ConfigError: If the tokens do not fill the levels.
        """
        if feature.dim() != 3:
            raise ConfigError(
                f'TokensToMap: takes tokens, (B, L, C), but the layer gives '
                f'{tuple(feature.shape)}; remove it'
            )
        lengths = [height * width for height, width in sizes]
        extra = feature.shape[1] - sum(lengths)
        wanted = self.num_extra_tokens
        if not lengths or extra < 0 or wanted not in (None, extra):
            places = ' + '.join(f'{x} x {y}' for x, y in sizes) or 'no'
            raise ConfigError(
                f'TokensToMap: the layer gives {feature.shape[1]} tokens, '
                f'its model has {places} places, and num_extra_tokens is '
                f'{wanted}; leave that out, or set grid to a layer that '
                f'gives a map of these tokens'
            )
        levels = feature[:, extra:].transpose(1, 2).split(lengths, dim=2)
        return [
            level.unflatten(2, size)
            for level, size in zip(levels, sizes, strict=True)
        ]

    def forward_train(self, feature: Tensor) -> Tensor:
        """Raise ConfigError: alone, tokens have no places."""
        raise ConfigError(
            'TokensToMap: works at a tap alone, where the grid of the model '
            'is at hand; give it the name of a tap'
        )
