"""Photographs in the study: a teacher that knows ImageNet teaches a small one.

The student's backbone begins at random, as that of anyone whose own small
network has no weights. Weights of losses are those that ``make_config``
writes; rate and epochs were tried on the validation photographs.
"""

from typing import Any

from arm import (
    ALONE,
    INHERITED,
    Arm,
    Method,
    Options,
    control,
    one_process,
    schedule,
    taught_by,
)
from classifiers import LOGITS, TASK_METHODS, on_features
from detectors import CWD, FC2_BALANCED, FC2_CWD, FPN, MORE_TAPS

EPOCHS = {'aquarium': 12, 'clothing': 12, 'animals': 20}  # of students

AQUARIUM = {
    'fc2_fpn': MORE_TAPS['fc2_fpn'],
    'fc2_balanced': FC2_BALANCED,
    'fc2_cwd': FC2_CWD,
    'cwd': Method('CWD', {'fpn': FPN}, {'fpn': [dict(CWD, loss_weight=160)]}),
}
PLAIN_LSH = dict(type='LSHLoss')
PLAIN_L2 = dict(type='RelativeL2Loss')
CLOTHING = {
    'kl': TASK_METHODS['single']['kl'],
    'l2': on_features('L2', PLAIN_L2),
    'lsh': on_features('LSH', PLAIN_LSH),
    'lshl2': on_features('LSHL2', PLAIN_LSH, PLAIN_L2),
}
ANIMALS = {
    'logits_l2': Method(
        'L2 of the logits', {'logits': LOGITS}, {'logits': [PLAIN_L2]}
    ),
    'l2': CLOTHING['l2'],
    'lshl2': CLOTHING['lshl2'],
}


def options(epochs: int) -> Options:
    """One process, and a schedule."""
    return {**one_process(), **schedule(epochs)}


TEACHERS = {
    'aquarium_teacher': Arm('teacher', 'aquarium_teacher', options(16)),
    'clothing_teacher': Arm('teacher', 'clothing_teacher', options(8)),
    'animals_teacher': Arm('teacher', 'animals_teacher', options(20)),
}


def distilled(data: str, method: Method) -> Arm:
    """A student with the teacher's head."""
    changed = {
        **options(EPOCHS[data]),
        **taught_by(data),
    }
    return Arm(method.title + INHERITED, f'{data}_lshfm', changed, method)


def arms_of(
    data: str, tap: dict[str, Any] | str, methods: dict[str, Method]
) -> dict[str, Arm]:
    """The student alone, with the teacher's head, and each method.

    Args:
        data (str): Of ``EPOCHS``.
        tap (dict | str): For the control with the teacher's head, which has a
            weight of 0.
        methods (dict): Name -> method.
    """
    found = {'alone': Arm(ALONE, f'{data}_student', options(EPOCHS[data]))}
    for name, method in {'alone': control(tap), **methods}.items():
        found[f'{name}+inherit'] = distilled(data, method)
    return found
