"""A neck that mmpretrain lacks: max pooling."""

import torch.nn.functional as F
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor, nn


# In the root registry, where every scope finds it.
@MODELS.register_module()
class GlobalMaxPooling(BaseModule):
    """Max pooling of the last map, beside mmpretrain's average pooling.

    With widths a linear embedding follows, as in mmpretrain's ``LinearNeck``.

    Args:
        in_channels (int, optional): Channels of the map.
        out_channels (int, optional): Width after the embedding. Defaults to
            no embedding.
        init_cfg (dict, optional): Of MMEngine.
    """

    def __init__(
        self,
        in_channels: int | None = None,
        out_channels: int | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.fc: nn.Module = nn.Identity()
        if in_channels is not None and out_channels is not None:
            self.fc = nn.Linear(in_channels, out_channels)

    def forward(self, inputs: Tensor | tuple[Tensor, ...]) -> tuple[Tensor]:
        """Pool the last map, (B, C, H, W), to (B, C) or (B, out_channels)."""
        if isinstance(inputs, tuple):
            inputs = inputs[-1]
        pooled = F.adaptive_max_pool2d(inputs, 1).flatten(1)
        return (self.fc(pooled),)
