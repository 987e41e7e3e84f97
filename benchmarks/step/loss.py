"""The LSH loss alone, against its plain formulation."""

import statistics
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from clock import Meter, ratio_to
from tqdm import tqdm

from lshfm_mm.losses import lsh_loss

PRECISIONS = {'cpu': ('float32',), 'cuda': ('float32', 'tf32', 'bfloat16')}


def time_loss(options: Any) -> dict[str, Any]:
    """The LSH loss against the plain formulation, forward and backward.

    Returns:
        dict: ``shape``, (N, D, K), and ``forms``: name -> ``seconds``,
        ``peak`` (bytes) and, to the plain form, the ``ratio`` of times and
        the relative differences of ``value`` and ``gradient``.
    """
    meter, (n, d, k) = Meter(options.device), options.loss_shape
    generator = torch.Generator().manual_seed(0)
    student, teacher, weight = (
        torch.randn(*shape, generator=generator).to(options.device)
        for shape in ((n, d), (n, d), (k, d))
    )
    weight, bias = weight * 0.1, torch.zeros(k, device=options.device)
    student.requires_grad_()

    def plain() -> torch.Tensor:
        with torch.no_grad():
            codes = (F.linear(teacher, weight, bias) > 0).float()
        return F.binary_cross_entropy_with_logits(
            F.linear(student, weight, bias), codes
        )

    forms = {'plain': plain}
    for precision in PRECISIONS[options.device]:
        forms[f'ours, {precision}'] = partial(
            lsh_loss, student, teacher, weight, bias, precision=precision
        )
    runs: dict[str, list[float]] = {name: [] for name in forms}
    values, gradients, peaks = {}, {}, {}
    for name, form in forms.items():
        student.grad = None
        values[name] = form()
        values[name].backward()
        gradients[name] = student.grad
        student.grad = None
        peaks[name] = meter.peak(lambda f=form: f().backward())
    for _ in tqdm(range(options.rounds), 'loss, rounds'):
        for name, form in forms.items():
            student.grad = None
            runs[name].append(meter.seconds(lambda f=form: f().backward()))
    found = {
        name: {
            'seconds': statistics.median(times),
            'ratio': ratio_to(times, runs['plain']),
            'peak': peaks[name],
            'value': abs(float(values[name] / values['plain']) - 1),
            'gradient': difference(gradients[name], gradients['plain']),
        }
        for name, times in runs.items()
    }
    return {'shape': options.loss_shape, 'forms': found}


def difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Length of the difference, as a part of what is expected."""
    return float((found - expected).norm() / expected.norm())
