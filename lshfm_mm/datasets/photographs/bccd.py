"""BCCD: blood cells, in the format of PASCAL VOC."""

from pathlib import Path
from xml.etree import ElementTree

from .coco import Box, Photograph, write_split

CORNERS = ('xmin', 'ymin', 'xmax', 'ymax')
CLASSES = ('RBC', 'WBC', 'Platelets')
# Nearly equal to another one.
LEFT_OUT = {'BloodImage_00038'}


def convert_bccd(source: Path, out: Path) -> None:
    """Write ``images/`` and ``{train,val,test}.json``."""
    root = source / 'BCCD'
    names = sorted(x.stem for x in (root / 'JPEGImages').glob('*.jpg'))
    numbers = {name: i for i, name in enumerate(names, start=1)}
    for split in ('train', 'val', 'test'):
        listed = (root / f'ImageSets/Main/{split}.txt').read_text('utf-8')
        photographs = [
            Photograph(
                numbers[name],
                root / f'JPEGImages/{name}.jpg',
                f'{name}.jpg',
                read_boxes(root / f'Annotations/{name}.xml'),
            )
            for name in sorted(listed.split())
            if split != 'train' or name not in LEFT_OUT
        ]
        write_split(out, split, photographs, CLASSES, 'BCCD', 'MIT')


def read_boxes(path: Path) -> list[Box]:
    """Read the boxes of an image."""
    return [
        Box(
            CLASSES.index(item.findtext('name', '')),
            *(float(item.findtext(f'bndbox/{x}', '')) for x in CORNERS),
        )
        for item in ElementTree.parse(path).iter('object')
    ]
