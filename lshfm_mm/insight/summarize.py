"""Statistics of what was measured."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..distillers.alignment import lsh_loss_of
from ..distillers.lshfm_distiller import LSHFMDistiller
from .collect import Values

QUANTILES = {'q05': 5, 'q25': 25, 'median': 50, 'q75': 75, 'q95': 95}
BINS = {
    'angle': np.linspace(0, 180, 91),  # degrees
    'norm_ratio': 2.0 ** np.linspace(-4, 4, 65),
    'equal_codes': np.linspace(0, 1, 51),
}


def summarize(values: Values, keep: np.ndarray | None = None) -> dict:
    """Statistics of samples.

    Args:
        values (Values): What was measured of each sample.
        keep (np.ndarray, optional): Which of them count, bool, (N,).
            Defaults to all.

    Returns:
        dict: ``count``; ``zeros``, those where a feature is 0, which has no
        direction; and mean, standard deviation, quantiles and histogram of
        ``angle`` (degrees), ``norm_ratio`` (of a sample) and
        ``equal_codes`` (share). ``norm_ratio.of_means`` is the student's
        mean norm over the teacher's.
    """
    angle, student, teacher, codes = (
        (x if keep is None else x[keep]).astype(np.float64) for x in values[:4]
    )
    directed = np.isfinite(angle)
    some = teacher > 0
    total = teacher.sum()
    return {
        'count': len(angle),
        'zeros': int((~directed).sum()),
        'angle': _spread('angle', angle[directed]),
        'norm_ratio': {
            'of_means': student.sum() / total if total > 0 else None,
            **_spread('norm_ratio', student[some] / teacher[some]),
        },
        'equal_codes': _spread('equal_codes', codes),
    }


def groups_of(
    values: Values, num_classes: int, split: bool
) -> dict[str, np.ndarray]:
    """Which samples are of which group, bool, (N,).

    Groups are 'all', classes by their index as text, and, where they are
    ``split``, 'foreground' and 'background'.
    """
    groups: dict[str, np.ndarray] = {'all': np.ones(len(values.labels), bool)}
    if split:
        foreground = np.any(values.labels >= 0, axis=1)
        groups.update(foreground=foreground, background=~foreground)
    for index in range(num_classes):
        groups[str(index)] = np.any(values.labels == index, axis=1)
    return groups


def summarize_tap(
    distiller: LSHFMDistiller,
    tap: str,
    values: Mapping[str, Mapping[str, Values]],
    classes: Sequence[str],
    split: bool,
) -> dict[str, Any]:
    """All numbers of a tap, for :func:`lshfm_mm.insight.analyze`.

    ``values`` are by student, then by tap.
    """
    layer = distiller.taps[tap]
    loss = lsh_loss_of(distiller, tap)
    hashes = '4 per channel, bias zero, seed 0, drawn for this page'
    if loss is not None:
        hashes = (
            f'{len(loss.weight)}, bias {loss.bias_kind}, seed {loss.seed}, '
            f"the config's"
        )
    samples = 'locations' if split else 'images'
    if tap in distiller.records.on_rois:
        samples = 'boxes'
    return {
        'layer': layer.student,
        'teacher_layer': layer.teacher,
        'record': layer.record,
        'samples': samples,
        'hashes': hashes,
        'bins': {name: edges.tolist() for name, edges in BINS.items()},
        'students': {
            name: _summarize_student(measured[tap], classes, split)
            for name, measured in values.items()
            if tap in measured
        },
    }


def _summarize_student(
    values: Values, classes: Sequence[str], split: bool
) -> dict[str, Any]:
    """Numbers of groups and classes at a tap."""
    groups = groups_of(values, len(classes), split)
    summaries = {k: summarize(values, keep) for k, keep in groups.items()}
    per_class = {x: summaries.pop(str(i)) for i, x in enumerate(classes)}
    for summary in per_class.values():
        for name in BINS:
            summary[name].pop('histogram')
    return {
        **summaries,
        'classes': per_class,
        'joint': {k: _joint(values, groups[k]) for k in summaries},
    }


def _spread(name: str, values: np.ndarray) -> dict[str, Any]:
    """Mean, standard deviation, quantiles and histogram."""
    edges = BINS[name]
    counts, _ = np.histogram(values, edges)
    histogram = {
        'counts': counts.tolist(),
        'below': int((values < edges[0]).sum()),
        'above': int((values > edges[-1]).sum()),
    }
    if not len(values):
        empty = dict.fromkeys(('mean', 'std', *QUANTILES))
        return {**empty, 'histogram': histogram}
    quantiles = np.percentile(values, list(QUANTILES.values()))
    return {
        'mean': values.mean(),
        'std': values.std(),
        **dict(zip(QUANTILES, quantiles.tolist(), strict=True)),
        'histogram': histogram,
    }


def _joint(values: Values, keep: np.ndarray) -> dict[str, Any]:
    """Histogram of angle and norm ratio together."""
    keep = keep & (values.teacher > 0) & np.isfinite(values.angle)
    counts, *_ = np.histogram2d(
        values.angle[keep],
        values.student[keep] / values.teacher[keep],
        (BINS['angle'], BINS['norm_ratio']),
    )
    counts = counts.astype(int)
    return {
        'counts': counts.tolist(),
        'outside': int(keep.sum() - counts.sum()),
    }
