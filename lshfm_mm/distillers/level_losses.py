"""A loss of all levels at a tap."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..losses.functional import scale_or_one
from ..losses.l2 import FeatureL2Loss, RelativeL2Loss
from .level_pairs import Level
from .taps import takes_weights


def loss_over_levels(
    loss: nn.Module,
    levels: Sequence[Level],
    weights: Sequence[Tensor] | None,
    one_set: bool,
) -> Tensor:
    """Compute a loss of all levels, (); without samples 0 with a gradient.

    Args:
        loss (nn.Module): Of two features, and of weights if it takes some.
        levels (list[Level]): What it compares.
        weights (list[Tensor], optional): Weights of the samples of each
            level, (N,) or (B, H, W); None where all count alike.
        one_set (bool): Whether the levels are one set of samples, whose mean
            is the loss, or many, whose losses add up.
    """
    if not levels:
        return torch.zeros((), requires_grad=True)
    shares = [1.0] * len(levels)
    if one_set:
        counts = [x.student.numel() for x in levels]
        shares = [count / max(sum(counts), 1) for count in counts]
    if not takes_weights(type(loss)):
        weights = None
    # All levels of a set have one scale; another forward its own idea of it.
    if (
        not one_set
        or not isinstance(loss, RelativeL2Loss)
        or type(loss).forward is not RelativeL2Loss.forward
    ):
        return _sum(loss, levels, shares, weights)
    plain = FeatureL2Loss(loss.loss_weight, loss.window)
    unit = FeatureL2Loss(window=loss.window)
    silent = [x._replace(student=torch.zeros_like(x.teacher)) for x in levels]
    scale = scale_or_one(_sum(unit, silent, shares, weights))
    return _sum(plain, levels, shares, weights) / scale


def _sum(
    loss: nn.Module,
    levels: Sequence[Level],
    shares: Sequence[float],
    weights: Sequence[Tensor] | None,
) -> Tensor:
    """Add up a loss over levels; under weights these give the shares."""
    values = []
    for index, (s_feature, t_feature, *_) in enumerate(levels):
        with torch.autocast(s_feature.device.type, enabled=False):
            if not s_feature.numel():
                values.append(s_feature.sum() * 0)
            elif weights is None:
                values.append(shares[index] * loss(s_feature, t_feature))
            else:
                weight = weights[index]
                values.append(
                    weight.sum()
                    * loss(s_feature, t_feature, sample_weight=weight)
                )
    return torch.stack(values).sum()
