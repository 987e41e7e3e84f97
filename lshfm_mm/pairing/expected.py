"""What recipes gave in our study."""

from typing import NamedTuple

from .pair import Pairing


class Studied(NamedTuple):
    """A recommended recipe, into an inherited head, that the study has run.

    Attributes:
        experiment (str): Of the study; tests compare with its records.
        model (str): What was trained.
        closed (int): Share of the gap between the student alone and its
            teacher, in %.
        signs (tuple[str, ...]): What of its taps and losses tells it from
            other recipes.
    """

    experiment: str
    model: str
    closed: int
    signs: tuple[str, ...]


STUDY = (
    Studied(
        'faster_rcnn',
        'Faster R-CNN',
        77,
        ("'roi':", 'shared_fcs', "'balanced'"),
    ),
    Studied('retinanet', 'RetinaNet', 84, ('ChannelWiseDivergence',)),
)


def expectation(pairing: Pairing, inherit: bool) -> str:
    """Say what a recommended recipe gave; nothing, if it was not studied.

    Where widths or necks differ, it is another recipe than the study's.
    """
    if not inherit or pairing.connectors or pairing.teacher_connectors:
        return ''
    written = f'{pairing.taps} {pairing.losses}'
    for study in STUDY:
        if all(sign in written for sign in study.signs):
            return (
                f'; on our generated images, with equal classes, this closed '
                f'{study.closed} % of the gap between {study.model} alone '
                f'and its teacher (docs/recipes.md)'
            )
    return ''
