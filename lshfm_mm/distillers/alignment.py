"""How well a student's features agree with the teacher's.

Legend: N samples (images, RoIs or locations), D feature width, K hash
functions.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from ..losses.hashing import full_float32, in_blocks, project
from ..losses.lsh import LSHLoss
from .lshfm_distiller import LSHFMDistiller


def rows_of(feature: Tensor, keep: Tensor | None = None) -> Tensor:
    """The samples of features or maps, in float32 or better, (N, D).

    Args:
        feature (Tensor): (N, D), or (B, C, H, W): each location is a sample.
        keep (Tensor, optional): Which samples count, bool, (N,), for maps
            (B, H, W). Defaults to all.
    """
    feature = feature.detach().movedim(1, -1)
    rows = feature.flatten(0, -2) if keep is None else feature[keep]
    return rows.to(torch.promote_types(rows.dtype, torch.float32))


def angles(student: Tensor, teacher: Tensor) -> Tensor:
    """Angles between features; NaN where one of the two is 0.

    Args:
        student (Tensor): The student's features, (N, D).
        teacher (Tensor): The teacher's features, (N, D).

    Returns:
        Tensor: Degrees, (N,).

    Example:
        >>> import torch
        >>> east, north = torch.eye(2)
        >>> angles(east[None], torch.stack([east + north])).tolist()
        [45.0]
    """
    units = [
        x / torch.linalg.vector_norm(x, dim=1, keepdim=True)
        for x in (student, teacher)
    ]
    # Kahan's formula: exact for small angles, where acos of a cosine is not.
    apart = torch.linalg.vector_norm(units[0] - units[1], dim=1)
    along = torch.linalg.vector_norm(units[0] + units[1], dim=1)
    return torch.rad2deg(2 * torch.atan2(apart, along))


def equal_codes(
    student: Tensor,
    teacher: Tensor,
    weight: Tensor,
    bias: Tensor,
    keep: Tensor | None = None,
) -> Tensor:
    """Share of hash codes that student and teacher have in common.

    Args:
        student (Tensor): The student's features, (N, D), or maps,
            (B, C, H, W).
        teacher (Tensor): The teacher's features, same shape.
        weight (Tensor): Weights of the hash functions, (K, D).
        bias (Tensor): Their biases, (K,).
        keep (Tensor, optional): Which samples count, bool, (N,), for maps
            (B, H, W). Defaults to all.

    Returns:
        Tensor: For each sample that counts a share in 0 .. 1, (N,).
    """
    common = torch.promote_types(student.dtype, weight.dtype)
    student, teacher = student.detach().to(common), teacher.to(common)
    weight, bias = weight.to(common), bias.to(common)
    places = student.shape[:1] + student.shape[2:]
    equal = torch.zeros(places, dtype=torch.long, device=student.device)
    with full_float32(student.device):
        for s, t, some, w, b in in_blocks(
            (student, teacher, equal), weight, bias
        ):
            same = (project(s, w, b) > 0) == (project(t, w, b) > 0)
            some += same.sum(dim=1)
    shares = equal / len(weight)
    return shares.flatten() if keep is None else shares[keep]


@torch.no_grad()
def alignment_sums(
    levels: Iterable[tuple[Tensor, Tensor, Tensor | None]],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """Sums over samples from which means follow, also over processes.

    Args:
        levels (Iterable): The student's feature, the teacher's, and which
            samples count, of each level; see :func:`rows_of`.
        weight (Tensor, optional): Weights of hash functions, (K, D).
        bias (Tensor, optional): Their biases, (K,).

    Returns:
        Tensor: Angles (degrees) and their count, norms of student and
        teacher, shares of equal codes and their count, float64, (6,).
    """
    parts = []
    for student, teacher, keep in levels:
        if not student.numel():
            continue
        rows = rows_of(student, keep), rows_of(teacher, keep)
        angle = angles(*rows)
        finite = angle.isfinite()
        norms = [torch.linalg.vector_norm(x, dim=1) for x in rows]
        codes = norms[0].new_zeros(0)
        if weight is not None and bias is not None:
            codes = equal_codes(student, teacher, weight, bias, keep)
        angle = torch.where(finite, angle, 0)
        sums = [angle, finite, *norms, codes, torch.ones_like(codes)]
        parts.append(torch.stack([x.double().sum() for x in sums]))
    return torch.stack(parts).sum(dim=0) if parts else torch.zeros(6).double()


def alignment_means(sums: Tensor) -> dict[str, float]:
    """Means from :func:`alignment_sums`.

    Args:
        sums (Tensor): Sums, (6,).

    Returns:
        dict[str, float]: ``angle``, the mean in degrees, over samples where
        neither feature is 0; ``norm_ratio``, the student's mean norm over
        the teacher's; ``equal_codes``, a share in 0 .. 1. What has no sample
        is left out.
    """
    angle, count, student, teacher, codes, coded = sums.tolist()
    ratios = dict(
        angle=(angle, count),
        norm_ratio=(student, teacher),
        equal_codes=(codes, coded),
    )
    return {name: x / over for name, (x, over) in ratios.items() if over > 0}


def lsh_loss_of(distiller: LSHFMDistiller, tap: str) -> LSHLoss | None:
    """The first LSH loss at a tap, whose codes are compared; None without."""
    losses = [distiller.distill_losses[x] for x in distiller.losses_of(tap)]
    return next((x for x in losses if isinstance(x, LSHLoss)), None)
