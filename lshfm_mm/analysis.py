"""What students have learnt of their teacher: all numbers of a report.

All students are compared with the teacher on the same samples, by the same
hash functions. Boxes are drawn around the annotated objects, see
:func:`lshfm_mm.samples.jittered_rois`, since each student's own proposals
would be other ones; maps give their locations inside the images, and
classifiers their images. All samples count alike, whatever the config says.

Legend: N samples (images, RoIs or locations), D feature width, K hash
functions, M labels that a sample has at most.
"""

import copy
import hashlib
import itertools
import math
import platform
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import mmcv
import numpy as np
import torch
from mmdet.structures.bbox import bbox_overlaps
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.device import get_device
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmrazor.registry import MODELS
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from . import stacks
from .algorithms import FeatureMimicDistill
from .alignment import angles, equal_codes, rows_of
from .calibration import calibrate, inside_images
from .cli import check_data, read_config, validate
from .curves import read_curves
from .distillers import LSHFMDistiller, Seen
from .errors import ConfigError
from .export import check_weights, student_state_dict
from .hashing import random_projection
from .losses import LSHLoss
from .picture import SCORE
from .samples import in_boxes, jittered_rois
from .teacher import read_state_dict
from .version import __version__

TEACHER = 'teacher'
NUM_ROIS = 128  # of an image
IOU = 0.5  # of a foreground box with its object, at least
QUANTILES = {'q05': 5, 'q25': 25, 'median': 50, 'q75': 75, 'q95': 95}
BINS = {
    'angle': np.linspace(0, 180, 91),  # degrees
    'norm_ratio': 2.0 ** np.linspace(-4, 4, 65),
    'equal_codes': np.linspace(0, 1, 51),
}
SHOWN_CLASSES = 3  # of a classifier's scores for an image
PACKAGES = ('torch', 'mmengine', 'mmcv', 'mmdet', 'mmrazor', 'mmpretrain')


class Values(NamedTuple):
    """What is measured of each sample; float32 but for the labels."""

    angle: np.ndarray  # between both features, degrees, (N,); NaN where one
    # of the two is 0
    student: np.ndarray  # norm of the student's feature, (N,)
    teacher: np.ndarray  # norm of the teacher's feature, (N,)
    equal_codes: np.ndarray  # share of the hash codes that agree, (N,)
    labels: np.ndarray  # classes, int16, (N, M); -1 is none


def analyze(
    config: str,
    students: Mapping[str, str],
    work_dirs: Mapping[str, str] | None = None,
    num_images: int = 200,
    images: Sequence[str] | int = 6,
    seed: int = 0,
) -> tuple[dict[str, Any], list[np.ndarray]]:
    """Compare students with their teacher, on the validation images.

    Args:
        config (str): Config file of a distillation: it gives teacher, taps,
            data and metrics.
        students (dict[str, str]): Name -> checkpoint: a training checkpoint,
            an exported one or that of a plain training.
        work_dirs (dict[str, str], optional): Name -> work folder of its
            training, for the curves. Defaults to the checkpoint's folder
            where that is one.
        num_images (int): How many images are compared, the first ones.
        images (list[str] | int): Images on which the models' predictions are
            shown: names of files, or how many, the first ones.
        seed (int): Seed of the boxes. Defaults to 0.

    Returns:
        tuple[dict, list[np.ndarray]]: All numbers, as JSON can hold them,
        and the images to show, BGR, (H, W, 3).

    Raises:
        ConfigError: If config, checkpoints and data do not fit together.
    """
    if num_images < 1:
        raise ConfigError(
            f'num-images: must be an int >= 1, but got {num_images}'
        )
    cfg = read_config(config, None)
    for field, needed in (
        ('model.distiller', 'distiller' in cfg.model),
        ('val_dataloader', cfg.get('val_dataloader') is not None),
    ):
        if not needed:
            raise ConfigError(
                f'{field}: {config} has none; give the config of a '
                f'distillation with a validation set'
            )
    check_data(cfg, ('val_dataloader',))
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    for name, checkpoint in students.items():
        if name == TEACHER:
            raise ConfigError(
                f'{name}={checkpoint}: the teacher is there already, from '
                f'{config}; give another name'
            )
        check_weights(cfg, checkpoint)
    folders = _work_dirs(students, work_dirs or {})
    loader = build_loader(cfg)
    shown = _pick_images(loader.dataset, images)
    algorithm = build_algorithm(cfg)
    classes = list(loader.dataset.metainfo['classes'])
    is_detector = any(
        hasattr(algorithm.student, x) for x in ('bbox_head', 'roi_head')
    )
    _calibrate(algorithm, loader, num_images, seed)

    metrics: dict[str, Any] = {}
    predictions: dict[str, Any] = {}
    values: dict[str, dict[str, Values]] = {}
    left_out: dict[str, list[str]] = {}
    for name in [TEACHER, *students]:
        model = algorithm.teacher
        if name != TEACHER:
            model = algorithm.student
            left_out[name] = load_student(algorithm, students[name])
            values[name] = collect(
                algorithm, loader, num_images, seed, title=name
            )
            for tap in left_out[name]:
                del values[name][tap]
        model.eval()
        parameters = sum(x.numel() for x in model.parameters())
        metrics[name] = {'parameters': parameters}
        predictions[name] = None
        if name != TEACHER or knows(model, len(classes)):
            metrics[name].update(validate(model, cfg, 'WARNING'))
            predictions[name] = [
                predict(model, loader.dataset[x], classes) for x in shown
            ]
    report: dict[str, Any] = {
        'config': config,
        'config_text': cfg.pretty_text,
        'task': 'detection' if is_detector else 'classification',
        'classes': classes,
        'students': list(students),
        'images': min(num_images, len(loader.dataset)),
        'seed': seed,
        'rois_per_image': NUM_ROIS if algorithm.distiller.roi_taps else None,
        'foreground_iou': IOU if algorithm.distiller.roi_taps else None,
        'versions': _versions(),
        'files': _files(cfg, config, students),
        'metrics': metrics,
        'taps': {
            tap: _summarize_tap(algorithm, tap, values, classes, is_detector)
            for tap in algorithm.distiller.taps
        },
        'left_out': {k: v for k, v in left_out.items() if v},
        'curves': {k: read_curves(v) for k, v in folders.items()},
        'shown': [],
    }
    pixels = []
    for place, index in enumerate(shown):
        info = loader.dataset.get_data_info(index)
        pixels.append(_pixels(info))
        report['shown'].append(
            {
                'name': Path(info.get('img_path') or f'image {index}').name,
                'width': pixels[-1].shape[1],
                'height': pixels[-1].shape[0],
                'truth': _truth(info, classes),
                'predictions': {
                    k: v[place] for k, v in predictions.items() if v
                },
            }
        )
    return report, pixels


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

    def observe(_: dict[str, Tensor], seen: dict[str, Seen]) -> None:
        for name, tap in seen.items():
            for level in tap.levels:
                shape = level.student.shape
                if name in distiller.roi_taps:
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
            if distiller.roi_taps:
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


def summarize(values: Values, keep: np.ndarray | None = None) -> dict:
    """Statistics of samples.

    Args:
        values (Values): What was measured of each sample.
        keep (np.ndarray, optional): Which of them count, bool, (N,).

    Returns:
        dict: ``count``; ``zeros``, those where a feature is 0, which has no
        direction; and mean, standard deviation, quantiles and histogram of
        ``angle`` (degrees), ``norm_ratio`` (of a sample) and
        ``equal_codes`` (share). ``norm_ratio.of_means`` is the student's
        mean norm over the teacher's.
    """
    if keep is None:
        keep = np.ones(len(values.angle), bool)
    angle, student, teacher, codes = (
        x[keep].astype(np.float64) for x in values[:4]
    )
    directed = np.isfinite(angle)
    some = teacher > 0
    total = teacher.sum()
    return {
        'count': len(angle),
        'zeros': int((~directed).sum()),
        'angle': _spread('angle', angle[directed]),
        'norm_ratio': {
            'of_means': student.sum() / total if total > 0 else None,
            **_spread('norm_ratio', student[some] / teacher[some]),
        },
        'equal_codes': _spread('equal_codes', codes),
    }


def groups_of(
    values: Values, num_classes: int, split: bool
) -> dict[str, np.ndarray]:
    """Which samples are of which group.

    Args:
        values (Values): What was measured of each sample.
        num_classes (int): How many classes there are.
        split (bool): Whether foreground and background are groups.

    Returns:
        dict[str, np.ndarray]: Name of a group, or index of a class as text
        -> its samples, bool, (N,).
    """
    groups: dict[str, np.ndarray] = {'all': np.ones(len(values.labels), bool)}
    if split:
        foreground = np.any(values.labels >= 0, axis=1)
        groups['foreground'] = foreground
        groups['background'] = np.logical_not(foreground)
    for index in range(num_classes):
        groups[str(index)] = np.any(values.labels == index, axis=1)
    return groups


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


@torch.no_grad()
def predict(model: Any, data: Any, classes: Sequence[str]) -> list[dict]:
    """What a model sees in an image.

    Args:
        model (BaseModel): Detector or classifier.
        data (dict): An item of its validation data set.
        classes (list[str]): Names of the classes.

    Returns:
        list[dict]: Of detections ``label``, ``score`` and ``box``, (x1, y1,
        x2, y2) in pixels of the image file; of classes the best ones.
    """
    (found,) = model.test_step(pseudo_collate([data]))
    if 'pred_instances' not in found:
        scores, labels = found.pred_score.topk(
            min(SHOWN_CLASSES, len(classes))
        )
        return [
            {'label': classes[label], 'score': score}
            for label, score in zip(
                labels.tolist(), scores.tolist(), strict=True
            )
        ]
    found = found.pred_instances
    found = found[found.scores > SCORE]
    return [
        {'label': classes[label], 'score': score, 'box': box}
        for label, score, box in zip(
            found.labels.tolist(),
            found.scores.tolist(),
            found.bboxes.tolist(),
            strict=True,
        )
    ]


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


def _summarize_tap(
    algorithm: FeatureMimicDistill,
    tap: str,
    values: Mapping[str, Mapping[str, Values]],
    classes: Sequence[str],
    split: bool,
) -> dict[str, Any]:
    distiller = algorithm.distiller
    found = {k: v[tap] for k, v in values.items() if tap in v}
    kind = 'locations' if split else 'images'
    kind = 'boxes' if tap in distiller.roi_taps else kind
    students = {}
    for name, measured in found.items():
        groups = groups_of(measured, len(classes), split)
        summaries = {k: summarize(measured, v) for k, v in groups.items()}
        per_class = {x: summaries.pop(str(i)) for i, x in enumerate(classes)}
        for summary in per_class.values():
            for part in ('angle', 'norm_ratio', 'equal_codes'):
                summary[part].pop('histogram')
        students[name] = {
            **summaries,
            'classes': per_class,
            'joint': {k: _joint(measured, groups[k]) for k in summaries},
        }
    layer = distiller.taps[tap]
    loss = _lsh_loss(distiller, tap)
    return {
        'layer': layer.student,
        'teacher_layer': layer.teacher,
        'record': layer.record,
        'samples': kind,
        'hashes': '4 per channel, bias zero, seed 0, drawn for this page'
        if loss is None
        else f'{len(loss.weight)}, bias {loss.bias_kind}, seed {loss.seed}, '
        f"the config's",
        'bins': {k: v.tolist() for k, v in BINS.items()},
        'students': students,
    }


def _spread(name: str, values: np.ndarray) -> dict[str, Any]:
    """Mean, standard deviation, quantiles and histogram."""
    edges = BINS[name]
    counts, _ = np.histogram(values, edges)
    histogram = {
        'counts': counts.tolist(),
        'below': int((values < edges[0]).sum()),
        'above': int((values > edges[-1]).sum()),
    }
    if not len(values):
        empty = dict.fromkeys(('mean', 'std', *QUANTILES))
        return {**empty, 'histogram': histogram}
    found = np.percentile(values, list(QUANTILES.values()))
    return {
        'mean': values.mean(),
        'std': values.std(),
        **dict(zip(QUANTILES, found.tolist(), strict=True)),
        'histogram': histogram,
    }


def _joint(values: Values, keep: np.ndarray) -> dict[str, Any]:
    """Histogram of angle and norm ratio together."""
    keep = keep & (values.teacher > 0) & np.isfinite(values.angle)
    counts, *_ = np.histogram2d(
        values.angle[keep],
        values.student[keep] / values.teacher[keep],
        (BINS['angle'], BINS['norm_ratio']),
    )
    counts = counts.astype(int)
    return {
        'counts': counts.tolist(),
        'outside': int(keep.sum() - counts.sum()),
    }


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


def _calibrate(
    algorithm: FeatureMimicDistill, loader: Any, num_images: int, seed: int
) -> None:
    """Set the bias of losses that ask for the teacher's features."""
    if algorithm.distiller.uncalibrated():
        size = loader.batch_size or loader.batch_sampler.batch_size
        total = min(math.ceil(num_images / size), len(loader))
        batches = itertools.islice(loader, total)
        calibrate(algorithm, batches, total, NUM_ROIS, seed)


def _work_dirs(
    students: Mapping[str, str], given: Mapping[str, str]
) -> dict[str, Path]:
    """Folders with the scalars of trainings."""
    folders = {}
    for name in given:
        if name not in students:
            raise ConfigError(
                f'work-dirs: {name!r} is no student; the students are '
                f'{sorted(students)}'
            )
    for name, checkpoint in students.items():
        folder = Path(given.get(name, Path(checkpoint).parent))
        if any(folder.glob('*/vis_data/scalars.json')):
            folders[name] = folder
        elif name in given:
            raise ConfigError(
                f'work-dirs: {folder} of {name} has no */vis_data/'
                f'scalars.json; give the work folder of its training'
            )
    return folders


def _pick_images(dataset: Any, wanted: Sequence[str] | int) -> list[int]:
    """Indices of images to show."""
    if isinstance(wanted, int):
        return list(range(min(wanted, len(dataset))))
    names = {
        Path(dataset.get_data_info(i).get('img_path') or str(i)).name: i
        for i in range(len(dataset))
    }
    for name in wanted:
        if name not in names:
            raise ConfigError(
                f'images: {name} is none of the {len(names)} validation '
                f'images, such as {next(iter(names))}'
            )
    return [names[x] for x in wanted]


def _pixels(info: Mapping[str, Any]) -> np.ndarray:
    """An image, BGR, (H, W, 3)."""
    if 'img' in info:  # CIFAR's, RGB
        return np.ascontiguousarray(info['img'][..., ::-1])
    return mmcv.imread(info['img_path'], flag='color')


def _truth(info: Mapping[str, Any], classes: Sequence[str]) -> list[dict]:
    if 'instances' in info:
        return [
            {
                'label': classes[x['bbox_label']],
                'box': list(map(float, x['bbox'])),
            }
            for x in info['instances']
        ]
    labels = np.atleast_1d(info['gt_label']).tolist()
    return [{'label': classes[x]} for x in labels]


def _versions() -> dict[str, str]:
    found = {'lshfm_mm': __version__, 'python': platform.python_version()}
    for package in PACKAGES:
        if stacks.version(package):
            found[package] = stacks.version(package)
    return {**found, 'numpy': np.__version__, 'opencv': cv2.__version__}


def _files(
    cfg: Config, config: str, students: Mapping[str, str]
) -> dict[str, dict[str, str | None]]:
    """All files that the numbers depend on, and their SHA-256."""
    dataset = cfg.val_dataloader.dataset
    named = {'config': config, TEACHER: cfg.model.get('teacher_ckpt')}
    named.update(students)
    if dataset.get('ann_file'):
        root = dataset.get('data_root') or ''
        named['annotations'] = str(Path(root) / dataset.ann_file)
    return {
        name: {
            'path': path,
            'sha256': hashlib.sha256(Path(path).read_bytes()).hexdigest()
            if Path(path).is_file()
            else None,  # a URL
        }
        for name, path in named.items()
        if path
    }
