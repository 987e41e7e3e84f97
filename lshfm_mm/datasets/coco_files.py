"""Annotation files of COCO's format: what mmdet would not use of them."""

import gc
import json
from collections.abc import Collection, Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

from mmdet.datasets import (
    CocoDataset,
    Objects365V1Dataset,
    Objects365V2Dataset,
)
from mmengine.logging import print_log

from ..errors import ConfigError, nearest
from .unused import Unused, warn

NAMED = 10  # categories that a message lists
UNWANTED = 'category that metainfo.classes leaves out'
LARGE = 50e6  # bytes; a file of more is read for seconds
# Content of files that data sets have yet to take over, by absolute path.
kept: dict[str, dict[str, Any]] = {}


class KeptCOCO(CocoDataset.COCOAPI):
    """pycocotools' index of a file that need not be read a second time."""

    LOADERS = (  # those that read a file by the COCOAPI of their class
        CocoDataset.load_data_list,
        Objects365V1Dataset.load_data_list,
        Objects365V2Dataset.load_data_list,
    )

    def __init__(self, annotation_file: str | None = None) -> None:
        content = kept.pop(str(Path(annotation_file or '').absolute()), None)
        super().__init__(None if content else annotation_file)
        if content:
            self.dataset = content
            self.createIndex()
            self.img_ann_map = self.imgToAnns
            self.cat_img_map = self.catToImgs


def keep(path: Path, content: dict[str, Any], kind: type[CocoDataset]) -> None:
    """Let mmdet's data set of a file take over what was read."""
    kind.COCOAPI = KeptCOCO
    kept[str(path.absolute())] = content


def read_json(field: str, path: Path) -> Any:
    """Read a file, unless it has been read and is kept.

    Raises:
        ConfigError: If it is no whole JSON file.
    """
    if content := kept.get(str(path.absolute())):
        return content
    size = path.stat().st_size
    if size > LARGE:
        print_log(f'{field}: reading {path}, {size / 1e6:,.0f} MB', 'current')
    collects = gc.isenabled()
    gc.disable()  # it would look through the growing content all the time
    try:
        return json.loads(path.read_text(encoding='utf-8'))
    except ValueError as error:
        raise ConfigError(
            f'{field}: {path} is no whole JSON file ({error}); copy or make '
            f'it again'
        ) from error
    finally:
        if collects:
            gc.enable()


def read_classes(
    field: str, classes: Sequence[str] | None
) -> Sequence[str] | None:
    """The classes of a config, which may name a file of them.

    Raises:
        ConfigError: If they are a word, of which mmdet takes the letters.
    """
    if not isinstance(classes, str):
        return classes
    if not Path(classes).is_file():
        raise ConfigError(
            f'{field.rpartition(".")[0]}.metainfo.classes: must be a tuple of '
            f'names, but got {classes!r}; write {(classes,)}'
        )
    names = Path(classes).read_text(encoding='utf-8').split('\n')
    return [x.rstrip('\r') for x in names if x.strip()]


def check_classes(
    field: str,
    path: Path,
    content: Mapping[str, Any],
    classes: Sequence[str] | None,
    kind: type[CocoDataset],
) -> list[str]:
    """The classes, which mmdet numbers as the config does.

    Raises:
        ConfigError: If it does not, or a class is not in the file.
    """
    names = [x['name'] for x in content['categories']]
    where = field.rpartition('.')[0] + '.metainfo.classes'
    classes = read_classes(field, classes)
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
        ids = [x['id'] for x in content['categories'] if x['name'] == name]
        if len(ids) > 1:
            used = {x['category_id'] for x in content.get('annotations', ())}
            idle = [x for x in ids if x not in used]
            raise ConfigError(
                f'{field}: {path} has the categories {ids} of one name, '
                f'{name!r}, and mmdet makes a class of each; '
                + (f'remove {idle}, unused' if idle else 'rename or join them')
            )
    found = [x for x in names if x in classes]
    if found != classes:
        raise ConfigError(
            f'{where}: mmdet numbers classes in the order of the categories '
            f'of {path}; write {tuple(found)}'
        )
    return classes


def check_ids(
    field: str, path: Path, content: Mapping[str, Any], kind: Any
) -> None:
    """Look for ids that repeat: pycocotools keeps the last of each."""
    keys = ['categories', 'images']
    if kind.ANN_ID_UNIQUE:
        keys.append('annotations')
    for key in keys:
        entries = content.get(key, ())
        if len({x['id'] for x in entries}) == len(entries):
            continue
        repeated = Unused()
        seen = set()
        for entry in entries:
            if entry['id'] in seen:
                repeated.add('id', repr(entry['id']))
            seen.add(entry['id'])
        count, first = repeated.reasons['id']
        fact = f'{field}: {count:,} {key} of {path} repeat ids, first {first}'
        if key != 'images':
            raise ConfigError(f'{fact}; number them anew')
        warn(f'{fact}: the last of each gets the boxes of all')


def check_boxes(
    field: str,
    path: Path,
    content: Mapping[str, Any],
    dataset: Mapping[str, Any],
    classes: Collection[str] | None,
    masks: Mapping[str, Any] | None,
    filters: bool,
) -> None:
    """Say what mmdet's ``parse_data_info`` and ``filter_data`` leave out.

    Args:
        field (str): Where the file is named, for messages.
        path (Path): The file.
        content (dict): What is in it.
        dataset (dict): Config of the data set.
        classes (list[str], optional): Those that are wanted. Defaults to all.
        masks (dict, optional): The transform that loads masks.
        filters (bool): Whether images are filtered as in mmdet.

    Raises:
        ConfigError: If a box is none, or nothing is left.
    """
    sizes = {x['id']: (x['width'], x['height']) for x in content['images']}
    names = {x['id']: x['name'] for x in content['categories']}
    wanted = {x for x in names if classes is None or names[x] in classes}
    unused, with_boxes, beyond = Unused(), set(), 0
    annotations = content.get('annotations', ())
    for entry in annotations:
        if entry['category_id'] in wanted:
            with_boxes.add(entry['image_id'])  # mmdet's filter asks no more
        reason = _why_unused(entry, sizes, names, wanted)
        if reason is None:
            raise ConfigError(
                f'{field}: annotation {entry["id"]} of {path} has the box '
                f'{entry["bbox"]} and area {entry["area"]} in an image of '
                f'{sizes[entry["image_id"]]}; write [x, y, width, height] in '
                f'pixels, or remove it'
            )
        if masks and not reason:
            reason = _mask_fault(field, path, entry, masks)
        if reason:
            key = reason.split()[0]
            key = key if key.endswith('_id') else 'bbox'
            unused.add(reason, f'annotation {entry["id"]}: {entry[key]!r}')
            continue
        x, y, w, h = entry['bbox']
        width, height = sizes[entry['image_id']]
        beyond += x + w > width + 1 or y + h > height + 1
    left_out = Unused()
    if filters:
        left_out = _left_out(content, dataset, with_boxes)
    images = len(content['images'])
    unused.tell(
        *(field, path, len(annotations), 'boxes'),
        'write [x, y, width, height] in pixels, area and ids as in '
        "COCO's files",
        unused.reasons.keys() <= {UNWANTED} and left_out.count < images,
    )
    if beyond > len(annotations) / 2:
        warn(
            f'{field}: {beyond:,} of the {len(annotations):,} boxes of {path} '
            f'reach out of their images; COCO writes [x, y, width, height], '
            f'not [x1, y1, x2, y2]'
        )
    settings = dict(dataset.get('filter_cfg') or {})
    left_out.tell(
        *(field, path, images, 'images'),
        f"mend the file, or the data set's filter_cfg, {settings}",
    )
    if not annotations:
        warn(
            f'{field}: {path} has no annotations: all of its images are '
            f'background'
        )


def _why_unused(
    entry: Mapping[str, Any],
    sizes: Mapping[Any, tuple[float, float]],
    names: Mapping[Any, str],
    wanted: Collection[Any],
) -> str | None:
    """Why a box is not learnt, '' if it is, None if it is none."""
    image, category, box = (
        entry[x] for x in ('image_id', 'category_id', 'bbox')
    )
    if image not in sizes:
        return _absent('image_id', image, sizes)
    if entry.get('ignore'):
        return 'ignore is 1'
    try:
        x, y, w, h = box
        if category not in wanted:
            if category in names:
                return UNWANTED
            return _absent('category_id', category, names)
        if not isfinite(sum(box) + entry['area']):
            return None
        width, height = sizes[image]
        within = min(x + w, width) > max(x, 0) and min(y + h, height) > max(
            y, 0
        )
    except (TypeError, ValueError):  # no four numbers
        return None
    if not within:
        return 'box outside of its image or without extent'
    if entry['area'] <= 0:
        return 'area is 0'
    if min(w, h) < 1:
        return 'box below 1 pixel'
    return 'iscrowd is 1' if entry.get('iscrowd') else ''


def _absent(field: str, value: Any, known: Collection[Any]) -> str:
    """Why an id is none of those that are known."""
    if str(value) in map(str, known):
        return (
            f'{field} is a {type(value).__name__}, those of the file are not'
        )
    return f'{field} is not in the file'


def _mask_fault(
    field: str, path: Path, entry: Mapping[str, Any], masks: Mapping[str, Any]
) -> str:
    """Why LoadAnnotations would ignore a mask; '' if it does not."""
    mask = entry.get('segmentation')
    if not mask:
        raise ConfigError(
            f'{field}: annotation {entry["id"]} of {path} has no '
            f"'segmentation', and the pipeline loads masks; add polygons, or "
            f'set with_mask=False for a model without a mask head'
        )
    if isinstance(mask, list):
        if not all(isinstance(x, list) for x in mask):
            raise ConfigError(
                f'{field}: annotation {entry["id"]} of {path} has the '
                f'segmentation {str(mask)[:40]}; write a list of polygons, '
                f'[[x, y, ...]]'
            )
        fits = any(len(x) % 2 == 0 and len(x) >= 6 for x in mask)
        return '' if fits else 'segmentation without a polygon'
    return '' if masks.get('poly2mask', True) else 'poly2mask=False, and RLE'


def _left_out(
    content: Mapping[str, Any],
    dataset: Mapping[str, Any],
    with_boxes: Collection[Any],
) -> Unused:
    """Count which images mmdet's ``filter_data`` leaves out."""
    settings = dataset.get('filter_cfg') or {}
    least = settings.get('min_size', 0)
    unused = Unused()
    for image in content['images']:
        if settings.get('filter_empty_gt') and image['id'] not in with_boxes:
            unused.add('no annotation, and filter_empty_gt', image['id'])
        elif min(image['width'], image['height']) < least:
            unused.add(f'smaller than min_size {least}', image['id'])
    return unused
