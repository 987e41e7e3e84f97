"""A student that starts from weights of its teacher."""

from collections.abc import Mapping

from mmengine.logging import print_log
from torch import nn

from ..errors import ConfigError, check_bools, check_choice
from .frozen import FrozenTeacher


def parent_of(
    inherit: bool | str, teachers: Mapping[str, FrozenTeacher]
) -> nn.Module | None:
    """The teacher that a student inherits from, None if from none.

    Raises:
        ConfigError: If the setting does not tell which.
    """
    if '' in teachers:
        check_bools(dict(inherit=inherit))
        return teachers[''].model if inherit else None
    check_choice('inherit', inherit, [False, *teachers])
    return teachers[str(inherit)].model if inherit else None


def inherit_weights(student: nn.Module, teacher: nn.Module) -> list[str]:
    """Start all of the student but its backbone from the teacher's weights.

    Taken are the layers that agree in name and shape, whose keys are given
    back. Why: a head that already reads the teacher's features gives
    mimicking them a meaning from the first iteration on.

    Raises:
        ConfigError: If nothing agrees.
    """
    taken, left = inheritable(student, teacher)
    if not taken:
        raise ConfigError(
            'inherit: student and teacher share no weight outside the '
            'backbone; set inherit=False'
        )
    other = teacher.state_dict()
    student.load_state_dict({k: other[k] for k in taken}, strict=False)
    print_log(
        f'inherit: the student starts with {len(taken)} of its '
        f'{len(taken) + len(left)} keys outside the backbone from the '
        f'teacher: {", ".join(taken)}; its own stay: '
        f'{", ".join(left) or "none"}',
        'current',
    )
    return taken


def inheritable(
    student: nn.Module, teacher: nn.Module
) -> tuple[list[str], list[str]]:
    """Keys outside the student's backbone: what a teacher can give, the rest.

    It gives layers all of whose tensors agree in name and shape.
    """
    own, other = student.state_dict(), teacher.state_dict()
    own = {k: v for k, v in own.items() if not k.startswith('backbone.')}
    unlike = {  # layers: a bias is nothing without its weight
        key.rpartition('.')[0]
        for key, value in own.items()
        if key not in other or other[key].shape != value.shape
    }
    taken = [k for k in own if k.rpartition('.')[0] not in unlike]
    return taken, [k for k in own if k.rpartition('.')[0] in unlike]
