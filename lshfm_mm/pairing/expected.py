"""What recipes gave in our study."""

from typing import NamedTuple

from .inspect import View
from .pair import Pairing


class Studied(NamedTuple):
    """A recommended recipe, into an inherited head, that the study has run.

    Attributes:
        experiment (str): Of the study; tests compare with its records.
        kind (str): Class of a detector; how many labels a classifier gives.
        images (str): Which, and how the student's backbone began.
        closed (int): Share of the gap between the student alone and its
            teacher, in %.
        taught (int, optional): Likewise, where the backbone was taught first.
            Defaults to none: it was not run.
    """

    experiment: str
    kind: str
    images: str
    closed: int
    taught: int | None = None

    def __str__(self) -> str:
        more = ''
        if self.taught is not None:
            more = f', with a backbone taught first {self.taught} %'
        return f'{self.closed} % ({self.kind}, {self.images}{more})'


GENERATED = 'generated images, pretrained backbone'
AQUARIUM = 'photographs of an aquarium, random weights'
CELLS = 'photographs of blood cells, random weights'
CLOTHING = 'photographs of clothing, random weights'
# First tap of a recipe -> what tells it from others; where it was run.
SIGNS = {
    'roi': ('shared_fcs', "'balanced'"),
    'fpn': ('ChannelWiseDivergence',),
    'pooled': (),
}
STUDY = {
    'roi': (
        Studied('faster_rcnn', 'FasterRCNN', GENERATED, 77),
        Studied('aquarium', 'FasterRCNN', AQUARIUM, 27, 58),
        Studied('bccd', 'FasterRCNN', CELLS, 46),
    ),
    'fpn': (
        Studied('retinanet', 'RetinaNet', GENERATED, 84),
        Studied('aquarium_retinanet', 'RetinaNet', AQUARIUM, 30),
        Studied('bccd_retinanet', 'RetinaNet', CELLS, 62),
        Studied('gfl', 'GFL', GENERATED, 82),
        Studied('aquarium_gfl', 'GFL', AQUARIUM, 19),
        Studied('bccd_gfl', 'GFL', CELLS, 84),
    ),
    'pooled': (
        Studied('clothing', 'one label', CLOTHING, 12),
        Studied('animals', 'several labels', AQUARIUM, 22, 49),
    ),
}
LABELS: dict[bool | None, str] = {True: 'one label', False: 'several labels'}


def expectation(pairing: Pairing, student: View, inherit: bool) -> str:
    """Say what a recommended recipe gave; nothing, if it was not studied.

    Where widths or necks differ, it is another recipe than the study's. A
    detector that was not studied is told of those that had its recipe. How
    a backbone begins is told, not looked for: a file may be of a taught one.

    Args:
        pairing (Pairing): What is written.
        student (View): The student that mimics so.
        inherit (bool): Whether it starts from the teacher's head.

    Returns:
        str: The end of a line.
    """
    tap = next(iter(pairing.taps))
    written = f'{pairing.taps} {pairing.losses}'
    if (
        not inherit
        or pairing.connectors
        or pairing.teacher_connectors
        or tap not in SIGNS
        or not all(sign in written for sign in SIGNS[tap])
    ):
        return ''
    kind = LABELS.get(student.one_label, student.kind)
    alike = [x for x in STUDY[tap] if x.kind == kind]
    if tap != 'pooled':
        alike = alike or [*STUDY[tap]]
    if not alike:
        return ''
    return (
        f'; in our study, with equal classes, this closed '
        f'{"; ".join(map(str, alike))} of the gap between student alone and '
        f'teacher (docs/recipes.md)'
    )
