"""What students have learnt of their teacher: all numbers of a report.

All students are compared with the teacher on the same samples, by the same
hash functions. Boxes are drawn around the annotated objects, see
:func:`lshfm_mm.distillers.roi_sampling.jittered_rois`, since each student's
own proposals would be other ones. Maps give their locations inside the
images, and classifiers their images. All samples count alike, whatever the
config says.
"""

import hashlib
import itertools
import math
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import init_default_scope

from ..algorithms.feature_mimic import FeatureMimicDistill
from ..calibration.calibrate import calibrate
from ..compat import stacks
from ..datasets.check_files import check_data
from ..errors import ConfigError, check_int
from ..export.student import check_weights
from ..teachers.settings import read_teachers
from ..training.evaluation import predicts, validate
from ..utils.checkpoints import read_checkpoint
from ..utils.configs import read_config
from ..version import __version__
from .collect import (
    NUM_ROIS,
    Values,
    build_algorithm,
    build_loader,
    collect,
    knows,
    load_student,
    plain_classifier,
)
from .curves import read_curves
from .detections import SCORE, pick_images, predict, read_pixels, truth_of
from .labels import IOU
from .mimicked import mimicked_layers
from .summarize import summarize_tap

# Why a student is not compared.
NO_CONNECTOR = 'its checkpoint has no connector; give its training checkpoint'
NO_EMBEDDING = (
    'at all: it has no embedding before its classifier, as the config has, so '
    'its feature is of another width'
)
PACKAGES = (
    *('torch', 'mmengine', 'mmcv', 'mmdet', 'mmrazor', 'mmpretrain'),
    'numpy',
)


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
    check_int('num-images', num_images, 1)
    cfg = _read(config, students)
    folders = _work_dirs(students, work_dirs or {})
    loader = build_loader(cfg)
    dataset = loader.dataset
    shown = pick_images(dataset, images)
    algorithm = build_algorithm(cfg)
    distiller = algorithm.distiller
    classes = list(dataset.metainfo['classes'])
    is_detector = any(
        hasattr(algorithm.student, x) for x in ('bbox_head', 'roi_head')
    )
    _calibrate(algorithm, loader, num_images, seed)

    metrics: dict[str, Any] = {}
    predictions: dict[str, list[list[dict]]] = {}
    values: dict[str, dict[str, Values]] = {}
    left_out: dict[str, str] = {}
    mimicked: dict[str, list[str] | None] = {}
    teachers = {x.settings.label: x.model for x in algorithm.teachers.values()}
    for name in [*teachers, *students]:
        if name in teachers:
            model = teachers[name]
        else:
            content = read_checkpoint('checkpoint', students[name])
            mimicked[name] = mimicked_layers(content)
            model, lacking, why = _put_student(algorithm, cfg, students[name])
            values[name] = {}
            if model is algorithm.student:
                values[name] = collect(
                    algorithm, loader, num_images, seed, title=name
                )
            for tap in lacking:
                del values[name][tap]
            if why:
                left_out[name] = why
        model.eval()
        parameters = sum(x.numel() for x in model.parameters())
        metrics[name] = {'parameters': parameters}
        if name in students or (
            predicts(model, algorithm.student) and knows(model, len(classes))
        ):
            metrics[name].update(validate(model, cfg, 'WARNING'))
            predictions[name] = [
                predict(model, dataset[index], classes) for index in shown
            ]
    if not any(values.values()):
        raise ConfigError(
            f'students: none of {[*students]} has the embedding that {config} '
            f'gives them, so nothing can be compared; add one that has'
        )
    records, pixels = _show(dataset, shown, classes, predictions)
    report = {
        **_setting(config, cfg, students, algorithm),
        'task': 'detection' if is_detector else 'classification',
        'classes': classes,
        'images': min(num_images, len(dataset)),
        'seed': seed,
        'score': SCORE if is_detector else None,
        'metrics': metrics,
        'taps': {
            tap: summarize_tap(distiller, tap, values, classes, is_detector)
            for tap in distiller.taps
            if any(tap in measured for measured in values.values())
        },
        'left_out': left_out,
        'mimicked': mimicked,
        'curves': {k: read_curves(v) for k, v in folders.items()},
        'shown': records,
    }
    return report, pixels


def _put_student(
    algorithm: FeatureMimicDistill, cfg: Config, checkpoint: str
) -> tuple[BaseModel, list[str], str]:
    """Load a student, into the algorithm if its feature can be compared.

    Returns:
        tuple[BaseModel, list[str], str]: The student, the taps at which it is
        not compared, and why it is not, at these or anywhere.
    """
    plain = plain_classifier(cfg, checkpoint)
    if plain is not None:
        return plain, [], NO_EMBEDDING
    lacking = load_student(algorithm, checkpoint)
    why = f'at {", ".join(lacking)}: {NO_CONNECTOR}' if lacking else ''
    return algorithm.student, lacking, why


def _read(config: str, students: Mapping[str, str]) -> Config:
    """Read the config; raise unless data and checkpoints fit it."""
    cfg = read_config('config', config)
    for field, part in (
        ('model.distiller', cfg.model.get('distiller')),
        ('val_dataloader', cfg.get('val_dataloader')),
    ):
        if part is None:
            raise ConfigError(
                f'{field}: {config} has none; give the config of a '
                f'distillation with a validation set'
            )
    check_data(cfg, ('val_dataloader',))
    init_default_scope(cfg.get('default_scope') or 'mmdet')
    teachers = {x.label for x in read_teachers(cfg.model).values()}
    for name, checkpoint in students.items():
        if name in teachers:
            raise ConfigError(
                f'{name}={checkpoint}: the teacher is there already, from '
                f'{config}; give another name'
            )
        if plain_classifier(cfg, checkpoint) is None:
            check_weights(cfg, checkpoint)
    return cfg


def _show(
    dataset: Any,
    indices: Sequence[int],
    classes: Sequence[str],
    predictions: Mapping[str, Sequence[list[dict]]],
) -> tuple[list[dict[str, Any]], list[np.ndarray]]:
    """Images with what is annotated and what the models see, and pixels."""
    infos = [dataset.get_data_info(index) for index in indices]
    pixels = [read_pixels(info) for info in infos]
    records = [
        {
            'name': Path(info.get('img_path') or f'image {index}').name,
            'width': image.shape[1],
            'height': image.shape[0],
            'truth': truth_of(info, classes),
            'predictions': {k: v[place] for k, v in predictions.items()},
        }
        for place, (index, info, image) in enumerate(
            zip(indices, infos, pixels, strict=True)
        )
    ]
    return records, pixels


def _calibrate(
    algorithm: FeatureMimicDistill, loader: Any, num_images: int, seed: int
) -> None:
    """Set bias and std of losses that ask for the teacher's features."""
    if algorithm.distiller.uncalibrated():
        size = loader.batch_sampler.batch_size
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


def _setting(
    config: str,
    cfg: Config,
    students: Mapping[str, str],
    algorithm: FeatureMimicDistill,
) -> dict[str, Any]:
    """What was compared, and how it can be done again."""
    has_boxes = bool(algorithm.distiller.records.on_rois)
    installed = {package: stacks.version(package) for package in PACKAGES}
    return {
        'config': config,
        'config_text': cfg.pretty_text,
        'students': list(students),
        'rois_per_image': NUM_ROIS if has_boxes else None,
        'foreground_iou': IOU if has_boxes else None,
        'versions': {
            'lshfm_mm': __version__,
            'python': platform.python_version(),
            **{k: v for k, v in installed.items() if v},
            'opencv': cv2.__version__,
        },
        'files': _files(cfg, config, students),
    }


def _files(
    cfg: Config, config: str, students: Mapping[str, str]
) -> dict[str, dict[str, str | None]]:
    """All files that the numbers depend on, and their SHA-256."""
    dataset = cfg.val_dataloader.dataset
    teachers = read_teachers(cfg.model).values()
    named = {'config': config, **{x.label: x.ckpt for x in teachers}}
    named.update(students)
    if dataset.get('ann_file'):
        root = dataset.get('data_root') or ''
        named['annotations'] = str(Path(root) / dataset.ann_file)
    return {k: _file(path) for k, path in named.items() if path}


def _file(path: str) -> dict[str, str | None]:
    digest = None  # of a URL
    if Path(path).is_file():
        digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    return {'path': path, 'sha256': digest}
