"""Annotation files, looked into before a training starts on them.

What mmdet makes of a wrong one is worse than an error: classes that the file
does not have are left out and the others renumbered, boxes without a size are
dropped, and one of NaN ends the training in NaN.
"""

import json
import math
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmdet.datasets import CocoDataset, XMLDataset
from mmengine.dataset import BaseDataset

from ..errors import ConfigError
from .coco_files import (
    KeptCOCO,
    check_boxes,
    check_classes,
    check_ids,
    keep,
    read_json,
)
from .xml_files import check_xml

NEEDED = {
    'categories': {'id', 'name'},
    'images': {'id', 'width', 'height'},
    'annotations': {'id', 'image_id', 'category_id', 'bbox', 'area'},
}


def check_annotations(
    field: str,
    path: Path,
    dataset: Mapping[str, Any],
    kind: Any,
    split: str = 'train',
) -> list[str] | None:
    """Look into the annotations of a data set of mmdet or mmpretrain.

    What the data set would not use is said in one line. A file of COCO's
    format is read for both: mmdet's ``CocoDataset`` takes it over.

    Args:
        field (str): Where the file is named, for messages.
        path (Path): The file.
        dataset (dict): Config of the data set.
        kind (type): Its class; files of other formats than COCO's instances,
            VOC's and OpenMMLab's are not looked into.
        split (str): 'train', 'val' or 'test': boxes count in a training, and
            a test that only writes what it finds needs none.

    Returns:
        list[str], optional: The classes, where the file's are numbered.

    Raises:
        ConfigError: If the file cannot be read, its classes, boxes or
            entries cannot be trained on, nothing of it would be used, or an
            image is absent.
    """
    load = getattr(kind, 'load_data_list', None)
    classes = None
    if load is XMLDataset.load_data_list:
        if kind.parse_data_info is not XMLDataset.parse_data_info:
            return None
        return check_xml(field, path, dataset, kind, split == 'train')
    if takes_coco(kind):
        is_plain = load is CocoDataset.load_data_list
        content = read_coco(field, path, split != 'test', is_plain)
        check_ids(field, path, content, kind)
        if is_plain and content['categories']:
            given = _classes(dataset)
            classes = check_classes(field, path, content, given, kind)
        if split == 'train':
            masks = _loads_masks(dataset)
            filters = kind.filter_data is CocoDataset.filter_data
            check_boxes(
                *(field, path, content, dataset, classes, masks, filters)
            )
        if load in KeptCOCO.LOADERS and issubclass(KeptCOCO, kind.COCOAPI):
            keep(path, content, kind)
        if not is_plain:  # LVIS, Objects365: names of images are their own
            return None
        starts = kind.__init__ is CocoDataset.__init__
        if starts and 'img' not in (dataset.get('data_prefix') or {}):
            where = field.rpartition('.')[0]
            raise ConfigError(
                f'{where}.data_prefix: must name the folder of the images as '
                f"dict(img='train/'), but got {dataset.get('data_prefix')!r}"
            )
        key, names = 'img', [x['file_name'] for x in content['images']]
    elif load is BaseDataset.load_data_list and path.suffix == '.json':
        content = _read(field, path, ('data_list',))
        if 'metainfo' not in content:
            raise ConfigError(f"{field}: {path} has no 'metainfo'; add one")
        key, known = 'img_path', content['metainfo'].get('classes')
        entries = content['data_list']
        names = [x[key] for x in entries if x.get(key)]
        labels = [(x.get(key), x.get('gt_label', [])) for x in entries]
        labels = [(x, y) for x, y in labels if y != -1]  # of no class
        _check_labels(field, path, labels, _classes(dataset) or known)
    elif lists_files(kind):
        key, names = 'img_path', path.read_text(encoding='utf-8').splitlines()
        if dataset.get('with_label', True):
            pairs = [x.strip().rpartition(' ')[::2] for x in names]
            names = [name for name, _ in pairs]
            known = (getattr(kind, 'METAINFO', None) or {}).get('classes')
            _check_labels(field, path, pairs, _classes(dataset) or known)
    else:
        return None
    prefix = dataset.get('data_prefix') or ''
    if isinstance(prefix, Mapping):
        prefix = prefix.get(key) or ''
    root = dataset.get('data_root') or ''
    loaders = dataset.get('pipeline') or ()
    if '://' not in root + prefix and not any(map(is_remote, loaders)):
        _check_images(field, path, Path(root) / prefix, names)
    return classes


def is_remote(part: Mapping[str, Any]) -> bool:
    """Whether a config reads its files from elsewhere than a disk."""
    backend = (part.get('backend_args') or {}).get('backend', 'local')
    return backend != 'local'


def takes_coco(kind: Any) -> bool:
    """Whether a class takes the entries of COCO's files, as mmdet does."""
    parse = getattr(kind, 'parse_data_info', None)
    return parse is CocoDataset.parse_data_info


def lists_files(kind: Any) -> bool:
    """Whether a class loads as the ``CustomDataset`` of mmpretrain, an extra.

    A line of its list is an image and a label, and its folders are classes.
    """
    load = getattr(kind, 'load_data_list', None)
    return getattr(load, '__module__', '') == 'mmpretrain.datasets.custom'


def read_coco(
    field: str, path: Path, boxes: bool = True, named: bool = False
) -> dict[str, Any]:
    """Read a file of instances; an unlabelled one has no annotations.

    Args:
        field (str): Where the file is named, for messages.
        path (Path): The file.
        boxes (bool): Whether its annotations are looked at.
        named (bool): Whether its images need a file_name; LVIS has URLs.
    """
    lists = [x for x in NEEDED if boxes or x != 'annotations']
    content = _read(field, path, lists, {'file_name'} if named else set())
    if content.get('annotations', ()) is None:
        raise ConfigError(
            f'{field}: {path} has null for its annotations; write a list'
        )
    return content


def _read(
    field: str,
    path: Path,
    lists: Sequence[str],
    of_images: Collection[str] = (),
) -> dict[str, Any]:
    """Read a file that holds non-empty lists under some keys."""
    content = read_json(field, path)
    is_dict = isinstance(content, dict)
    for key in lists:
        entries = content.get(key) if is_dict else None
        if key == 'annotations' and entries is None and is_dict:
            continue
        may_be_empty = key in ('annotations', 'categories')
        may_be_empty &= is_dict and not content.get('annotations')
        if not isinstance(entries, list) or not (entries or may_be_empty):
            form = 'COCO' if key in NEEDED else 'OpenMMLab'
            raise ConfigError(
                f'{field}: {path} has no list of {key}, or an empty one; '
                f"give a file of {form}'s format"
            )
        needed = NEEDED.get(key, set())
        needed = needed.union(of_images) if key == 'images' else needed
        for entry in entries:
            if not needed <= entry.keys():
                raise ConfigError(
                    f'{field}: {path} has {key} without '
                    f'{sorted(needed - entry.keys())}, such as '
                    f'{json.dumps(entry)[:60]}; add them'
                )
    return content


def _classes(dataset: Mapping[str, Any]) -> Any:
    """The names of the classes, where a data set's config has them."""
    metainfo = dataset.get('metainfo') or {}
    return dataset.get('classes') or metainfo.get('classes')


def _check_labels(
    field: str,
    path: Path,
    labels: Iterable[tuple[Any, Any]],
    classes: Any,
) -> None:
    """Raise at a label that is no number of a class."""
    count = math.inf if isinstance(classes, str | None) else len(classes)
    for name, value in labels:
        for label in value if isinstance(value, list) else [value]:
            number = int(label) if str(label).isdecimal() else -1
            if not 0 <= number < count:
                raise ConfigError(
                    f'{field}: {path} gives {name} the label {label!r}; write '
                    f'the number of a class, 0 .. {count - 1}'
                )


def _loads_masks(dataset: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The transform of a data set that loads masks."""
    transforms = dataset.get('pipeline') or ()
    return next((x for x in transforms if x.get('with_mask')), None)


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
