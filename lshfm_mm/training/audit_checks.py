"""What the audit looks at in a batch, one thing a function."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ..distillers.alignment import equal_codes
from ..distillers.level_pairs import TapObservation
from ..distillers.lshfm_distiller import LSHFMDistiller
from ..errors import ConfigError
from ..losses.lsh import LSHLoss
from .gradient_balance import SCALE

LARGE = 10  # times the teacher's: such a student's features have a fault
WAY_OUT = 'or set FirstBatchAuditHook.strict=False to be warned alone'


def note_versions(
    layer: nn.Module,
    inputs: bool,
    where: str,
    versions: list[tuple[str, Tensor, int]],
) -> Any:
    """Note each tensor that a layer gets or gives, and its version."""

    def note(args: Any) -> None:
        for x in tree_leaves(args):
            if isinstance(x, Tensor) and not x.is_inference():
                versions.append((where, x, x._version))

    if inputs:
        return layer.register_forward_pre_hook(lambda _, args: note(args))
    return layer.register_forward_hook(lambda _, args, given: note(given))


def check_in_place(versions: list[tuple[str, Tensor, int]]) -> None:
    """Raise at a tensor that was overwritten since it was noted."""
    for where, x, version in versions:
        if x._version != version:
            raise ConfigError(
                f'{where} holds a tensor that a layer overwrites in place '
                f'afterwards, so its values are those of that layer; record '
                f'the output of that layer, set its inplace=False, {WAY_OUT}'
            )


def describe_tap(distiller: LSHFMDistiller, name: str) -> str:
    """What is tapped, with shapes, a line for each model."""
    tap = distiller.taps[name]
    lines = []
    for owner, source in (('student', tap.student), ('teacher', tap.teacher)):
        features = distiller.records.features(name, owner == 'student')
        shapes = ', '.join(str(tuple(x.shape)) for x in features)
        dtypes = {str(x.dtype).removeprefix('torch.') for x in features}
        lines.append(
            f'{owner}: {tap.record} of {source}, {shapes or "not run"} '
            f'{"/".join(sorted(dtypes))}'
        )
    return '\n'.join(lines)


def share_of_equal_codes(
    loss: nn.Module, compared: TapObservation | None
) -> float | None:
    """Share of hash codes that agree, None if there are none."""
    if not isinstance(loss, LSHLoss) or compared is None:
        return None
    shares = [
        equal_codes(student, teacher, loss.weight, loss.bias, keep)
        for student, teacher, keep in compared.features()
        if student.numel()
    ]
    joined = torch.cat(shares) if shares else torch.zeros(0)
    return joined.mean().item() if len(joined) else None


def size_ratio(compared: TapObservation) -> float | None:
    """RMS of the student's features at a tap over that of the teacher's.

    None where the teacher's are all 0, or there are none.
    """
    squares = [0.0, 0.0]
    for level in compared.levels:
        for side, feature in enumerate((level.student, level.teacher)):
            squares[side] += feature.detach().double().square().sum().item()
    return math.sqrt(squares[0] / squares[1]) if squares[1] else None


def has_samples(compared: TapObservation | None) -> bool:
    """Whether a tap has samples that count; the long form always does."""
    return compared is None or any(
        student.numel() > 0 and (keep is None or bool(keep.any()))
        for student, _, keep in compared.features()
    )


def is_same(compared: TapObservation | None) -> bool:
    """Whether the student has the teacher's features already."""
    return compared is not None and all(
        torch.equal(x.student, x.teacher) for x in compared.levels
    )


def check_gradient(name: str, value: Tensor, features: list[Tensor]) -> None:
    """Raise unless a loss has a gradient to what it compares."""
    features = [x for x in features if x.requires_grad]
    if features and value.requires_grad:
        gradients = torch.autograd.grad(
            value,
            features,
            torch.full_like(value, SCALE),
            retain_graph=True,
            allow_unused=True,
        )
        if any(x is not None and x.any() for x in gradients):
            return
    if value == 0:
        raise ConfigError(
            f'distill.{name}: is 0 although its tap has samples; look at its '
            f'type and its arguments, {WAY_OUT}'
        )
    raise ConfigError(
        f'distill.{name}: is {value.item():.4g} and has no gradient to the '
        f'student; what it taps must lie behind trained layers, so look at '
        f'student_trainable, frozen_stages and detached features, {WAY_OUT}'
    )
