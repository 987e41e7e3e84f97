"""What is measured of each sample of a student and its teacher.

Legend: N samples (images, RoIs or locations), D feature width, K hash
functions, M labels that a sample has at most.
"""

import copy
from collections.abc import Iterable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmrazor.registry import MODELS
from torch import Tensor
from tqdm import tqdm

from ..algorithms.feature_mimic import FeatureMimicDistill
from ..distillers.alignment import angles, equal_codes, lsh_loss_of, rows_of
from ..distillers.level_pairs import TapObservation
from ..distillers.lshfm_distiller import LSHFMDistiller
from ..distillers.roi_sampling import jittered_rois
from ..distillers.sample_weights import inside_images
from ..errors import ConfigError
from ..export.folding import has_embedding, without_embedding
from ..export.student import check_fits, student_config, student_state_dict
from ..losses.hashing import random_projection
from ..utils.checkpoints import read_state_dict, weights_below
from ..utils.configs import model_of
from .labels import boxes_of, labels_of, labels_of_rois

NUM_ROIS = 128  # of an image


class Values(NamedTuple):
    """What is measured of each sample; float32 but for the labels."""

    angle: np.ndarray  # between both features, degrees, (N,); NaN where one
    # of the two is 0
    student: np.ndarray  # norm of the student's feature, (N,)
    teacher: np.ndarray  # norm of the teacher's feature, (N,)
    equal_codes: np.ndarray  # share of the hash codes that agree, (N,)
    labels: np.ndarray  # classes, int16, (N, M); -1 is none


def build_algorithm(cfg: Config) -> FeatureMimicDistill:
    """Build the algorithm of a config; all its samples count alike.

    It is in eval mode, its student random.

    Raises:
        ConfigError: If the config has no taps.
    """
    model = copy.deepcopy(model_of('model', cfg))
    taps = model['distiller'].get('taps')
    if not taps:
        raise ConfigError(
            'model.distiller.taps: there are none, so nothing says what to '
            'compare; name the layers as taps'
        )
    for tap in taps.values():
        if isinstance(tap, dict):
            tap.pop('weights', None)
    built = MODELS.build(model).to(get_device())
    built.eval()
    return built


def build_loader(cfg: Config) -> Any:
    """Build the validation loader; of detectors, with the objects' boxes.

    mmdet's own pipelines read the annotations after the image was resized, so
    that its metric finds them as they were. Here they are resized, too.
    """
    loader = copy.deepcopy(cfg.val_dataloader)
    if not loader.get('num_workers'):  # as torch wants it
        loader.persistent_workers = False
    steps = loader.dataset.get('pipeline')
    if steps and cfg.get('default_scope') != 'mmpretrain':
        steps = [x for x in steps if 'LoadAnnotations' not in str(x.type)]
        image = next(i for i, x in enumerate(steps) if 'Image' in str(x.type))
        steps.insert(image + 1, dict(type='LoadAnnotations', with_bbox=True))
        loader.dataset.pipeline = steps
    return Runner.build_dataloader(loader, seed=0)


def plain_classifier(cfg: Config, checkpoint: str) -> BaseModel | None:
    """Build a classifier that lacks the embedding of the config.

    It is the student alone, or one whose embedding was folded; None where it
    has the embedding, or the config has none.

    Raises:
        ConfigError: If the checkpoint does not fit.
    """
    plain = student_config(cfg)
    state = student_state_dict(read_state_dict('checkpoint', checkpoint))
    if not has_embedding(plain.model) or 'neck.fc.weight' in state:
        return None
    plain = copy.copy(plain)
    plain.model = without_embedding(plain.model)
    check_fits(plain, checkpoint, state)
    model = MODELS.build(model_of('model', plain))
    model.load_state_dict(state)
    return model.to(get_device())


def load_student(algorithm: FeatureMimicDistill, checkpoint: str) -> list[str]:
    """Put the weights of a checkpoint, which fit, into the student.

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
        own = weights_below(f'distiller.connectors.{tap}.', state)
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
        batches (Iterable): Of a validation loader.
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
    meter = _Meter(distiller)
    distiller.observers.append(meter.observe)
    left = num_images
    progress = tqdm(desc=f'compare {title}'.rstrip(), unit='image')
    try:
        for batch in batches:
            batch = {key: value[:left] for key, value in batch.items()}
            data = preprocess(batch, False)
            inputs, samples = data['inputs'], data['data_samples']
            meter.samples, meter.image = samples, tuple(inputs.shape[2:])
            if distiller.records.on_rois:
                meter.rois = jittered_rois(
                    [boxes_of(x) for x in samples],
                    [tuple(x.img_shape[:2]) for x in samples],
                    num_rois,
                    generator,
                ).to(inputs.device)
            algorithm.record_student(inputs, samples, meter.rois)
            algorithm.record_teacher(inputs, samples, meter.rois)
            distiller.compute_distill_losses(samples, meter.image)
            progress.update(len(samples))
            left -= len(samples)
            if left <= 0:
                break
    finally:
        progress.close()
        distiller.observers.remove(meter.observe)
    return {tap: _joined(parts) for tap, parts in meter.parts.items()}


class _Meter:
    """Measures the samples of a batch, as an observer of the distiller."""

    def __init__(self, distiller: LSHFMDistiller) -> None:
        self.distiller = distiller
        self.samples: list[Any] = []  # annotations of the batch
        self.image = (0, 0)  # height and width of the network's input
        self.rois: Tensor | None = None  # (R, 5), where RoIs are tapped
        # The columns of Values, of each level of each batch.
        self.parts: dict[str, list[list[np.ndarray]]] = {
            tap: [] for tap in distiller.taps
        }

    def observe(
        self, _: dict[str, Tensor], seen: dict[str, TapObservation]
    ) -> None:
        """Measure what the taps have recorded."""
        for tap, recorded in seen.items():
            self.parts[tap] += [
                self._measure(tap, level.student, level.teacher)
                for level in recorded.levels
            ]

    def _measure(
        self, tap: str, student: Tensor, teacher: Tensor
    ) -> list[np.ndarray]:
        keep = None
        if tap in self.distiller.records.on_rois:
            assert self.rois is not None
            labels = labels_of_rois(self.rois, self.samples)
        else:
            labels = labels_of(student, self.samples, self.image)
            keep = inside_images(self.samples, self.image, student)
        if student.dim() == 4 and labels.dim() == 2:
            labels = labels[:, None, None].expand(
                len(student), *student.shape[2:], labels.shape[1]
            )
        labels = labels.flatten(0, -2) if keep is None else labels[keep]
        rows = rows_of(student, keep), rows_of(teacher, keep)
        hashes = hashes_of(self.distiller, tap, teacher)
        columns = [
            angles(*rows),
            *(torch.linalg.vector_norm(x, dim=1) for x in rows),
            equal_codes(student, teacher, *hashes, keep),
        ]
        numbers = [x.float() for x in columns]
        return [x.cpu().numpy() for x in (*numbers, labels.short())]


def hashes_of(
    distiller: LSHFMDistiller, tap: str, feature: Tensor
) -> tuple[Tensor, Tensor]:
    """Hash functions of a tap for the teacher's feature, (N, D) or maps.

    Returns:
        tuple[Tensor, Tensor]: Weights (K, D) and biases (K,): those of its
        first :class:`LSHLoss`; without one 4 D, drawn with bias 0.
    """
    loss = lsh_loss_of(distiller, tap)
    if loss is not None:
        return loss.weight, loss.bias
    weight = _drawn(feature.shape[1]).to(feature.device)
    return weight, weight.new_zeros(len(weight))


def knows(model: Any, num_classes: int) -> bool:
    """Whether a head has so many classes, or does not tell; not without."""
    heads = (
        getattr(model, x, None) for x in ('roi_head', 'bbox_head', 'head')
    )
    head = next((x for x in heads if x is not None), None)
    if head is None:
        return False
    counts = [getattr(x, 'num_classes', None) for x in head.modules()]
    return {x for x in counts if isinstance(x, int)} <= {num_classes}


def _joined(parts: list[list[np.ndarray]]) -> Values:
    *columns, labels = zip(*parts, strict=True)
    width = max(x.shape[1] for x in labels)
    padded = [
        np.pad(x, ((0, 0), (0, width - x.shape[1])), constant_values=-1)
        for x in labels
    ]
    return Values(*(np.concatenate(x) for x in [*columns, padded]))


@cache
def _drawn(width: int) -> Tensor:
    return random_projection(4 * width, width, 1.0, 0)
