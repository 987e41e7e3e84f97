"""Annotation files of evaluators: what would stop a first evaluation."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmdet.evaluation import CocoMetric

from ..errors import ConfigError
from .annotations import read_coco
from .coco_files import read_json
from .unused import warn


def check_coco_metric(
    field: str,
    metric: Mapping[str, Any],
    kind: Any,
    images_of: tuple[str, Path] | None,
) -> None:
    """Look for what COCO's evaluation needs, and only finds at its end.

    Args:
        field (str): Where the metric stands, for messages.
        metric (dict): Its config.
        kind (type): Its class; others that compute otherwise than mmdet's
            ``CocoMetric`` are not looked at.
        images_of (tuple[str, Path], optional): Field and file of the data
            set whose images are evaluated.

    Raises:
        ConfigError: If an annotation lacks a key, has an id that cannot be
            counted, or an image is not in the file.
    """
    file = metric.get('ann_file')
    computes = getattr(kind, 'compute_metrics', None)
    is_coco = computes is CocoMetric.compute_metrics
    if not is_coco or not file or metric.get('format_only'):
        return
    field, path = f'{field}.ann_file', Path(file)
    content = read_coco(field, path)
    needed = {'iscrowd'}
    if 'segm' in (metric.get('metric') or ()):
        needed.add('segmentation')
    for entry in content.get('annotations', ()):
        if lacking := sorted(needed - entry.keys()):
            fixes = dict(
                iscrowd='add iscrowd, 0 for a single object',
                segmentation="add masks, or set metric='bbox'",
            )
            raise ConfigError(
                f'{field}: annotation {entry["id"]} of {path} has no '
                f'{lacking}, which COCO evaluates by; '
                f'{", and ".join(fixes[x] for x in lacking)}'
            )
        if not isinstance(entry['id'], int | float):
            raise ConfigError(
                f'{field}: annotation {entry["id"]!r} of {path}: pycocotools '
                f'counts only ids of 1, 2, ...; number them so'
            )
        if entry['id'] == 0:
            warn(
                f'{field}: annotation 0 of {path} counts as missed, in '
                f'pycocotools; number them from 1'
            )
    if images_of is None or images_of[1].absolute() == path.absolute():
        return
    evaluated = {x['id']: x.get('file_name', '') for x in content['images']}
    for image in read_json(*images_of)['images']:
        name = image.get('file_name', '')
        fact = (
            f'{field}: image {image["id"]} is '
            f'{evaluated.get(image["id"])} in {path} and {name} in '
            f'{images_of[1]}, {images_of[0]}; name one file in both'
        )
        if image['id'] not in evaluated:
            raise ConfigError(fact)
        if Path(evaluated[image['id']]).name != Path(name).name:
            warn(fact)
            return
