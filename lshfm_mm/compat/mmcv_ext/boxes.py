"""Suppression and overlaps of boxes.

N: boxes as (x1, y1, x2, y2), in pixels; ``offset``: what the width x2 - x1
lacks, 0, or 1 for the boxes of mmdet 1.x.
"""

import numpy as np
import torch
from torch import Tensor

from ._shared import OPS, widen

FloatArray = np.ndarray[tuple[int, ...], np.dtype[np.float32]]


def nms(
    boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int
) -> Tensor:
    """Non-maximum suppression.

    Args:
        boxes (Tensor): Boxes, (N, 4).
        scores (Tensor): Their scores, (N,).
        iou_threshold (float): Boxes with a larger IoU to a better one go.
        offset (int): 0 or 1.

    Returns:
        Tensor: Indices of those that stay, (M,), best first, on the device
        of the boxes.
    """
    boxes, scores = widen(boxes, scores)
    if offset:
        boxes = torch.cat([boxes[:, :2], boxes[:, 2:] + offset], 1)
    # mmcv compares with a float32, torchvision's CPU kernel with a float64.
    threshold = float(np.float32(iou_threshold))
    # Among equal scores the order decides. mmcv sorts unstably, torchvision
    # stably: hence scores that are equal nowhere (exact to 2**24 boxes).
    order = scores.sort(descending=True)[1]
    ranks = torch.arange(
        boxes.shape[0], 0, -1, dtype=boxes.dtype, device=boxes.device
    )
    boxes = boxes.index_select(0, order)
    return order.index_select(0, OPS.nms(boxes, ranks, threshold))


def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Soft non-maximum suppression, https://arxiv.org/abs/1704.04503.

    On the CPU only, where mmcv's Python brings its inputs, in float32.

    Args:
        boxes (Tensor): Boxes, (N, 4).
        scores (Tensor): Their scores, (N,).
        dets (Tensor): Written to: boxes and new scores, (N, 5), best first;
            rows from M on stay as they are.
        iou_threshold (float): From which IoU on ``method`` 0 and 1 act.
        sigma (float): Width of the Gaussian of ``method`` 2.
        min_score (float): Boxes below this score go.
        method (int): 0 naive, 1 linear, 2 Gaussian.
        offset (int): 0 or 1.

    Returns:
        Tensor: Indices of those that stay, (M,).
    """
    one, threshold = np.float32(1), np.float32(iou_threshold)
    low, width = np.float32(min_score), np.float32(sigma)
    table = _table(boxes, scores, offset)
    kept = table.shape[1]
    position = 0
    with np.errstate(all='ignore'):
        while position < kept:
            _swap(table, position, position + _best(table[4, position:kept]))
            rest = table[:, position + 1 : kept]
            overlap = _overlaps(table[:, position], rest, offset)
            score = rest[4]
            if method == 2:
                # C's expf rounds correctly, numpy's float32 exp does not.
                power = (-(overlap * overlap) / width).astype(np.float64)
                score *= np.exp(power).astype(np.float32)
            else:
                weight = np.float32(0) if method == 0 else one - overlap
                np.multiply(score, weight, score, where=overlap >= threshold)
            gone = score < low
            if gone.any():
                kept -= _close_gaps(rest, gone)
            position += 1
    dets[:kept] = torch.from_numpy(table[:5, :kept].T).to(dets)
    return torch.from_numpy(table[6, :kept]).long()


def nms_match(dets: Tensor, iou_threshold: float) -> list[list[int]]:
    """Groups of boxes: each that stays, and those that it suppresses.

    On the CPU only, where mmcv's Python brings its inputs, in float32.

    Args:
        dets (Tensor): Boxes and scores, (N, 5).
        iou_threshold (float): From which IoU on a box joins a better one.

    Returns:
        list[list[int]]: Indices of the boxes, best first.
    """
    order = dets[:, 4].detach().sort(descending=True)[1]  # unstably, as mmcv
    rest = _table(dets[:, :4], dets[:, 4], 0).take(order.numpy(), 1)
    threshold = np.float32(iou_threshold)
    groups = []
    with np.errstate(all='ignore'):
        while rest.shape[1]:
            best, rest = rest[:, 0], rest[:, 1:]
            near = _overlaps(best, rest, 0) >= threshold
            (joining,) = near.nonzero()
            group = [best[6], *rest[6, joining]]
            if len(joining):
                rest = rest.take((~near).nonzero()[0], 1)
            groups.append([int(x) for x in group])
    return groups


def bbox_overlaps(
    bboxes1: Tensor,
    bboxes2: Tensor,
    ious: Tensor,
    mode: int,
    aligned: bool,
    offset: int,
) -> None:
    """IoU, or share of the first box that the second covers.

    Args:
        bboxes1 (Tensor): Boxes, (M, 4).
        bboxes2 (Tensor): Boxes, (N, 4).
        ious (Tensor): Written to, (M, N), or (M,) where ``aligned``.
        mode (int): 0 for the IoU, 1 for the share.
        aligned (bool): Whether box i meets box i only; M = N.
        offset (int): 0 or 1.
    """
    one, other = widen(bboxes1, bboxes2)
    if not aligned:
        one = one[:, None]
    low = torch.max(one[..., :2], other[..., :2])
    high = torch.min(one[..., 2:], other[..., 2:])
    inter = _product((high - low + offset).clamp(min=0))
    whole = _product(one[..., 2:] - one[..., :2] + offset)
    if mode == 0:
        area = _product(other[..., 2:] - other[..., :2] + offset)
        whole = whole + area - inter
    if ious.is_cuda:  # as mmcv's kernel there, not that of the CPU
        whole = whole.clamp(min=offset)
    ious.copy_(inter / whole)


def _product(sides: Tensor) -> Tensor:
    """Areas, (...), of sides, (..., 2); prod() takes several times as long."""
    return sides[..., 0] * sides[..., 1]


def _table(boxes: Tensor, scores: Tensor, offset: int) -> FloatArray:
    """x1, y1, x2, y2, score, area and index of boxes, (7, N).

    One float32 array, as few calls of numpy work on it; exact to 2**24 boxes.
    """
    table = np.empty((7, len(boxes)), np.float32)
    table[:4] = boxes.detach().float().numpy().T
    table[4] = scores.detach().float().numpy()
    sides = table[2:4] - table[:2] + np.float32(offset)
    table[5] = sides[0] * sides[1]
    table[6] = np.arange(len(boxes))
    return table


def _overlaps(box: FloatArray, boxes: FloatArray, offset: int) -> FloatArray:
    """IoU of one box, (7,), with others, (7, N), in mmcv's order of steps."""
    sides = np.minimum(box[2:4, None], boxes[2:4])
    sides -= np.maximum(box[:2, None], boxes[:2])
    if offset:
        sides += np.float32(offset)
    np.fmax(sides, np.float32(0), sides)  # 0 where a side is NaN
    inter = sides[0] * sides[1]
    return inter / (box[5] + boxes[5] - inter)


def _best(scores: FloatArray) -> int:
    """Where the first largest score is; in C++ nothing is less than NaN."""
    best = int(scores.argmax())
    if best and np.isnan(scores[best]):
        return int(np.nanargmax(scores))
    return best


def _swap(table: FloatArray, one: int, other: int) -> None:
    if one != other:
        kept = table[:, one].copy()
        table[:, one] = table[:, other]
        table[:, other] = kept


def _close_gaps(
    table: FloatArray, gone: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]
) -> int:
    """Fill columns from the end, which is the order that mmcv leaves."""
    (stay,) = np.nonzero(~gone)
    end = len(stay)
    (gaps,) = np.nonzero(gone[:end])
    table[:, gaps] = table[:, stay[stay >= end][::-1]]
    return len(gone) - end
