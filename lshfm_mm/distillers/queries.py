"""Queries, which no layer of another model knows."""

from collections.abc import Mapping
from typing import Any

from mmdet.models import DetectionTransformer, MaskFormer
from mmdet.models.roi_heads import SparseRoIHead

from ..errors import ConfigError
from ..teachers.settings import split_source
from .taps import Tap


def check_matched(taps: Mapping[str, Tap], owner: str, model: Any) -> None:
    """Raise at a tap on queries.

    Where a model has queries of its own, the i-th of the student and the
    i-th of the teacher are of different objects.
    """
    for name, tap in taps.items():
        whose, source = split_source(getattr(tap, owner))
        network: Any = model.get_submodule(whose)
        placed = _without_queries(network)
        if placed and not any(
            f'{source}.'.startswith(f'{x}.') for x in placed
        ):
            raise ConfigError(
                f'taps.{name}: {source!r} of the {owner}, a '
                f'{type(network).__name__}, sees queries, and those of two '
                f'models do not match one by one; tap its '
                f'{", ".join(placed[:-1])} or {placed[-1]}'
            )


def _without_queries(model: Any) -> list[str]:
    """Parts of a model with queries that see none; [] of one without."""
    if isinstance(model, DetectionTransformer):
        return ['backbone', 'neck', 'encoder']
    if isinstance(getattr(model, 'roi_head', None), SparseRoIHead):
        return ['backbone', 'neck', 'rpn_head']
    if isinstance(model, MaskFormer):
        return ['backbone', 'neck', 'panoptic_head.pixel_decoder']
    return []
