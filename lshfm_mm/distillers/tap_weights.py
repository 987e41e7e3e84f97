"""What weighs the samples at a tap: labels, boxes or the teacher's scores."""

import math
from collections.abc import Sequence
from operator import and_
from typing import Any, NamedTuple

import torch
from mmdet.structures.bbox import get_box_tensor
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from ..errors import ConfigError
from .level_pairs import Level
from .records import Records
from .sample_weights import (
    class_confidence,
    correctly_classified,
    in_boxes,
    inside_images,
    level_weights,
    not_ignored,
    on_grid,
)
from .taps import layers_of, loss_layer, told


class Batch(NamedTuple):
    """What is known of a batch beside its features.

    Attributes:
        samples (list): Annotations of the images; None where there are none.
        image (tuple): Height and width of the network's input.
        rows (dict): Name of a tap -> which of the student's samples there
            the teacher has seen; all, where it has no entry.
    """

    samples: Sequence[BaseDataElement] | None
    image: tuple[int, int] | None
    rows: dict[str, Tensor]


class TapWeights:
    """Weighs the samples at a tap as its ``weights`` ask for.

    Args:
        records (Records): What both models have left.
    """

    def __init__(self, records: Records) -> None:
        self.records = records
        self._heads: dict[str, nn.Module] = {}  # with the losses
        self._levels: dict[str, tuple[int, int]] = {}  # see _level_of
        self._objects: set[str] = set()  # taps where a loss tells them
        self._scores: dict[str, tuple[nn.Module, int]] = {}

    def prepare_from_student(self, model: nn.Module) -> None:
        """Have recorded what the losses of the student get.

        Its recorders must not be attached yet.

        Raises:
            ConfigError: If a kind of weights is not for its head.
        """
        for name, tap in self.records.taps.items():
            source = loss_layer(model, tap.student)
            if source is not None:
                place = source.rpartition('.')[0]
                self._heads[name] = head = model.get_submodule(place)
                if hasattr(head, 'loss_obj'):  # loss_cls sees objects alone
                    source = f'{place}.loss_obj'
                    self._objects.add(name)
                inner = tap.student.removeprefix(f'{place}.')
                level = _level_of(head, inner)
                if level is not None:
                    self._levels[name] = level
                self.records.record_labels(name, source)
            head = model.get_submodule(tap.student.rpartition('.')[0])
            kinds = {x.__name__ for x in type(head).__mro__}
            if 'correct' in tap.weights and 'MultiLabelClsHead' in kinds:
                raise ConfigError(
                    f"taps.{name}.weights: 'correct' needs images with one "
                    f'label each, but the student has a '
                    f"{type(head).__name__}; use 'uniform'"
                )

    def prepare_from_teacher(self, model: nn.Module) -> None:
        """Look how the teacher's logits become scores.

        Raises:
            ConfigError: If that cannot be told.
        """
        for name, tap in self.records.taps.items():
            if 'confidence' in tap.weights:
                self._scores[name] = _scores_at(name, tap.teacher, model)

    def of(
        self, name: str, levels: Sequence[Level], batch: Batch
    ) -> list[Tensor] | None:
        """Weights of the samples of each level that a tap compares.

        Returns:
            list[Tensor]: (N,) or (B, H, W); None where all count alike.

        Raises:
            ConfigError: If the batch lacks what the weights need.
        """
        kinds = {*self.records.taps[name].weights} - {'uniform'}
        valid = self._not_ignored(name, levels)
        if not levels or not (kinds or valid):
            return None
        if name in self.records.on_rois and kinds:
            if not levels[0].student.numel():
                return None
            if levels[0].student.dim() != 2:
                raise ConfigError(
                    f'taps.{name}.weights: {told((*kinds,))} weighs features '
                    f'(R, D) of RoIs, but these are '
                    f"{tuple(levels[0].student.shape)}; use 'uniform'"
                )
        foreground = confidence = None
        if 'balanced' in kinds:
            foreground = [
                self._foreground(name, x.student, batch) for x in levels
            ]
        if 'confidence' in kinds:
            confidence = [self._confidence(name, x) for x in levels]
        for kind, mask in (
            ('positive', self._positive),
            ('correct', self._correct),
            ('inside', _inside),
        ):
            if kind in kinds:
                masks = [mask(name, x, batch) for x in levels]
                valid = masks if valid is None else [*map(and_, valid, masks)]
        return level_weights(
            [x.student for x in levels],
            self.records.is_one_set(name),
            valid,
            foreground,
            confidence,
        )

    def foreground(self, name: str) -> Tensor | None:
        """Which of the student's RoIs at a tap are foreground to its loss.

        It is bool, (R,); None where the head of the tap does not tell.
        """
        calls = self.records.labels(name)
        labels = calls[-1][0] if calls else None
        classes = getattr(self._heads.get(name), 'num_classes', 0)
        if not isinstance(labels, Tensor) or not classes:
            return None
        return (labels >= 0) & (labels < classes)

    def _foreground(self, name: str, feature: Tensor, batch: Batch) -> Tensor:
        """Foreground among the samples of a feature, (B, S)."""
        if feature.dim() == 2:
            mask = self.foreground(name)
            if mask is not None:
                return mask[batch.rows.get(name, slice(None))][None]
        elif batch.image is not None and batch.samples is not None:
            if all('gt_instances' in x for x in batch.samples):
                instances = [x.gt_instances for x in batch.samples]
                boxes = [get_box_tensor(x.bboxes) for x in instances]
                return in_boxes(boxes, feature.shape[2:], batch.image)
        kinds = told(self.records.taps[name].weights)
        raise ConfigError(
            f'taps.{name}.weights: {kinds} needs boxes or the labels of '
            f"RoIs, and this batch has none; use 'uniform'"
        )

    def _correct(self, name: str, level: Level, batch: Batch) -> Tensor:
        """Images that the teacher classifies correctly, (1, N)."""
        logits = self.records.logits(name)[level.t_index]
        samples = batch.samples or []
        labels = [x.get('gt_label') for x in samples]
        if len(samples) != len(logits) or not all(
            isinstance(x, Tensor) and x.numel() == 1 for x in labels
        ):
            raise ConfigError(
                f"taps.{name}.weights: 'correct' needs images with one label "
                f"each; use 'uniform'"
            )
        # Mixed images have scores: the class that they have most of counts.
        scores = [x.get('gt_score') for x in samples]
        mixed = all(isinstance(x, Tensor) for x in scores)
        target = torch.stack(scores) if mixed else torch.cat(labels)
        return correctly_classified(logits, target)

    def _confidence(self, name: str, level: Level) -> Tensor:
        """The teacher's best score for each sample, (1, N) or (B, S)."""
        logits = self.records.logits(name)[level.t_index].float()
        scores = class_confidence(logits, *self._scores[name])
        if logits.dim() == 4:
            shape = level.student.shape[2:]
            scores = on_grid(scores, logits.shape[2:], shape)
        return scores

    def _not_ignored(
        self, name: str, levels: Sequence[Level]
    ) -> list[Tensor] | None:
        """Locations that the student's loss counts, (B, S) of each level."""
        if name in self.records.on_rois or not self.records.labels(name):
            return None
        masks = []
        for level in levels:
            _, weights = self._label_call(name, level)
            student = self._own_map(name, level)
            size = self._size_in(weights, name, student)
            if size is None:
                return None  # another kind of head: all locations count
            grids = student.shape[2:], level.student.shape[2:]
            masks.append(on_grid(not_ignored(weights, size), *grids))
        return masks

    def _positive(self, name: str, level: Level, batch: Batch) -> Tensor:
        """Samples that the student's loss takes for objects, (B, S)."""
        if level.student.dim() == 2:
            return self._foreground(name, level.student, batch)
        labels, _ = self._label_call(name, level)
        if isinstance(labels, tuple | list):  # with their scores
            labels = labels[0]
        student = self._own_map(name, level)
        size = self._size_in(labels, name, student)
        if size is None or labels.is_floating_point():
            raise ConfigError(
                f"taps.{name}.weights: 'positive' needs a head of the student "
                f'whose class loss gets the labels of each level; use '
                f"'balanced'"
            )
        head: Any = self._heads[name]
        positive = (labels >= 0) & (labels < head.num_classes)
        grids = student.shape[2:], level.student.shape[2:]
        return on_grid(not_ignored(positive, size), *grids)

    def _own_map(self, name: str, level: Level) -> Tensor:
        """The student's map on its own grid; of tokens, what became of them.

        A level is counted after the connectors, which make maps of tokens.
        """
        features = self.records.features(name)
        if any(x.dim() == 3 for x in features):
            return level.student
        return features[level.s_index]

    def _label_call(self, name: str, level: Level) -> tuple[Any, Any]:
        """Labels and their weights in the student's loss of a level."""
        calls = self.records.labels(name)
        if name in self._objects and len(calls) == 1:
            calls = self._split(name, calls[0][0])
        own, number = self._levels.get(name, (0, 0))
        index = level.s_index
        if len(self.records.calls(name)) != len(calls):  # it is of one level
            index = own if number == len(calls) else len(calls)
        return calls[index] if index < len(calls) else (None, None)

    def _split(self, name: str, objects: Tensor) -> list[tuple[Any, Any]]:
        """Labels of each level where a loss gets image by image."""
        features = self.records.features(name)
        sizes = [math.prod(x.shape[2:]) for x in features]
        if objects.numel() != len(features[0]) * sum(sizes):
            return []
        head: Any = self._heads[name]
        labels = torch.where(objects > 0, 0, head.num_classes)
        parts = labels.view(len(features[0]), -1).split(sizes, 1)
        return [(x, None) for x in parts]

    def _size_in(
        self, labels: Any, name: str, feature: Tensor
    ) -> tuple[int, int] | None:
        """Images and locations of a map, if labels are of its anchors."""
        priors = getattr(self._heads.get(name), 'num_base_priors', None)
        images, size = len(feature), math.prod(feature.shape[2:])
        if (
            not isinstance(labels, Tensor)
            or not feature.numel()
            or feature.dim() != 4
            or labels.numel() < images * size
            or labels.numel() % (images * size)
            or priors not in (None, labels.numel() // (images * size))
        ):
            return None
        return images, size


def _inside(name: str, level: Level, batch: Batch) -> Tensor:
    """Locations of a level that lie inside their image, (B, S)."""
    feature = level.student
    if feature.dim() != 4 or batch.image is None:
        raise ConfigError(
            f"taps.{name}.weights: 'inside' weighs locations of maps, but the "
            f'features are {tuple(feature.shape)}; put TokensToMap on both '
            f'sides, or leave it out'
        )
    inside = inside_images(batch.samples, batch.image, feature)
    if inside is None:
        shape = len(feature), math.prod(feature.shape[2:])
        return feature.new_ones(shape, dtype=torch.bool)
    return inside.flatten(1)


def _level_of(head: nn.Module, source: str) -> tuple[int, int] | None:
    """Which of how many levels a layer of a head is of, if it has them.

    Heads with a class layer for each level have them in a list, the first in
    the name of the layer.
    """
    parts = source.split('.')
    for end in range(1, len(parts)):
        layers = head.get_submodule('.'.join(parts[:end]))
        if isinstance(layers, nn.ModuleList):
            return int(parts[end]), len(layers)
    return None


def _scores_at(
    name: str, source: str, teacher: nn.Module
) -> tuple[nn.Module, int]:
    """The loss that knows what a class layer's logits mean, and classes."""
    place = loss_layer(teacher, source)
    loss = teacher.get_submodule(place) if place else nn.Identity()
    use_sigmoid = getattr(loss, 'use_sigmoid', None)
    layers = layers_of(teacher.get_submodule(source))
    is_map = all(isinstance(x, nn.Conv2d) for x in layers)
    if use_sigmoid is None or (is_map and not use_sigmoid):
        raise ConfigError(
            f"taps.{name}.weights: 'confidence' cannot tell what the scores "
            f"of the teacher's {source} mean; use 'balanced'"
        )
    assert place is not None
    head: Any = teacher.get_submodule(place.rpartition('.')[0])
    return loss, head.num_classes
