"""Annotation files of VOC's format: what mmdet would not use of them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from mmdet.datasets import XMLDataset
from mmengine.logging import print_log

from ..errors import ConfigError, nearest
from .coco_files import read_classes
from .unused import Unused, warn

CORNERS = ('xmin', 'ymin', 'xmax', 'ymax')
SIZE = ('width', 'height')
MANY = 2000  # files that take seconds to read


def check_xml(
    field: str,
    path: Path,
    dataset: Mapping[str, Any],
    kind: type[XMLDataset],
    trains: bool,
) -> list[str]:
    """Say what mmdet's ``XMLDataset`` leaves out of a list of images.

    Args:
        field (str): Where the list is named, for messages.
        path (Path): The list, an image's name without suffix a line.
        dataset (dict): Config of the data set.
        kind (type): Its class.
        trains (bool): Whether boxes and images are filtered as in training.

    Returns:
        list[str]: The classes.

    Raises:
        ConfigError: If a file is absent or cannot be read, a box is none, or
            nothing is left.
    """
    given = (dataset.get('metainfo') or {}).get('classes')
    given = read_classes(field, given)
    classes = list(given or kind.METAINFO.get('classes') or ())
    settings = dataset.get('filter_cfg') or {}
    unused, left_out = Unused(), Unused()
    prefix = (dataset.get('data_prefix') or {}).get('sub_data_root') or ''
    if '://' in (dataset.get('data_root') or '') + prefix:
        return classes
    names = path.read_text(encoding='utf-8').splitlines()
    if len(names) > MANY:
        print_log(f'{field}: reading {len(names):,} XML files', 'current')
    total = 0
    for name in names:
        root = _read(field, path, dataset, name)
        entries = [(x, x.findtext('name')) for x in root.findall('object')]
        total += len(entries)
        for entry, label in entries:
            reason = _why_unused(entry, label, classes, settings)
            if reason is None:
                raise ConfigError(
                    f'{field}: an object of {name}.xml has no bndbox of 4 '
                    f'numbers, xmin <= xmax and ymin <= ymax, or a difficult '
                    f'that is none; mend or remove it'
                )
            if reason:
                unused.add(reason, f'{name}.xml')
        size = _size(field, name, root)
        least = settings.get('min_size', 0)
        is_empty = all(label not in classes for _, label in entries)
        if settings.get('filter_empty_gt') and is_empty:
            left_out.add('no object, and filter_empty_gt', name)
        elif 0 < min(size) < least:
            left_out.add(f'smaller than min_size {least}', name)
    if trains and not total:
        warn(f'{field}: the files of {path} have no objects: all background')
    if trains:
        only_unwanted = all(x.startswith('no class') for x in unused.reasons)
        unused.tell(
            *(field, path, total, 'boxes', f'the classes are {classes}'),
            only_unwanted and left_out.count < len(names),
        )
        left_out.tell(
            *(field, path, len(names), 'images'),
            f"mend the list, or the data set's filter_cfg, {dict(settings)}",
        )
    return classes


def _read(
    field: str, path: Path, dataset: Mapping[str, Any], name: str
) -> ElementTree.Element:
    """Read the file of an image, which must be there, too."""
    prefix = (dataset.get('data_prefix') or {}).get('sub_data_root') or ''
    root = Path(dataset.get('data_root') or '', prefix) if prefix else Path()
    annotations = dataset.get('ann_subdir', 'Annotations')
    images = dataset.get('img_subdir', 'JPEGImages')
    xml = root / annotations / f'{name}.xml'
    for file in (xml, root / images / f'{name}.jpg'):
        if not file.is_file():
            raise ConfigError(
                f'{field}: {path} names {name!r}, but there is no {file}; add '
                f'it, or set data_prefix.sub_data_root'
            )
    try:
        return ElementTree.parse(xml).getroot()
    except ElementTree.ParseError as error:
        raise ConfigError(
            f'{field}: {xml} is no whole XML file ({error}); mend it'
        ) from error


def _size(field: str, name: str, root: ElementTree.Element) -> list[int]:
    """Width and height; 0 where mmdet would ask the image."""
    size = root.find('size')
    if size is None:
        return [0, 0]
    try:
        return [int(size.findtext(x, '')) for x in SIZE]
    except ValueError as error:
        raise ConfigError(
            f'{field}: the size of {name}.xml is no whole numbers, '
            f'{[size.findtext(x) for x in SIZE]}; mend it, or leave it out'
        ) from error


def _why_unused(
    entry: ElementTree.Element,
    label: str | None,
    classes: Sequence[str],
    settings: Mapping[str, Any],
) -> str | None:
    """Why an object is not learnt, '' if it is, None if its box is none."""
    if label not in classes:
        return f'no class {label!r}{nearest(str(label), classes)}'
    try:
        left, top, right, bottom = (
            int(float(entry.findtext(f'bndbox/{x}', ''))) for x in CORNERS
        )
        difficult = int(entry.findtext('difficult', '0'))
    except ValueError:
        return None
    width, height = right - left, bottom - top
    if min(width, height) < 0:
        return None
    least = settings.get('bbox_min_size') or 0
    if min(width, height) < least:
        return f'smaller than bbox_min_size {least}'
    return 'difficult is 1' if difficult else ''
