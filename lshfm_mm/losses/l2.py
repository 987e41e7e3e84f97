"""L2 losses of features as modules."""

from mmrazor.registry import MODELS
from torch import Tensor, nn

from ..errors import ConfigError, check_int, check_loss_weight
from .functional import l2_loss


@MODELS.register_module()
class FeatureL2Loss(nn.Module):
    """:func:`l2_loss` with a weight: the L2 part of LSHL2.

    Args:
        loss_weight (float): Factor of the loss. Defaults to 1.0.
        window (int, optional): Side of the window that is a location's
            feature. Defaults to that of the tapped class layer, or 1.

    Raises:
        ConfigError: If an argument is out of its range.
    """

    relative = False

    def __init__(
        self, loss_weight: float = 1.0, window: int | None = None
    ) -> None:
        super().__init__()
        if window is not None:
            check_int('window', window)
        if window is not None and window % 2 == 0:
            raise ConfigError(f'window: must be odd, but got {window}')
        check_loss_weight(loss_weight)
        self.window = window
        self.loss_weight = loss_weight

    def forward(
        self,
        s_feature: Tensor,
        t_feature: Tensor,
        sample_weight: Tensor | None = None,
    ) -> Tensor:
        """Compute the weighted loss; shapes as in :func:`l2_loss`."""
        loss = l2_loss(
            s_feature,
            t_feature,
            sample_weight,
            self.window or 1,
            self.relative,
        )
        return self.loss_weight * loss


@MODELS.register_module()
class RelativeL2Loss(FeatureL2Loss):
    """:func:`l2_loss` in units of the teacher's mean squared feature.

    Where that is below 1e-12 the teacher has no scale, and the loss is
    :class:`FeatureL2Loss`.
    """

    relative = True
