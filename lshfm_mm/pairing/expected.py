"""What recipes gave in our study."""

from typing import NamedTuple

from torch import nn

from ..algorithms.student_weights import PRETRAINED
from ..utils.configs import stem
from .inspect import View
from .pair import Pairing


class Studied(NamedTuple):
    """A recommended recipe, into an inherited head, that the study has run.

    Attributes:
        experiment (str): Of the study; tests compare with its records.
        kind (str): Class of a detector; how many labels a classifier gives.
        images (str): Which. Of generated ones the student's backbone was
            pretrained, of photographs it began at random.
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

    @property
    def pretrained(self) -> bool:
        """Whether the student's backbone was."""
        return self.images == GENERATED

    def __str__(self) -> str:
        more = ''
        if self.taught is not None:
            more = f'; with a backbone taught first {self.taught} %'
        return f'{self.closed} % ({self.kind}, {self.images}{more})'


GENERATED = 'generated images'
AQUARIUM = 'photographs of an aquarium'
CELLS = 'photographs of blood cells'
CLOTHING = 'photographs of clothing'
# First tap of a recipe -> what else it has; where it was run.
SIGNS = {
    'roi': ('shared_fcs', "'balanced'"),
    'fpn': ('ChannelWiseDivergence',),
    'pooled': ('LSHLoss',),
}
STUDY = {
    'roi': (
        Studied('faster_rcnn', 'FasterRCNN', GENERATED, 77),
        Studied('aquarium', 'FasterRCNN', AQUARIUM, 27, 58),
        Studied('bccd', 'FasterRCNN', CELLS, 46),
    ),
    'fpn': (
        Studied('retinanet', 'RetinaNet', GENERATED, 84),
        Studied('gfl', 'GFL', GENERATED, 82),
        Studied('aquarium_retinanet', 'RetinaNet', AQUARIUM, 30),
        Studied('aquarium_gfl', 'GFL', AQUARIUM, 19),
        Studied('bccd_retinanet', 'RetinaNet', CELLS, 62),
        Studied('bccd_gfl', 'GFL', CELLS, 84),
    ),
    'pooled': (
        Studied('clothing', 'one label', CLOTHING, 12),
        Studied('animals', 'several labels', AQUARIUM, 22, 49),
    ),
}


def expectation(
    pairing: Pairing, student: View, inherit: bool, given: bool
) -> str:
    """Say what a recommended recipe gave; nothing, if it was not studied.

    Where widths or necks differ, it is another recipe than the study's. A
    detector that was not studied is told of those that had its recipe.

    Args:
        pairing (Pairing): What is written.
        student (View): Of whom.
        inherit (bool): Whether it starts from the teacher's head.
        given (bool): Whether a file gives it weights as a whole.
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
    pretrained = given or _is_pretrained(student.model)
    alike = [x for x in STUDY[tap] if x.pretrained is pretrained]
    if tap == 'pooled':
        kind = 'one label' if student.one_label else 'several labels'
        alike = [x for x in alike if x.kind == kind]
    else:
        alike = [x for x in alike if x.kind == student.kind] or alike
    if not alike:
        return ''
    start = 'pretrained backbones' if pretrained else 'random weights'
    return (
        f'; in our study, from {start} and with equal classes, this closed '
        f'{", ".join(map(str, alike))} of the gap between student alone and '
        f'teacher (docs/recipes.md)'
    )


def _is_pretrained(model: nn.Module) -> bool:
    """Whether the config names a file for the backbone, or for all."""
    for module in (model, getattr(model, 'backbone', None)):
        cfgs = getattr(module, 'init_cfg', None) or []
        listed = cfgs if isinstance(cfgs, list) else [cfgs]
        if any(stem(x.get('type')) in PRETRAINED for x in listed):
            return True
    return False
