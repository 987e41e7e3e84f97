"""Photographs in the study: a teacher that knows ImageNet teaches a small one.

The student's backbone begins at random, as that of anyone whose own small
network has no weights. Weights of losses are those that ``make_config``
writes; rate and epochs were tried on the validation photographs.
"""

from arm import INHERITED, WORK, Arm, Method, Options, one_process, schedule
from detectors import CWD, FC2, FPN, FPN_L2, L2, LSH

EPOCHS = 12
BALANCED = dict(FPN, weights='balanced')
CWD_160 = dict(CWD, loss_weight=160)

METHODS = {
    'fc2_fpn': Method(
        'LSHL2, second FC + L2, FPN',
        {'fc2': FC2, 'fpn': FPN},
        {'fc2': [LSH, L2], 'fpn': [FPN_L2]},
    ),
    'fc2_balanced': Method(
        'LSHL2, second FC + L2, FPN, half of it on objects',
        {'fc2': FC2, 'fpn': BALANCED},
        {'fc2': [LSH, L2], 'fpn': [FPN_L2]},
    ),
    'fc2_cwd': Method(
        'LSHL2, second FC + CWD',
        {'fc2': FC2, 'fpn': FPN},
        {'fc2': [LSH, L2], 'fpn': [CWD_160]},
    ),
    'cwd': Method('CWD', {'fpn': FPN}, {'fpn': [CWD_160]}),
}


def options(epochs: int) -> Options:
    """One process, and a schedule."""
    return {**one_process(), **schedule(epochs)}


TEACHERS = {
    'aquarium_teacher': Arm('teacher', 'aquarium_teacher', options(16))
}


def distilled(method: Method) -> Arm:
    """A student with the teacher's head."""
    changed = {
        **options(EPOCHS),
        'model.teacher.cfg_path': f'{WORK}/aquarium_teacher.py',
        'model.teacher_ckpt': f'{WORK}/aquarium_teacher.pth',
    }
    title = method.title + INHERITED
    return Arm(title, 'aquarium_lshfm', changed, method)


def arms_of() -> dict[str, Arm]:
    """All arms of Faster R-CNN on aquarium."""
    nothing = dict(type='LSHLoss', num_hashes=8, loss_weight=0)
    control = Method('student alone', {'tap': FC2}, {'tap': [nothing]})
    return {
        'alone': Arm('student alone', 'aquarium_student', options(EPOCHS)),
        'alone+inherit': distilled(control),
        **{
            f'{name}+inherit': distilled(method)
            for name, method in METHODS.items()
        },
    }
