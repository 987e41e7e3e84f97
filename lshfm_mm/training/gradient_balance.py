"""How hard each loss pulls, against the task."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from statistics import median

import torch
from torch import Tensor

IDLE = 1e-3  # of the task's gradient; what pulls less moves nothing
DROWNED = 2.0**24  # a sum with 1 in float32 does not change by 1 / DROWNED
SCALE = 2.0**16  # so that gradients do not vanish on their way in float16


def gradient_ratios(
    task: Tensor, mimics: Mapping[str, Tensor], parameters: Sequence[Tensor]
) -> dict[str, float]:
    """Norms of the gradients of losses, over that of the task's loss.

    Both are taken on the parameters that the two losses share. Nothing is
    accumulated, and the graph stays. The gradient of one parameter exists
    at a time, in its precision; of all others only their norms are kept.

    Args:
        task (Tensor): The task's loss, ().
        mimics (dict[str, Tensor]): Losses that mimic, (), by name.
        parameters (list[Tensor]): Trained parameters.

    Returns:
        dict[str, float]: The ratios; NaN where nothing is shared, or the
        task's gradient is 0.
    """
    of_task = _norms(task, parameters)
    ratios = {}
    for name, loss in mimics.items():
        of_loss = _norms(loss, parameters)
        shared = of_loss.keys() & of_task.keys()
        below = math.hypot(*(of_task[x] for x in shared))
        above = math.hypot(*(of_loss[x] for x in shared))
        ratios[name] = above / below if below else math.nan
    return ratios


def _norms(loss: Tensor, parameters: Sequence[Tensor]) -> dict[int, float]:
    """Norms of the gradients of a loss, by index of the parameter.

    Of the scales it takes the greatest that float16, and the squares in
    float32, can hold. A gradient is gone as soon as its square is summed:
    what autograd keeps of it is one number, seen as often as it has entries.
    """
    if not loss.requires_grad:
        return {}
    squares: dict[int, Tensor] = {}

    def note(index: int, gradient: Tensor) -> Tensor:
        kind = torch.promote_types(gradient.dtype, torch.float32)
        squares[index] = gradient.to(kind).square().sum()
        return gradient.new_zeros(()).expand_as(gradient)

    handles = [
        x.register_hook(partial(note, index))
        for index, x in enumerate(parameters)
    ]
    try:
        for scale in (SCALE, 1.0, 1 / SCALE):
            squares.clear()
            torch.autograd.grad(
                loss,
                parameters,
                torch.full_like(loss, scale),
                retain_graph=True,
                allow_unused=True,
            )
            if not squares:
                return {}
            # One wait for the device, not one for each parameter.
            stacked = torch.stack([*squares.values()])
            values = stacked.double().sqrt() / scale
            if values.isfinite().all():
                break
    finally:
        for handle in handles:
            handle.remove()
    return dict(zip(squares, values.tolist(), strict=True))


def describe_ratio(name: str, ratios: Sequence[float], key: str) -> list[str]:
    """Say how hard a loss pulls, and in a second line what is surely wrong.

    How hard is no fault: in these batches good weights have pulled a tenth to
    240 times as hard as the task, and useless ones 23 times. Less than a
    thousandth is a fault: the loss moves nothing.

    Args:
        name (str): Name of the loss.
        ratios (list[float]): Of some batches, NaN where there is none.
        key (str): Where its weight stands in the config.
    """
    known = [x for x in ratios if not math.isnan(x)]
    if not known:
        return [f'{name}: shares no gradient with the task']
    ratio = median(known)
    lines = [f'{name}: {ratio:.3g} times the gradient of the task']
    if ratio > DROWNED:
        lines.append(
            f'{name}: pulls {ratio:.2g} times as hard as the task, which is '
            f'lost in the rounding of float32; lower {key}'
        )
    if 0 < ratio < IDLE:
        lines.append(
            f'{name}: pulls {ratio:.2g} times as hard as the task, next to '
            f'nothing; raise {key}. An LSHLoss does so where the weights of '
            f"the teacher's class layer are small, as they are before its "
            f"training; then take std='features', with LSHCalibrationHook"
        )
    return lines
