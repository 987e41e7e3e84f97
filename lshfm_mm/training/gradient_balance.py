"""How hard each loss pulls, against the task."""

import math
from collections.abc import Mapping, Sequence
from statistics import median

import torch
from torch import Tensor

DROWNED = 2.0**24  # a sum with 1 in float32 does not change by 1 / DROWNED
SCALE = 2.0**16  # so that gradients do not vanish on their way in float16


def gradient_ratios(
    task: Tensor, mimics: Mapping[str, Tensor], parameters: Sequence[Tensor]
) -> dict[str, float]:
    """Norms of the gradients of losses, over that of the task's loss.

    Both are taken on the parameters that the two losses share. Nothing is
    accumulated, and the graph stays. The gradients of one loss exist at a
    time, in the precision of the parameters; of all others only their norms
    are kept.

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
    float32, can hold.
    """
    if not loss.requires_grad:
        return {}
    for scale in (SCALE, 1.0, 1 / SCALE):
        gradients = torch.autograd.grad(
            loss,
            parameters,
            torch.full_like(loss, scale),
            retain_graph=True,
            allow_unused=True,
        )
        squares = {
            index: x.to(torch.promote_types(x.dtype, torch.float32))
            .square()
            .sum()
            for index, x in enumerate(gradients)
            if x is not None
        }
        del gradients
        if not squares:
            return {}
        # One wait for the device, not one for each parameter.
        values = torch.stack([*squares.values()]).double().sqrt() / scale
        if values.isfinite().all():
            break
    return dict(zip(squares, values.tolist(), strict=True))


def describe_ratio(name: str, ratios: Sequence[float], key: str) -> list[str]:
    """Say how hard a loss pulls, and in a second line what is surely wrong.

    How hard is no fault: in these batches good weights have pulled a tenth to
    240 times as hard as the task, and useless ones 23 times.

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
    return lines
