"""Which class a sample is of."""

from collections.abc import Sequence
from typing import Any

import torch
from mmdet.structures.bbox import bbox_overlaps, get_box_tensor
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torchvision.ops import box_area

from ..distillers.sample_weights import in_boxes
from ..errors import ConfigError

IOU = 0.5  # of a foreground box with its object, at least


def labels_of_rois(rois: Tensor, samples: Sequence[Any]) -> Tensor:
    """Class of the object that a box covers, int64, (R, 1); -1 is none.

    It is the one with the largest IoU, if that is at least :data:`IOU`.
    ``rois`` are index of the image and box, (R, 5).
    """
    labels = rois.new_full((len(rois),), -1, dtype=torch.long)
    for index, sample in enumerate(samples):
        objects = boxes_of(sample)
        own = rois[:, 0] == index
        if len(objects):
            overlap, best = bbox_overlaps(rois[own, 1:], objects).max(dim=1)
            classes = sample.gt_instances.labels[best]
            labels[own] = torch.where(overlap >= IOU, classes, -1)
    return labels[:, None]


def labels_of(
    feature: Tensor, samples: Sequence[Any], image: tuple[int, int]
) -> Tensor:
    """Classes of locations, or of images.

    Args:
        feature (Tensor): Features, (B, D), or maps, (B, C, H, W).
        samples (list): Annotations of the B images.
        image (tuple): Height and width of the network's input.

    Returns:
        Tensor: Of detectors the class of the smallest object around the
        centre of a location, -1 where there is none, int64, (B, H, W, 1); of
        classifiers the classes of an image, then -1, int64, (B, M).

    Raises:
        ConfigError: If a detector's feature is no map.
    """
    if 'gt_label' in samples[0]:
        rows = [x.gt_label.flatten() for x in samples]
        return pad_sequence(rows, batch_first=True, padding_value=-1)
    if feature.dim() != 4 or len(feature) != len(samples):
        raise ConfigError(
            f'taps: features of shape {tuple(feature.shape)} in a batch of '
            f'{len(samples)} images are neither maps nor of boxes; tap the '
            f'neck, a class layer of maps or of RoIs'
        )
    height, width = feature.shape[2:]
    labels = feature.new_full((len(samples), height * width), -1).long()
    for line, sample in zip(labels, samples, strict=True):
        objects = boxes_of(sample)
        for index in box_area(objects).argsort(descending=True):
            inside = in_boxes([objects[index][None]], (height, width), image)
            line[inside[0]] = sample.gt_instances.labels[index]
    return labels.view(-1, height, width, 1)


def boxes_of(sample: Any) -> Tensor:
    """Boxes of the objects in an image, (G, 4).

    Raises:
        ConfigError: If it has no annotation of them.
    """
    if 'gt_instances' not in sample:
        raise ConfigError(
            'val_dataloader: gives images without gt_instances, around which '
            'boxes are drawn; its data set needs LoadAnnotations'
        )
    return get_box_tensor(sample.gt_instances.bboxes)
