"""A connector of maps that have other strides."""

import torch
import torch.nn.functional as F
from mmrazor.models.architectures.connectors.base_connector import (
    BaseConnector,
)
from mmrazor.registry import MODELS
from torch import Tensor

from ..errors import ConfigError, check_choice


@MODELS.register_module()
class ResampleConnector(BaseConnector):
    """Brings each map to the grid of its partner in the other model.

    In ``connectors`` the student's maps go to the teacher's grid, in
    ``teacher_connectors`` the teacher's to the student's. Both models must
    see the same pixels, each from edge to edge.

    Args:
        mode (str): 'bilinear': values at the centres of the new locations,
            smoothed first where the map shrinks; or 'area': means over the
            old locations that a new one touches. Defaults to 'bilinear'.
        init_cfg (dict, optional): MMEngine's.

    Raises:
        ConfigError: If the mode is another.
    """

    def __init__(
        self, mode: str = 'bilinear', init_cfg: dict | None = None
    ) -> None:
        super().__init__(init_cfg)
        check_choice('ResampleConnector.mode', mode, ('bilinear', 'area'))
        self.mode = mode

    def resample(self, feature: Tensor, size: tuple[int, int]) -> Tensor:
        """Resample a map, (B, C, H, W) -> (B, C, *size).

        It is computed in float32 or better.
        """
        shape = feature.shape[2:]
        if tuple(shape) == size:
            return feature
        dtype = torch.promote_types(feature.dtype, torch.float32)
        feature = feature.to(dtype)
        if self.mode == 'area':
            return F.adaptive_avg_pool2d(feature, size)
        shrinks = any(new < old for new, old in zip(size, shape, strict=True))
        return F.interpolate(feature, size, mode='bilinear', antialias=shrinks)

    def forward_train(self, feature: Tensor) -> Tensor:
        """Raise ConfigError: alone, a map has no partner."""
        raise ConfigError(
            'ResampleConnector: works at a tap alone, where the other '
            "model's map is at hand; give it the name of a tap"
        )
