"""How hard each loss pulls, against the task."""

import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import torch
from torch import Tensor

IDLE = 1e-3  # of the task's gradient; what pulls less moves nothing
DROWNED = 2.0**24  # a sum with 1 in float32 does not change by 1 / DROWNED
# What a linear layer, or autocast, puts between a weight and its product.
SEEN_THROUGH = {'TBackward0', 'TransposeBackward0', 'ToCopyBackward0'}
SCALE = 2.0**16  # so that gradients do not vanish on their way in float16


def gradient_ratios(
    task: Tensor, mimics: Mapping[str, Tensor], parameters: Sequence[Tensor]
) -> dict[str, float]:
    """Norms of the gradients of losses, over that of the task's loss.

    Both are taken on the weights of the last layers that the two losses
    share, as in `GradNorm <https://arxiv.org/abs/1711.02257>`_ (section 3).
    No gradient goes further back: where a neck or a head is tapped, the
    backbone, which takes most time and memory, is left alone. Residual sums
    lead back to the first layer of their stage, in a ViT through all blocks.
    Nothing is accumulated, and the graph stays. The gradient of one parameter
    exists at a time, in its precision; of all others only their norms are
    kept.

    Args:
        task (Tensor): The task's loss, ().
        mimics (dict[str, Tensor]): Losses that mimic, (), by name.
        parameters (list[Tensor]): Trained parameters.

    Returns:
        dict[str, float]: The ratios; NaN where nothing is shared, or the
        task's gradient is 0.
    """
    of_task = _weights(task, parameters, False)
    below: dict[tuple[int, ...], float] = {}  # by what is shared
    ratios = {}
    for name, loss in mimics.items():
        shared = _last_shared(loss, of_task)
        key = tuple(sorted(map(id, shared)))
        if key not in below:
            below[key] = _norm(task, shared)
        norm = below[key]
        ratios[name] = _norm(loss, shared) / norm if norm else math.nan
    return ratios


def _last_shared(loss: Tensor, of_task: Sequence[Tensor]) -> list[Tensor]:
    """Weights of the task that a loss meets first on each way back.

    Matrices and filters; where it meets none, what else the two share.
    """
    layers = [x for x in of_task if x.dim() >= 2]
    return _weights(loss, layers, True) or _weights(loss, of_task, True)


def _weights(
    loss: Tensor, among: Sequence[Tensor], first: bool
) -> list[Tensor]:
    """Those of some that a loss depends on; of each way back maybe the first.

    It walks the graph of autograd, in which weights are leaves.
    """
    wanted = {id(x) for x in among}
    found: dict[int, Tensor] = {}
    seen: set[Any] = {None}
    stack: list[Any] = [loss.grad_fn]
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        inputs = [x for x, _ in node.next_functions]
        leaves = [x for x in map(_leaf, [node, *inputs]) if x is not None]
        met = {id(x): x for x in leaves if id(x) in wanted}
        found |= met
        if not (first and met):
            stack += inputs
    return [*found.values()]


def _leaf(node: Any) -> Tensor | None:
    """The leaf behind a node: a weight, also if transposed or cast."""
    while node is not None and node.name() in SEEN_THROUGH:
        node = node.next_functions[0][0]
    return getattr(node, 'variable', None)


def _norm(loss: Tensor, parameters: Sequence[Tensor]) -> float:
    """Norm of the gradient of a loss.

    Of the scales it takes the greatest that float16, and the squares in
    float32, can hold. A gradient is gone as soon as its square is summed:
    what autograd keeps of it is one number, seen as often as it has entries.
    """
    squares: list[Tensor] = []

    def note(gradient: Tensor) -> Tensor:
        kind = torch.promote_types(gradient.dtype, torch.float32)
        squares.append(gradient.to(kind).square().sum())
        return gradient.new_zeros(()).expand_as(gradient)

    norm = 0.0
    handles = [x.register_hook(note) for x in parameters]
    try:
        for scale in (SCALE, 1.0, 1 / SCALE) if parameters else ():
            squares.clear()
            torch.autograd.grad(
                loss,
                parameters,
                torch.full_like(loss, scale),
                retain_graph=True,
            )
            # One wait for the device, not one for each parameter.
            norm = torch.stack(squares).double().sqrt().norm().item() / scale
            if math.isfinite(norm):
                break
    finally:
        for handle in handles:
            handle.remove()
    return norm


def describe_ratio(name: str, ratios: Sequence[float], key: str) -> list[str]:
    """Say how hard a loss pulls, and in a second line what is surely wrong.

    How hard is no fault: in these batches it tells no good weights from bad
    ones. Less than a thousandth is a fault: the loss moves nothing.

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
