"""What the layers at a tap tell of widths: for connectors, losses, hashes."""

from collections.abc import Iterable, Mapping, Sequence
from operator import eq
from typing import Any

import torch
from mmrazor.models.task_modules import RecorderManager
from torch import Tensor, nn

from ..connectors import (
    ConvConnector,
    LinearConnector,
    ResampleConnector,
    TokensToMap,
)
from ..errors import ConfigError, nearest
from ..losses.lsh import LSHLoss
from .connected import steps_at
from .taps import (
    RECORDS,
    Tap,
    layers_of,
    the_one,
    width_of,
    widths_of,
    window_of_layer,
)

OURS = LinearConnector, ConvConnector
KEEP_WIDTH = ResampleConnector, TokensToMap
# 'input' and 'output' of a layer -> widths of its levels, if it tells.
Widths = Mapping[str, list[int] | None]


def check_connectors(
    connectors: Mapping[str, Any],
    teacher_connectors: Mapping[str, Any],
    taps: Mapping[str, Any],
    long_form: Mapping[str, Any],
) -> None:
    """Raise ConfigError at a connector that no tap or long form uses."""
    mappings = (long_form.get('loss_forward_mappings') or {}).values()
    used = {x.get('connector') for y in mappings for x in y.values()}
    for field, given, known in (
        ('connectors', connectors, {*taps, *used}),
        ('teacher_connectors', teacher_connectors, {*taps}),
    ):
        for name in given:
            if name not in known:
                raise ConfigError(
                    f'{field}: has {name!r}, which is none of the taps '
                    f'{sorted(taps)}{nearest(name, taps)}'
                )


def check_teacher_connectors(
    student: Mapping[str, nn.Module], teacher: Mapping[str, nn.Module]
) -> None:
    """Raise ConfigError at one that learns, or where both grids move."""
    for name, connector in teacher.items():
        ours = any(isinstance(x, OURS) for x in steps_at(teacher, name))
        if ours or next(connector.parameters(), None) is not None:
            raise ConfigError(
                f'teacher_connectors.{name}: has parameters, and a teacher '
                f'that learns could make itself easy to mimic; put it into '
                f'connectors'
            )
    for name in {*student, *teacher}:
        steps = steps_at(student, name) + steps_at(teacher, name)
        if sum(isinstance(x, ResampleConnector) for x in steps) > 1:
            raise ConfigError(
                f'connectors.{name}: has more than one ResampleConnector, '
                f'with that of teacher_connectors; keep one, on the side '
                f'whose maps shall move'
            )


def set_connectors(
    name: str,
    tap: Tap,
    steps: Sequence[nn.Module],
    student: Widths,
    teacher: nn.Module,
) -> None:
    """Fill in the widths of a tap's connector of ours that has none yet.

    Raises:
        ConfigError: If the layers do not tell.
    """
    waiting = [x for x in steps if isinstance(x, OURS) and not x.is_ready]
    if len(waiting) > 1:
        raise ConfigError(
            f'connectors.{name}: the width between its connectors is not '
            f'known; give all of their widths'
        )
    for connector in waiting:
        try:
            connector.set_widths(
                student[tap.record],
                widths_of(teacher.get_submodule(tap.teacher), tap.record),
            )
        except ConfigError as error:
            raise ConfigError(f'connectors.{name}: {error}') from error


def connector_config(
    layer: nn.Module,
    ours: Sequence[int | None],
    theirs: Sequence[int | None],
) -> str:
    """A connector to a layer of the teacher, as it stands in a config file.

    Args:
        layer (nn.Module): The teacher's layer.
        ours (list[int]): Widths of the student's levels.
        theirs (list[int]): Widths of the teacher's.
    """
    kind, unit = 'Conv', 'channels'
    if isinstance(layer, nn.Linear):
        kind, unit = 'Linear', 'features'
    one = len({*ours}) == len({*theirs}) == 1
    student, teacher = (x[0] if one else [*x] for x in (ours, theirs))
    return (
        f"dict(type='{kind}Connector', in_{unit}={student}, "
        f'out_{unit}={teacher})'
    )


def check_widths(
    name: str,
    tap: Tap,
    steps: Sequence[nn.Module],
    losses: Mapping[str, nn.Module],
    student: Widths,
    teacher: nn.Module,
) -> None:
    """Raise unless student, teacher and losses agree on widths at a tap.

    Raises:
        ConfigError: With the connector that would join the two.
    """
    layer = teacher.get_submodule(tap.teacher)
    ours, theirs = student[tap.record], widths_of(layer, tap.record)
    maps_width = not all(isinstance(x, KEEP_WIDTH) for x in steps)
    if not maps_width and ours and theirs and _differ(ours, theirs):
        connector = connector_config(layer, ours, theirs)
        raise ConfigError(
            f'taps.{name}: the student is {_told(ours)} wide and the teacher '
            f'{_told(theirs)}; add to the distiller connectors=dict({name}='
            f'{connector})'
        )
    classes = student['output'], widths_of(layer, 'output')
    if 'correct' in tap.weights and classes[0] != classes[1]:
        raise ConfigError(
            f"taps.{name}.weights: 'correct' needs the same classes, but the "
            f'student has {_told(classes[0])} and the teacher '
            f"{_told(classes[1])}; use 'uniform'"
        )
    full, width = feature_dim(layer, tap.record), width_of(layer, tap.record)
    for loss_name, loss in losses.items():
        dim = getattr(loss, 'feature_dim', None)
        if None not in (dim, full) and dim not in (width, full):
            raise ConfigError(
                f'{loss_name}.feature_dim: is {dim}, but the teacher is '
                f'{full} wide there; leave it out'
            )


def set_projection(
    name: str,
    loss: LSHLoss,
    layer: nn.Module,
    record: str,
    steps: Sequence[nn.Module] = (),
) -> None:
    """Draw the hash functions of a loss for what it gets of the teacher.

    Raises:
        ConfigError: If neither layer nor config, nor one of the connectors
            ``steps`` to it, tell width and std.
    """
    widths = widths_of(layer, record)
    if loss.feature_dim is None and widths and the_one(widths) is None:
        raise ConfigError(
            f'{name}: has one set of hash functions, but the levels of the '
            f'teacher there are {widths} wide; take RelativeL2Loss, or a tap '
            f'for each level'
        )
    dim = loss.feature_dim or feature_dim(layer, record)
    for step in reversed(steps):
        if dim is None and isinstance(step, OURS):
            dim = step.out_width
    if dim is None:
        raise ConfigError(
            f'{name}.feature_dim: cannot be read off the teacher there; give '
            f'it'
        )
    std = loss.std
    if std == 'features':
        std = 1.0  # until it is calibrated
    elif not isinstance(std, int | float):
        weights: list[Any] = [
            getattr(x, 'weight', None) for x in dict.fromkeys(layers_of(layer))
        ]
        if record != 'input' or not all(
            isinstance(x, Tensor) and x.dim() > 1 for x in weights
        ):
            raise ConfigError(
                f"{name}.std: 'teacher' needs a tap on the input of a class "
                f"layer; take 'features'"
            )
        joined = torch.cat([x.detach().float().flatten() for x in weights])
        std = float(joined.std())
    loss.set_projection(dim, std)


def recorded_layer(
    name: str,
    entries: Iterable[Mapping[str, Any]],
    recorders: RecorderManager,
    teacher: nn.Module,
) -> tuple[nn.Module, str]:
    """The teacher's layer whose 'input' or 'output' a long-form loss gets.

    The entries are those of its ``loss_forward_mappings``.

    Raises:
        ConfigError: If there is none.
    """
    kinds = {kind + 'Recorder': record for record, kind in RECORDS.items()}
    for entry in entries:
        if not entry['from_student']:
            recorder = recorders.get_recorder(entry['recorder'])
            record = kinds.get(type(recorder).__name__)
            if record is not None:
                return teacher.get_submodule(recorder.source), record
    raise ConfigError(
        f'{name}: gets no layer of the teacher from which width and std could '
        f'be taken; give feature_dim and std'
    )


def feature_dim(layer: nn.Module, record: str) -> int | None:
    """Width of the feature of a sample, all of its window."""
    width = width_of(layer, record)
    return width and width * window_of_layer(layer, record) ** 2


def _differ(ours: list[int], theirs: list[int]) -> bool:
    """Whether no level can be as wide as its partner.

    Necks of several widths are known to differ only level by level.
    """
    if len({*ours}) == len({*theirs}) == 1:
        return ours[0] != theirs[0]
    return len(ours) == len(theirs) and not any(map(eq, ours, theirs))


def _told(widths: list[int] | None) -> str:
    one = the_one(widths)
    return str(widths if one is None else one)
