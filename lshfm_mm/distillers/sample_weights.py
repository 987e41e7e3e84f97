"""Which samples count, and how much.

A sample is a RoI, a location of a feature map or an image. The paper counts
all alike, but for locations that the student's own loss ignores.

Legend: B groups (images, or one for all RoIs), S samples of a group.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def sample_weights(
    valid: Tensor,
    foreground: Tensor | None = None,
    confidence: Tensor | None = None,
) -> Tensor:
    """Weights that sum to one in each group, averaged over the groups.

    Args:
        valid (Tensor): Which samples count, bool, (B, S).
        foreground (Tensor, optional): Where given, foreground and background
            of a group get half of its weight each, bool, (B, S).
        confidence (Tensor, optional): Where given, the weights are
            proportional to it, >= 0, (B, S).

    Returns:
        Tensor: The weights, float32, (B, S). They sum to one; a group
        without a sample that counts is left out of the average, and if all
        are, the weights are 0.

    Example:
        >>> import torch
        >>> valid = torch.tensor([[True, True, False], [True] * 3])
        >>> sample_weights(valid, torch.tensor([[True, False, False]] * 2))
        tensor([[0.2500, 0.2500, 0.0000],
                [0.2500, 0.1250, 0.1250]])
    """
    weights = valid.float()
    if confidence is not None:
        weights = weights * confidence
    if foreground is not None:
        weights = _to_one(weights * foreground) + _to_one(
            weights * ~foreground
        )
    weights = _to_one(weights)
    groups = (weights.sum(dim=1) > 0).sum()
    return weights / groups.clamp(min=1)


def level_weights(
    features: list[Tensor],
    together: bool,
    valid: list[Tensor] | None = None,
    foreground: list[Tensor] | None = None,
    confidence: list[Tensor] | None = None,
) -> list[Tensor]:
    """:func:`sample_weights` of each of several levels, (N,) or (B, H, W).

    Args:
        features (list[Tensor]): RoI features, (N, D), which are one group,
            or maps, (B, C, H, W), each image of which is one.
        together (bool): Whether the weights of all levels together sum to
            one, or those of each level.
        valid (list[Tensor], optional): Of each level, bool, (B, S). Defaults
            to all.
        foreground (list[Tensor], optional): Of each level, (B, S).
        confidence (list[Tensor], optional): Of each level, (B, S).
    """
    shapes = [x.shape[:1] + x.shape[2:] for x in features]
    if valid is None:
        valid = [
            x.new_ones(shape, dtype=torch.bool).flatten(1)
            if x.dim() == 4
            else x.new_ones((1, len(x)), dtype=torch.bool)
            for x, shape in zip(features, shapes, strict=True)
        ]
    others = foreground, confidence
    if together:
        joined = [None if x is None else torch.cat(x, 1) for x in others]
        sizes = [x.shape[1] for x in valid]
        parts = sample_weights(torch.cat(valid, 1), *joined).split(sizes, 1)
    else:
        columns: Any = [x or [None] * len(valid) for x in others]
        levels = zip(valid, *columns, strict=True)
        parts = tuple(sample_weights(*level) for level in levels)
    return [x.reshape(y) for x, y in zip(parts, shapes, strict=True)]


def in_boxes(
    boxes: list[Tensor], size: Sequence[int], image: Sequence[int]
) -> Tensor:
    """Locations of a map whose centre lies in a box, bool, (B, H * W).

    Args:
        boxes (list[Tensor]): Boxes of each image, (x1, y1, x2, y2) in
            pixels of the network's input, (G, 4).
        size (tuple): Height and width of the map.
        image (tuple): Height and width of the network's input.
    """
    maps = []
    for image_boxes in boxes:
        y, x = (
            (torch.arange(n, device=image_boxes.device) + 0.5) * full / n
            for n, full in zip(size, image, strict=True)
        )
        x1, y1, x2, y2 = image_boxes[:, :, None].unbind(dim=1)
        columns, rows = (x1 <= x) & (x < x2), (y1 <= y) & (y < y2)
        inside = rows[:, :, None] & columns[:, None, :]
        maps.append(inside.any(dim=0).flatten())
    return torch.stack(maps)


def inside_images(
    samples: Sequence[Any] | None, image: tuple[int, int], feature: Tensor
) -> Tensor | None:
    """Find the locations of maps (B, C, H, W) that lie inside their image.

    The network's input has height and width ``image``.

    Returns:
        Tensor: bool, (B, H, W); None if all do, and for features, (N, D).
    """
    if feature.dim() == 2 or len(samples or ()) != len(feature):
        return None
    shapes = [x.metainfo.get('img_shape', image) for x in samples or ()]
    frames = [
        feature.new_tensor([[0, 0, width, height]])
        for height, width, *_ in shapes
    ]
    size = feature.shape[2:]
    return in_boxes(frames, size, image).view(-1, *size)


def on_grid(
    values: Tensor, size: Sequence[int], other: Sequence[int]
) -> Tensor:
    """Take a value for each location to a map of another size.

    A location gets that of the one in which its centre lies.

    Args:
        values (Tensor): (B, H * W).
        size (tuple): H and W.
        other (tuple): Those of the other map.
    """
    if tuple(size) == tuple(other):
        return values
    maps = values.to(torch.float32).view(len(values), 1, *size)
    maps = F.interpolate(maps, tuple(other), mode='nearest-exact')
    return maps.flatten(1).to(values.dtype)


def not_ignored(label_weights: Tensor, size: tuple[int, int]) -> Tensor:
    """Locations with an anchor that the student's loss counts, bool, (B, S).

    Args:
        label_weights (Tensor): Weights of the anchors in the loss, image by
            image and location by location, any shape.
        size (tuple): B and S.
    """
    return (label_weights.reshape(*size, -1) > 0).any(dim=2)


def class_confidence(logits: Tensor, loss: Any, num_classes: int) -> Tensor:
    """Score of the best foreground class, (1, N) or (B, H * W).

    Args:
        logits (Tensor): Of RoIs, (N, classes and what else the loss has); or
            of maps, (B, anchors * classes, H, W).
        loss (nn.Module): The classification loss: it knows what logits mean.
        num_classes (int): Foreground classes, which come first.
    """
    if logits.dim() == 4:  # dense heads of mmdet with one score per class
        return logits.sigmoid().amax(dim=1).flatten(1)
    if getattr(loss, 'custom_activation', False):
        scores = loss.get_activation(logits)
    elif loss.use_sigmoid:
        scores = logits.sigmoid()
    else:
        scores = logits.softmax(dim=1)
    return scores[None, :, :num_classes].amax(dim=2)


def correctly_classified(logits: Tensor, labels: Tensor) -> Tensor:
    """Images that a classifier gets right.

    Args:
        logits (Tensor): (N, classes).
        labels (Tensor): Classes, (N,); or their scores, (N, classes).

    Returns:
        Tensor: bool, (1, N).
    """
    if labels.dim() == 2:
        labels = labels.argmax(dim=1)
    return (logits.argmax(dim=1) == labels)[None]


def _to_one(weights: Tensor) -> Tensor:
    """Scale each row of (B, S) to the sum 1; rows of 0 stay."""
    total = weights.sum(dim=1, keepdim=True)
    return weights / torch.where(total > 0, total, 1)
