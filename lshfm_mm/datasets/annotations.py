"""Annotation files, looked into before a training starts on them.

What mmdet makes of a wrong one is worse than an error: classes that the file
does not have are left out and the others renumbered, boxes without a size are
dropped, and one of NaN ends the training in NaN.
"""

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmdet.datasets import CocoDataset
from mmengine.dataset import BaseDataset

from ..errors import ConfigError, nearest

NEEDED = {
    'categories': {'id', 'name'},
    'images': {'id', 'file_name', 'width', 'height'},
    'annotations': {'id', 'image_id', 'category_id', 'bbox', 'area'},
}
NAMED = 10  # categories that a message lists


def check_annotations(
    field: str,
    path: Path,
    dataset: Mapping[str, Any],
    kind: Any,
    boxes: bool = True,
) -> None:
    """Look into the JSON file of a data set of mmdet or mmpretrain.

    It is read once more when the data set is built: COCO's 450 MB take some
    15 seconds.

    Args:
        field (str): Where the file is named, for messages.
        path (Path): The file.
        dataset (dict): Config of the data set.
        kind (type): Its class; files of other formats than COCO's instances
            and OpenMMLab's are not looked into.
        boxes (bool): Whether there must be any: a test that only writes what
            it finds needs none.

    Raises:
        ConfigError: If the file cannot be read, its classes, boxes or
            entries cannot be trained on, or an image is absent.
    """
    load = getattr(kind, 'load_data_list', None)
    parse = getattr(kind, 'parse_data_info', None)
    coco = CocoDataset.load_data_list, CocoDataset.parse_data_info
    if (load, parse) == coco:
        lists = [x for x in NEEDED if boxes or x != 'annotations']
        content = _read(field, path, lists)
        classes = (dataset.get('metainfo') or {}).get('classes')
        _check_classes(field, path, content, classes, kind)
        if boxes:
            _check_boxes(field, path, content)
        key, names = 'img', [x['file_name'] for x in content['images']]
    elif load is BaseDataset.load_data_list:
        content = _read(field, path, ('data_list',))
        if 'metainfo' not in content:
            raise ConfigError(f"{field}: {path} has no 'metainfo'; add one")
        key = 'img_path'
        names = [x[key] for x in content['data_list'] if x.get(key)]
    else:
        return
    prefix = dataset.get('data_prefix') or ''
    if isinstance(prefix, Mapping):
        prefix = prefix.get(key) or ''
    root = dataset.get('data_root') or ''
    if '://' not in root + prefix:
        _check_images(field, path, Path(root) / prefix, names)


def _read(field: str, path: Path, lists: Sequence[str]) -> dict[str, Any]:
    """Read a file that holds non-empty lists under some keys."""
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except ValueError as error:
        raise ConfigError(
            f'{field}: {path} is no whole JSON file ({error}); copy or make '
            f'it again'
        ) from error
    for key in lists:
        entries = content.get(key) if isinstance(content, dict) else None
        if not isinstance(entries, list) or not entries:
            form = 'COCO' if key in NEEDED else 'OpenMMLab'
            raise ConfigError(
                f'{field}: {path} has no list of {key}, or an empty one; '
                f"give a file of {form}'s format"
            )
        for entry in entries:
            absent = NEEDED.get(key, set()) - {*entry}
            if absent:
                raise ConfigError(
                    f'{field}: {path} has {key} without {sorted(absent)}, '
                    f'such as {json.dumps(entry)[:60]}; add them'
                )
    return content


def _check_classes(
    field: str,
    path: Path,
    content: Mapping[str, Any],
    classes: Sequence[str] | None,
    kind: type[CocoDataset],
) -> None:
    """Raise unless mmdet numbers the categories as the config does."""
    names = [x['name'] for x in content['categories']]
    where = field.rpartition('.')[0] + '.metainfo.classes'
    if isinstance(classes, str):
        if not Path(classes).is_file():
            raise ConfigError(
                f'{where}: must be a tuple of names, but got {classes!r}; '
                f'write {(classes,)}'
            )
        classes = Path(classes).read_text(encoding='utf-8').split('\n')
        classes = [x.rstrip('\r') for x in classes if x.strip()]
    default = '' if classes else f' (the default of {kind.__name__})'
    classes = list(classes or kind.METAINFO['classes'])
    for name in classes:
        if name not in names:
            listed = names[:NAMED] + ['...'] * (len(names) > NAMED)
            meant = nearest(name, names) or '; name some of these'
            raise ConfigError(
                f'{where}: {name!r}{default} is none of the categories '
                f'{listed} of {path}{meant}'
            )
    found = [x for x in names if x in classes]
    if found != classes:
        raise ConfigError(
            f'{where}: mmdet numbers classes in the order of the categories '
            f'of {path}; write {tuple(found)}'
        )


def _check_boxes(field: str, path: Path, content: Mapping[str, Any]) -> None:
    """Raise at a box that is none, and where all are too small."""
    usable = 0
    for entry in content['annotations']:
        box = entry['bbox']
        numbers = isinstance(box, list) and all(
            isinstance(x, int | float) and math.isfinite(x) for x in box
        )
        if not numbers or len(box) != 4 or min(box[2:]) < 0:
            raise ConfigError(
                f'{field}: annotation {entry["id"]} of {path} has the box '
                f'{box}; write [x, y, width, height] in pixels, or remove it'
            )
        usable += min(box[2:]) >= 1
    if not usable:
        raise ConfigError(
            f'{field}: none of the {len(content["annotations"])} boxes of '
            f'{path} is 1 pixel wide and high; write [x, y, width, height] '
            f'in pixels'
        )


def _check_images(
    field: str, path: Path, folder: Path, names: Iterable[str]
) -> None:
    """Raise at an image that is not there; each folder is listed once."""
    listed: dict[str, set[str]] = {}
    for name in names:
        parent, file = os.path.split(os.path.join(folder, name))
        if parent not in listed:
            is_folder = os.path.isdir(parent)
            listed[parent] = {*os.listdir(parent)} if is_folder else set()
        if file not in listed[parent]:
            raise ConfigError(
                f'{field}: {path} names the image {name}, which is not in '
                f'{folder}; add it, or set data_prefix'
            )
