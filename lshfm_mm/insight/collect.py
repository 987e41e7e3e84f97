"""What is measured of each sample of a student and its teacher."""

import copy
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from mmdet.structures.bbox import bbox_overlaps
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.runner import Runner
from mmrazor.registry import MODELS
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from ..algorithms.feature_mimic import FeatureMimicDistill
from ..calibration.calibrate import inside_images
from ..calibration.roi_sampling import jittered_rois
from ..distillers.alignment import angles, equal_codes, rows_of
from ..distillers.level_pairs import TapObservation
from ..distillers.lshfm_distiller import LSHFMDistiller
from ..distillers.sample_weights import in_boxes
from ..errors import ConfigError
from ..export.student import student_state_dict
from ..losses.hashing import random_projection
from ..losses.lsh import LSHLoss
from ..utils.checkpoints import read_state_dict

NUM_ROIS = 128  # of an image
IOU = 0.5  # of a foreground box with its object, at least


class Values(NamedTuple):
    """What is measured of each sample; float32 but for the labels."""

    angle: np.ndarray  # between both features, degrees, (N,); NaN where one
    # of the two is 0
    student: np.ndarray  # norm of the student's feature, (N,)
    teacher: np.ndarray  # norm of the teacher's feature, (N,)
    equal_codes: np.ndarray  # share of the hash codes that agree, (N,)
    labels: np.ndarray  # classes, int16, (N, M); -1 is none


def build_algorithm(cfg: Config) -> FeatureMimicDistill:
    """Build the algorithm of a config, all samples of which count alike.

    Args:
        cfg (Config): Config of a distillation.

    Returns:
        FeatureMimicDistill: In eval mode; the student is random.

    Raises:
        ConfigError: If the config has no taps.
    """
    model = copy.deepcopy(cfg.model)
    model.setdefault('_scope_', 'mmrazor')
    if 'data_preprocessor' in cfg:  # where mmpretrain keeps it
        model.setdefault('data_preprocessor', cfg.data_preprocessor)
    taps = model.distiller.get('taps')
    if not taps:
        raise ConfigError(
            'model.distiller.taps: there are none, so nothing says what to '
            'compare; name the layers as taps'
        )
    for tap in taps.values():
        if isinstance(tap, dict):
            tap.pop('weights', None)
    return MODELS.build(model).to(get_device()).eval()


def build_loader(cfg: Config) -> Any:
    """Build the validation loader; of detectors, with the objects' boxes.

    mmdet's own pipelines read the annotations after the image was resized, so
    that its metric finds them as they were. Here they are resized, too.

    Args:
        cfg (Config): The config.

    Returns:
        DataLoader: The loader.
    """
    loader = copy.deepcopy(cfg.val_dataloader)
    steps = loader.dataset.get('pipeline')
    if steps and cfg.get('default_scope') != 'mmpretrain':
        kinds = [str(x.type).rpartition('.')[2] for x in steps]
        steps = [
            x
            for x, kind in zip(steps, kinds, strict=True)
            if kind != 'LoadAnnotations'
        ]
        first = next(i for i, k in enumerate(kinds) if 'Image' in k) + 1
        steps.insert(first, dict(type='LoadAnnotations', with_bbox=True))
        loader.dataset.pipeline = steps
    return Runner.build_dataloader(loader, seed=0)


def load_student(algorithm: FeatureMimicDistill, checkpoint: str) -> list[str]:
    """Put the weights of a checkpoint into an algorithm's student.

    Args:
        algorithm (FeatureMimicDistill): The algorithm; changed in place.
        checkpoint (str): See :func:`analyze`; its weights fit.

    Returns:
        list[str]: Taps with a connector that the checkpoint does not hold:
        there this student cannot be compared.

    Raises:
        ConfigError: If it can be compared nowhere.
    """
    state = read_state_dict('checkpoint', checkpoint)
    algorithm.student.load_state_dict(student_state_dict(state), strict=False)
    left_out = []
    for tap, connector in algorithm.distiller.connectors.items():
        prefix = f'distiller.connectors.{tap}.'
        own = {
            key.removeprefix(prefix): value
            for key, value in state.items()
            if key.startswith(prefix)
        }
        if own.keys() == connector.state_dict().keys():
            connector.load_state_dict(own)
        elif tap in algorithm.distiller.taps:
            left_out.append(tap)
    if len(left_out) == len(algorithm.distiller.taps):
        raise ConfigError(
            f'checkpoint: {checkpoint} holds none of the connectors of '
            f'{left_out}, through which the student has the width of the '
            f'teacher; give its training checkpoint, such as epoch_12.pth'
        )
    return left_out


@torch.no_grad()
def collect(
    algorithm: FeatureMimicDistill,
    batches: Iterable[Any],
    num_images: int,
    seed: int = 0,
    num_rois: int = NUM_ROIS,
    title: str = '',
) -> dict[str, Values]:
    """Measure each sample of the first images.

    Args:
        algorithm (FeatureMimicDistill): With the student to look at.
        batches (Iterable): Batches of a validation loader.
        num_images (int): How many images count.
        seed (int): Seed of the boxes: students see the same ones.
        num_rois (int): How many boxes an image gets.
        title (str): Whose values these are, for the progress.

    Returns:
        dict[str, Values]: Name of a tap -> the values of its samples.
    """
    algorithm.eval()
    distiller = algorithm.distiller
    preprocess = copy.deepcopy(algorithm.data_preprocessor)
    generator = torch.Generator('cpu').manual_seed(seed)
    parts: dict[str, list[list[np.ndarray]]] = {x: [] for x in distiller.taps}
    samples: list[Any] = []
    image = (0, 0)
    rois: Tensor | None = None

    def observe(_: dict[str, Tensor], seen: dict[str, TapObservation]) -> None:
        for name, tap in seen.items():
            for level in tap.levels:
                shape = level.student.shape
                if name in distiller.records.on_rois:
                    assert rois is not None
                    labels, keep = labels_of_rois(rois, samples), None
                else:
                    labels = labels_of(level.student, samples, image)
                    keep = inside_images(samples, image, level.student)
                if len(shape) == 4 and labels.dim() == 2:
                    labels = labels[:, None, None].expand(
                        shape[0], *shape[2:], labels.shape[1]
                    )
                hashes = hashes_of(distiller, name, level.teacher)
                parts[name].append(
                    _measure(
                        level.student, level.teacher, labels, keep, hashes
                    )
                )

    distiller.observers.append(observe)
    left = num_images
    progress = tqdm(desc=f'compare {title}'.rstrip(), unit='image')
    try:
        for batch in batches:
            batch = {key: value[:left] for key, value in batch.items()}
            data = preprocess(batch, False)
            inputs, samples = data['inputs'], data['data_samples']
            image = tuple(inputs.shape[2:])
            if distiller.records.on_rois:
                rois = jittered_rois(
                    [_boxes(x) for x in samples],
                    [tuple(x.img_shape[:2]) for x in samples],
                    num_rois,
                    generator,
                ).to(inputs.device)
            algorithm.record_student(inputs, samples, rois)
            algorithm.record_teacher(inputs, samples, rois)
            distiller.compute_distill_losses(samples, image)
            progress.update(len(samples))
            left -= len(samples)
            if left <= 0:
                break
    finally:
        progress.close()
        distiller.observers.remove(observe)
    return {name: _joined(found) for name, found in parts.items()}


def labels_of_rois(rois: Tensor, samples: Sequence[Any]) -> Tensor:
    """Class of the object that a box covers.

    Args:
        rois (Tensor): Index of the image and box, (R, 5).
        samples (list): Annotations of the images.

    Returns:
        Tensor: The class of the object with the largest IoU, if that is at
        least 0.5, else -1; int64, (R, 1).
    """
    labels = rois.new_full((len(rois),), -1, dtype=torch.long)
    for index, sample in enumerate(samples):
        objects = _boxes(sample)
        rows = (rois[:, 0] == index).nonzero()[:, 0]
        if len(objects):
            overlap, best = bbox_overlaps(rois[rows, 1:], objects).max(dim=1)
            found = sample.gt_instances.labels[best]
            labels[rows] = torch.where(overlap >= IOU, found, -1)
    return labels[:, None]


def labels_of(
    feature: Tensor, samples: Sequence[Any], image: tuple[int, int]
) -> Tensor:
    """Classes of locations, or of images.

    Args:
        feature (Tensor): Features, (B, D), or maps, (B, C, H, W).
        samples (list): Annotations of the images.
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
        objects = _boxes(sample)
        sides = objects[:, 2:] - objects[:, :2]
        for index in sides.prod(dim=1).argsort(descending=True):
            inside = in_boxes([objects[index][None]], (height, width), image)
            line[inside[0]] = sample.gt_instances.labels[index]
    return labels.view(-1, height, width, 1)


def hashes_of(
    distiller: LSHFMDistiller, tap: str, feature: Tensor
) -> tuple[Tensor, Tensor]:
    """Hash functions of a tap.

    Args:
        distiller (LSHFMDistiller): The distiller.
        tap (str): Name of the tap.
        feature (Tensor): The teacher's feature there, (N, D) or maps.

    Returns:
        tuple[Tensor, Tensor]: Weights (K, D) and biases (K,): those of its
        first :class:`LSHLoss`; without one 4 D, drawn with bias 0.
    """
    loss = _lsh_loss(distiller, tap)
    if loss is not None:
        return loss.weight, loss.bias
    weight = _drawn(feature.shape[1]).to(feature.device)
    return weight, weight.new_zeros(len(weight))


def knows(model: Any, num_classes: int) -> bool:
    """Whether a model has so many classes; a teacher may have others.

    Args:
        model (BaseModel): Detector or classifier.
        num_classes (int): How many.

    Returns:
        bool: True also where its head does not tell.
    """
    parts = [
        getattr(model, x, None) for x in ('roi_head', 'bbox_head', 'head')
    ]
    head = next(x for x in parts if x is not None)
    counts = [getattr(x, 'num_classes', None) for x in head.modules()]
    return {x for x in counts if isinstance(x, int)} <= {num_classes}


def _measure(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor,
    keep: Tensor | None,
    hashes: tuple[Tensor, Tensor],
) -> list[np.ndarray]:
    rows = rows_of(student, keep), rows_of(teacher, keep)
    codes = equal_codes(student, teacher, *hashes, keep)
    labels = labels.flatten(0, -2) if keep is None else labels[keep]
    columns = [
        angles(*rows),
        *(torch.linalg.vector_norm(x, dim=1) for x in rows),
        codes,
    ]
    return [
        *(x.float().cpu().numpy() for x in columns),
        labels.short().cpu().numpy(),
    ]


def _joined(parts: list[list[np.ndarray]]) -> Values:
    *columns, labels = zip(*parts, strict=True)
    width = max(x.shape[1] for x in labels)
    padded = [
        np.pad(x, ((0, 0), (0, width - x.shape[1])), constant_values=-1)
        for x in labels
    ]
    return Values(*(np.concatenate(x) for x in [*columns, padded]))


def _lsh_loss(distiller: LSHFMDistiller, tap: str) -> LSHLoss | None:
    """The first LSH loss of a tap."""
    losses = [distiller.distill_losses[x] for x in distiller.losses_of(tap)]
    return next((x for x in losses if isinstance(x, LSHLoss)), None)


@cache
def _drawn(width: int) -> Tensor:
    return random_projection(4 * width, width, 1.0, 0)


def _boxes(sample: Any) -> Tensor:
    if 'gt_instances' not in sample:
        raise ConfigError(
            'val_dataloader: gives images without gt_instances, around which '
            'boxes are drawn; its data set needs LoadAnnotations'
        )
    boxes = sample.gt_instances.bboxes
    return getattr(boxes, 'tensor', boxes)
