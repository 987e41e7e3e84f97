"""Where the photographs come from, and what their licences ask for."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from .aquarium import convert_aquarium
from .bccd import convert_bccd
from .clothing import convert_clothing

GITHUB = 'https://github.com/{}/archive/{}.zip'


class Source(NamedTuple):
    """A published set of photographs.

    Attributes:
        repository (str): OWNER/NAME on GitHub.
        commit (str): Of it.
        parts (tuple): Folders and files in it that count. Files, which are
            licences and the like, are copied.
        sha256 (str): Of all files in the parts, see :func:`digest`.
        notice (str): Origin, licence, authors, and what is changed.
        convert (Callable): Takes the folder that holds the parts, and the
            folder to write to.
    """

    repository: str
    commit: str
    parts: tuple[str, ...]
    sha256: str
    notice: str
    convert: Callable[[Path, Path], None]

    @property
    def url(self) -> str:
        """Of an archive of the commit."""
        return GITHUB.format(self.repository, self.commit)


SOURCES = {
    'aquarium': Source(
        # Roboflow itself gives its export to those who are logged in.
        'sumit2011/underwater-object-detection',
        'eee4be3324cd019b9032bb13f22a756a77866503',
        ('train', 'valid', 'test', 'README.dataset.txt'),
        '5084f33dad924eb0ec0ec293e27833ecb9fec8950ec43ff865e88d05b71caa60',
        'Aquarium Combined, version 2 (raw-1024), by Roboflow, '
        'https://public.roboflow.com/object-detection/aquarium\n'
        'Licence: CC BY 4.0, https://creativecommons.org/licenses/by/4.0/\n'
        'Changed: shrunk to a long side of 320 pixels, boxes scaled and '
        'clipped, 3 of less than a pixel left out; 7 photographs left out of '
        'the training images that are nearly those of validation or test.\n',
        convert_aquarium,
    ),
    'bccd': Source(
        'Shenggan/BCCD_Dataset',
        'd272fb14cdff6e473fafeeeba32aba5f560e9e43',
        ('BCCD', 'LICENSE'),
        'b5fa7e32e92e3cfdbc59cdfbc09b4ff959804ac2a06c7ed59f89833c1fd97879',
        'BCCD Dataset, copyright 2017 shenggan, '
        'https://github.com/Shenggan/BCCD_Dataset; photographs and boxes by '
        'cosmicad and akshaylamba\n'
        'Licence: MIT, see LICENSE\n'
        'Changed: shrunk from 640 x 480 to 320 x 240 pixels, boxes scaled '
        'and clipped, 2 of less than a pixel left out; 1 photograph left out '
        'of the training images that is nearly another one.\n',
        convert_bccd,
    ),
    'clothing': Source(
        'alexeygrigorev/clothing-dataset-small',
        '11961516512414bf9f6c150a832cfd21b54a6b54',
        ('train', 'validation', 'test', 'LICENSE'),
        '9ff3cc34f5043ed6bf6a6bad4c33b523219f8ed7c20be8baa09fcf1e4aa68862',
        'Clothing dataset (small), by Alexey Grigorev and contributors, '
        'https://github.com/alexeygrigorev/clothing-dataset-small\n'
        'Licence: CC0 1.0, see LICENSE\n'
        'Changed: shrunk to a short side of 128 pixels; 9 photographs left '
        'out of the training images that are nearly those of validation or '
        'test.\n',
        convert_clothing,
    ),
}
