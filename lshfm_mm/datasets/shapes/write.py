"""Shapes: small generated images, to detect and to classify shapes in.

Six kinds of flat shapes, rotated, overlapping, partly hidden and often of low
contrast, between lines, blobs and halves of shapes that are no objects. Made
to compare networks within minutes; colour says nothing about the class.

Three views of the same images: objects with their boxes (detection), the
classes in an image (several labels), and crops around the objects (one label).

Image ``i`` of a split depends on ``(seed, split, i)`` and ``size`` alone, so
a larger set starts with the smaller one. The bytes are the same on every run
with the same releases of NumPy and OpenCV.

Legend: H = W = ``size``, the side of an image in pixels; (h, w) the window of
the image that a layer may touch; colours are BGR in grey levels 0..255.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask
from tqdm import tqdm

from ...errors import ConfigError, check_int
from ...utils.files import atomic_write
from .forms import CLASSES
from .scene import MIN_SIZE, Shape, render

VERSION = '1.0'  # to be raised when the same arguments give other images
EASY = 'easy shapes'  # what such a set is called
SPLITS = ('train', 'val')
# Of annotations. COCO's come last: a set that has both of them is whole.
FILES = [f'{x}{view}' for view in ('_labels', '_crops', '') for x in SPLITS]
CROP = 32  # side of the crop of an object in pixels
CROP_MARGIN = 1.25  # side of the crop before it is resized, over the object's


def generate(
    root: str | os.PathLike[str],
    num_train: int = 800,
    num_val: int = 200,
    size: int = 160,
    seed: int = 0,
    easy: bool = False,
) -> None:
    """Write the data set, unless ``root`` holds it already.

    The files are ``annotations/{train,val}.json`` in COCO format and the
    images ``{train,val}/000000.png`` and so on. In mmpretrain's format
    ``annotations/{train,val}_labels.json`` has the ascending classes in each
    image, and ``annotations/{train,val}_crops.json`` the class of each of
    ``crops/{train,val}/000000.png`` and so on. COCO's annotations come last
    and by renaming, so a folder that has both of them is complete.

    Args:
        root (str | os.PathLike): Folder to write to.
        num_train (int): Number of training images.
        num_val (int): Number of validation images.
        size (int): Side of an image in pixels, at least :data:`MIN_SIZE`.
        seed (int): Seed of the whole set, not negative.
        easy (bool): Whether shapes are large, upright and of strong colours,
            without clutter. Defaults to False.

    Raises:
        ConfigError: If an argument is out of range, or if ``root`` holds
            another set.
    """
    counts = {'train': num_train, 'val': num_val}
    for split, count in counts.items():
        check_int(f'num_{split}', count, 1)
    check_int('size', size, MIN_SIZE)
    check_int('seed', seed, 0)
    info = dict(
        description=EASY if easy else 'shapes',
        version=VERSION,
        num_train=num_train,
        num_val=num_val,
        size=size,
        seed=seed,
    )
    root = Path(root)
    if _holds(root, info):
        return
    for folder in ('annotations', *SPLITS, *(f'crops/{x}' for x in SPLITS)):
        (root / folder).mkdir(parents=True, exist_ok=True)
    with tqdm(total=num_train + num_val, desc='shapes', unit='image') as bar:
        contents: dict[str, Any] = {}
        for split, count in counts.items():
            contents |= _write_images(root, split, count, info, bar)
    for name in FILES:
        with atomic_write(_annotation_file(root, name)) as partial:
            partial.write_text(json.dumps(contents[name]), encoding='utf-8')


def crop(
    image: npt.NDArray[np.uint8], box: tuple[int, int, int, int]
) -> npt.NDArray[np.uint8]:
    """Cut a square around an object: uint8, (CROP, CROP, 3).

    The longer side of its box (left, top, width, height in pixels) takes
    ``1 / CROP_MARGIN`` of it. What lies outside repeats the image's border.
    """
    left, top, width, height = box
    scale = CROP / (CROP_MARGIN * max(width, height))
    centre = left + width / 2, top + height / 2
    # From pixel edges of the image to those of the crop, at pixel centres.
    shift = [CROP / 2 - scale * x + (scale - 1) / 2 for x in centre]
    matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
    side = (CROP, CROP)
    crop = cv2.warpAffine(image, matrix, side, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(crop, np.uint8)


def _write_images(
    root: Path, split: str, count: int, info: dict[str, Any], bar: tqdm[Any]
) -> dict[str, Any]:
    """Write images and crops of a split; give its annotations by file."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    labels: list[dict[str, Any]] = []
    crops: list[dict[str, Any]] = []
    size = info['size']
    for index in range(count):
        seed = [info['seed'], SPLITS.index(split), index]
        image, objects = render(
            np.random.default_rng(seed), size, info['description'] == EASY
        )
        name = f'{index:06d}.png'
        _write_image(root / split / name, image)
        record = {'file_name': name, 'width': size, 'height': size}
        images.append({'id': index + 1, **record})
        present = sorted({x.label for x in objects})
        labels.append({'img_path': name, 'gt_label': present})
        for item in objects:
            name = f'{len(crops):06d}.png'
            _write_image(root / 'crops' / split / name, crop(image, item.box))
            crops.append({'img_path': name, 'gt_label': item.label})
            annotations.append(_annotation(len(crops), index + 1, item))
        bar.update()
    categories = [
        {'id': label + 1, 'name': name} for label, name in enumerate(CLASSES)
    ]
    metainfo = {'classes': CLASSES}
    return {
        f'{split}_labels': {'metainfo': metainfo, 'data_list': labels},
        f'{split}_crops': {'metainfo': metainfo, 'data_list': crops},
        split: {
            'info': info,
            'images': images,
            'annotations': annotations,
            'categories': categories,
        },
    }


def _write_image(path: Path, image: npt.NDArray[np.uint8]) -> None:
    done, data = cv2.imencode('.png', image)
    if not done:
        raise OSError(f'OpenCV cannot encode {path.name}')
    path.write_bytes(data.tobytes())


def _annotation(number: int, image_id: int, item: Shape) -> dict[str, Any]:
    """COCO's record of an object."""
    rle = coco_mask.encode(np.asfortranarray(item.mask, np.uint8))
    return {
        'id': number,
        'image_id': image_id,
        'category_id': item.label + 1,
        'bbox': item.box,
        'area': int(np.count_nonzero(item.mask)),
        'segmentation': {
            'size': rle['size'],
            'counts': rle['counts'].decode('ascii'),
        },
        'iscrowd': 0,
    }


def _annotation_file(root: Path, name: str) -> Path:
    return root / 'annotations' / f'{name}.json'


def _holds(root: Path, info: dict[str, Any]) -> bool:
    """Whether the whole set is in ``root``; raise if another one is."""
    paths = [_annotation_file(root, split) for split in SPLITS]
    for path in filter(Path.exists, paths):
        try:
            held = json.loads(path.read_text(encoding='utf-8'))['info']
        except (ValueError, KeyError, TypeError):
            held = None
        if held != info:
            raise ConfigError(
                f'root: {path} is {_describe(held, info)}, but asked for is '
                f'{_describe(info, info)}; take another root or delete this '
                f'one'
            )
    return all(_annotation_file(root, name).exists() for name in FILES)


def _describe(held: Any, info: dict[str, Any]) -> str:
    """Name a set, if it is one with the fields of ``info``."""
    if not isinstance(held, dict) or held.keys() != info.keys():
        return 'of another origin'
    arguments = [f'{key} {held[key]}' for key in info if key != 'description']
    return f'{held["description"]} ({", ".join(arguments)})'
