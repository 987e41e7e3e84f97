"""Photographs with boxes, written in the format of COCO."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from .images import shrink

SIDE = 320  # pixels of the longer side


class Box(NamedTuple):
    """An object; corners in pixels of the source."""

    label: int  # from 0 on
    left: float
    top: float
    right: float
    bottom: float


class Photograph(NamedTuple):
    """An image of the source.

    Attributes:
        number (int): Its id.
        path (Path): Where it is.
        name (str): Of the file to write.
        boxes (list[Box]): In it.
    """

    number: int
    path: Path
    name: str
    boxes: list[Box]


def write_split(
    out: Path,
    split: str,
    photographs: Sequence[Photograph],
    classes: Iterable[str],
    title: str,
    licence: str,
) -> dict[str, Any]:
    """Write the images of a split to ``images/``, and ``{split}.json``.

    Boxes are clipped to their image; what is then below a pixel is left out.

    Args:
        out (Path): Folder to write to.
        split (str): Name of the split.
        photographs (Sequence[Photograph]): In the order to write.
        classes (Iterable[str]): Names of the classes.
        title (str): Of the set.
        licence (str): Its name.

    Returns:
        dict[str, Any]: What the file holds.
    """
    (out / 'images').mkdir(exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for item in tqdm(photographs, desc=split, unit='image'):
        path = out / 'images' / item.name
        old, new = shrink(item.path, path, SIDE)
        images.append(
            {
                'id': item.number,
                'file_name': item.name,
                'width': new[0],
                'height': new[1],
                'license': 1,
            }
        )
        for label, *corners in item.boxes:
            left, top, right, bottom = (
                min(max(x * small / large, 0.0), float(small))
                for x, large, small in zip(
                    corners, old * 2, new * 2, strict=True
                )
            )
            box = (left, top, right - left, bottom - top)
            if min(box[2:]) < 1:
                continue
            annotations.append(
                {
                    'id': len(annotations) + 1,
                    'image_id': item.number,
                    'category_id': label + 1,
                    'bbox': [round(x, 2) for x in box],
                    'area': round(box[2] * box[3], 2),
                    'iscrowd': 0,
                }
            )
    content = {
        'info': {'description': f'{title}, long side {SIDE} pixels'},
        'licenses': [{'id': 1, 'name': licence}],
        'images': images,
        'annotations': annotations,
        'categories': [
            {'id': label, 'name': name, 'supercategory': 'none'}
            for label, name in enumerate(classes, start=1)
        ],
    }
    write_json(out / f'{split}.json', content)
    return content


def write_json(path: Path, content: Any) -> None:
    """Write without spaces."""
    text = json.dumps(content, separators=(',', ':'))
    path.write_text(text, encoding='utf-8')
