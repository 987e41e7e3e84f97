"""How hard each loss pulls, against the task: what a loss weight means."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

SCALE = 2.0**16  # so that gradients do not vanish on their way in float16


def gradient_ratios(
    task: Tensor, mimics: Mapping[str, Tensor], parameters: Sequence[Tensor]
) -> dict[str, float]:
    """Norms of the gradients of losses, over that of the task's loss.

    Both are taken on the parameters that the two losses share. Nothing is
    accumulated, and the graph stays.

    Args:
        task (Tensor): The task's loss, ().
        mimics (dict[str, Tensor]): Losses that mimic, (), by name.
        parameters (list[Tensor]): Trained parameters.

    Returns:
        dict[str, float]: The ratios; NaN where nothing is shared, or the
        task's gradient is 0.
    """

    def gradients(loss: Tensor) -> Sequence[Tensor | None]:
        """In float64. Of the scales the greatest that float16 can hold."""
        if not loss.requires_grad:
            return [None] * len(parameters)
        for scale in (SCALE, 1.0, 1 / SCALE):
            found = torch.autograd.grad(
                loss,
                parameters,
                torch.full_like(loss, scale),
                retain_graph=True,
                allow_unused=True,
            )
            if all(x is None or bool(x.isfinite().all()) for x in found):
                break
        return [None if x is None else x.double() / scale for x in found]

    def norm(parts: Sequence[Tensor]) -> float:
        squares = [x.square().sum() for x in parts]
        return float(torch.stack(squares).sum().sqrt()) if squares else 0.0

    of_task = gradients(task)
    ratios = {}
    for name, loss in mimics.items():
        shared = [
            (ours, theirs)
            for ours, theirs in zip(gradients(loss), of_task, strict=True)
            if ours is not None and theirs is not None
        ]
        below = norm([theirs for _, theirs in shared])
        above = norm([ours for ours, _ in shared])
        ratios[name] = above / below if below else float('nan')
    return ratios


def advice(
    name: str, ratio: float, weight: float, key: str, limit: float
) -> str | None:
    """What to do about a loss that drowns the task, in one line.

    One that pulls less than the task is left as it is: in the first batches
    of a student that starts at random the task may well pull harder, and that
    says nothing of the weight.

    Args:
        name (str): Of the loss.
        ratio (float): See :func:`gradient_ratios`.
        weight (float): Its ``loss_weight``.
        key (str): Key of that weight in the config.
        limit (float): Greatest ratio that is fine.

    Returns:
        str: The advice; None where the ratio is fine, or cannot be told.
    """
    if not ratio > limit:
        return None
    better = float(f'{weight / ratio:.2g}')
    return (
        f'{name}: with weight {weight:g} it pulls {ratio:.2g} times as hard '
        f'as the task on the weights that both train (norms of gradients); '
        f'to pull as hard: --cfg-options {key}={better:g}'
    )
