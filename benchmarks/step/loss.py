"""The LSH loss alone, against its plain formulation."""

import statistics
from typing import Any

import torch
import torch.nn.functional as F
from clock import Meter, ratio_to
from tqdm import tqdm

from lshfm_mm.losses import lsh_loss


def time_loss(options: Any) -> dict[str, Any]:
    """The LSH loss against the plain formulation, forward and backward."""
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

    def ours() -> torch.Tensor:
        return lsh_loss(student, teacher, weight, bias)

    runs: dict[str, list[float]] = {'plain': [], 'ours': []}
    forms = {'plain': plain, 'ours': ours}
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
    difference = gradients['ours'] - gradients['plain']
    return {
        'shape': options.loss_shape,
        'seconds': {x: statistics.median(v) for x, v in runs.items()},
        'time': ratio_to(runs['ours'], runs['plain']),
        'peak': peaks,
        'memory': peaks['ours'] / peaks['plain'],
        'value': abs(float(values['ours'] / values['plain']) - 1),
        'gradient': float(difference.norm() / gradients['plain'].norm()),
    }
