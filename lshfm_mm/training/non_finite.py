"""What a batch with a NaN or infinite loss was like."""

import math
from collections.abc import Mapping
from typing import Any

from mmengine.structures import BaseDataElement
from torch import Tensor
from torch.utils._pytree import tree_leaves

from ..distillers.level_pairs import TapObservation

LARGE = 100  # times the teacher's RMS


def describe_nonfinite(
    losses: Mapping[str, Any], seen: Mapping[str, TapObservation], batch: Any
) -> dict[str, Any]:
    """Describe a batch, in what JSON can hold.

    Args:
        losses (dict): Losses, tensors or lists of tensors, by name.
        seen (dict): What the losses of each tap compared.
        batch (Any): Of the dataloader.

    Returns:
        dict: ``not_finite``, names of losses; ``losses``, all values, those
        that are not finite in words; ``taps``, statistics of both features
        at each level of each tap; ``images``, their paths.
    """
    values = {
        name: [float(x.detach().mean()) for x in tree_leaves(loss)]
        for name, loss in losses.items()
        if 'loss' in name
    }
    return dict(
        not_finite=[
            k for k, v in values.items() if not all(map(math.isfinite, v))
        ],
        losses={
            k: [x if math.isfinite(x) else str(x) for x in v]
            for k, v in values.items()
        },
        taps={
            name: [
                dict(
                    student=_statistics(x.student),
                    teacher=_statistics(x.teacher),
                )
                for x in tap.levels
            ]
            for name, tap in seen.items()
        },
        images=[
            str(x.metainfo.get('img_path', ''))
            for x in tree_leaves(batch)
            if isinstance(x, BaseDataElement)
        ],
    )


def describe_explosion(report: Mapping[str, Any]) -> str:
    """Where the student's features have exploded, in words; '' if nowhere.

    They have where one is not finite, or their RMS is a hundred times the
    teacher's, ``report`` being that of :func:`describe_nonfinite`.
    """
    for name, levels in report['taps'].items():
        for level in levels:
            student, teacher = level['student'], level['teacher']
            size, limit = student.get('rms', 0.0), teacher.get('rms', math.inf)
            if student['nan'] or student['inf'] or size > LARGE * limit > 0:
                return (
                    f'; the features of the student at taps.{name} have '
                    f'exploded (RMS {size:.2g}, {student["nan"]} NaN, '
                    f'{student["inf"]} infinite; the teacher has RMS '
                    f'{teacher.get("rms", 0.0):.2g})'
                )
    return ''


def _statistics(feature: Tensor) -> dict[str, Any]:
    """Shape, and of the finite values least, greatest and RMS."""
    feature = feature.detach()
    finite = feature[feature.isfinite()].double()
    facts: dict[str, Any] = dict(
        shape=list(feature.shape),
        nan=int(feature.isnan().sum()),
        inf=int(feature.isinf().sum()),
    )
    if len(finite):
        facts['min'] = finite.min().item()
        facts['max'] = finite.max().item()
        facts['rms'] = finite.square().mean().sqrt().item()
    return facts
