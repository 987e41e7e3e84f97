"""Aquarium: animals, in the format that Roboflow calls YOLO's."""

import re
from pathlib import Path
from typing import Any

from PIL import Image

from .coco import Box, Photograph, write_json, write_split

CLASSES = (
    'fish',
    'jellyfish',
    'penguin',
    'puffin',
    'shark',
    'starfish',
    'stingray',
)
FOLDERS = {'test': 'test', 'train': 'train', 'val': 'valid'}
# Nearly equal to photographs of validation or test.
LEFT_OUT = {
    'IMG_3155',
    'IMG_3174',
    'IMG_8403',
    'IMG_8493',
    'IMG_8522',
    'IMG_8523',
    'IMG_8527',
}


def convert_aquarium(source: Path, out: Path) -> None:
    """Write ``images/``, ``{train,val,test}.json``, ``multilabel_*.json``.

    Images are numbered through the splits in this order: test, train, val.
    """
    number = 0
    for split, folder in FOLDERS.items():
        photographs = []
        for path in sorted((source / folder / 'images').glob('*.jpg')):
            number += 1
            # IMG_1_jpeg_jpg.rf.<hash>: what Roboflow makes of IMG_1.jpeg
            stem = re.sub(r'(_(jpe?g|png))*\.rf\.\w+$', '', path.stem)
            if split == 'train' and stem in LEFT_OUT:
                continue
            text = source / folder / f'labels/{path.stem}.txt'
            boxes = read_boxes(text, path)
            photographs.append(Photograph(number, path, f'{stem}.jpg', boxes))
        content = write_split(
            out, split, photographs, CLASSES, 'Aquarium Combined', 'CC BY 4.0'
        )
        write_json(out / f'multilabel_{split}.json', labels_of(content))


def labels_of(content: dict[str, Any]) -> dict[str, Any]:
    """Name the classes in each image, in mmpretrain's format."""
    present: dict[int, set[int]] = {x['id']: set() for x in content['images']}
    for box in content['annotations']:
        present[box['image_id']].add(box['category_id'] - 1)
    labels = [
        {
            'img_path': f'images/{x["file_name"]}',
            'gt_label': sorted(present[x['id']]),
        }
        for x in content['images']
    ]
    return {'metainfo': {'classes': CLASSES}, 'data_list': labels}


def read_boxes(path: Path, image: Path) -> list[Box]:
    """Read the boxes of an image.

    A line is class, centre, width and height; the last four are shares of
    the image's.
    """
    with Image.open(image) as file:
        columns, rows = file.size
    boxes = []
    for line in path.read_text('utf-8').splitlines():
        label, *shares = line.split()
        x, y, width, height = map(float, shares)
        boxes.append(
            Box(
                int(label),
                (x - width / 2) * columns,
                (y - height / 2) * rows,
                (x + width / 2) * columns,
                (y + height / 2) * rows,
            )
        )
    return boxes
