"""Compare mmcv's operators on torchvision with mmcv's compiled ones.

Both run on the same inputs, of the sizes that detectors have, in turn. It
needs a compiled mmcv, made by make env MMCV=compiled, and writes a page in
Markdown::

    python benchmarks/compare_operators --out docs/operators.md
"""

import argparse
import os
import statistics
import sys
import time
from datetime import date
from pathlib import Path
from types import ModuleType

import mmcv._ext
import torch
import torchvision
from cases import Case, Run, all_cases
from torch import Tensor

from lshfm_mm.compat import mmcv_ext
from lshfm_mm.compat.operators import are_compiled
from lshfm_mm.utils.files import atomic_write

sys.path.append(str(Path(__file__).parents[1]))
from machine import commit, processor

REPO = Path(__file__).parents[2]
SLOW = 1.5  # times as long as compiled


def largest_difference(found: list[Tensor], expected: list[Tensor]) -> float:
    """Over all tensors, as a fraction of the largest value of each."""
    if [x.shape for x in found] != [x.shape for x in expected]:
        return float('inf')  # other boxes
    worst = 0.0
    for one, other in zip(found, expected, strict=True):
        if one.numel() and not torch.equal(one, other):
            difference = (one.double() - other.double()).abs().max()
            worst = max(worst, float(difference / other.double().abs().max()))
    return worst


def time_of(run: Run, ext: ModuleType, device: str) -> float:
    """Seconds of one run."""
    start = time.perf_counter()
    run(ext)
    if device == 'cuda':
        torch.cuda.synchronize()
    return time.perf_counter() - start


def measure(run: Run | None, device: str, rounds: int) -> tuple[str, float]:
    """Difference, as text, and ratio of the medians of time, ours first."""
    if run is None:
        return '', float('nan')
    try:
        expected = run(mmcv._ext)
    except RuntimeError as error:
        if 'implementation for device' not in str(error):
            raise
        return 'none compiled', float('nan')
    difference = largest_difference(run(mmcv_ext), expected)
    # What is over in a moment is often interrupted: a second of it, then.
    rounds = max(rounds, min(500, int(1 / time_of(run, mmcv_ext, device))))
    times: list[list[float]] = [[], []]
    for _ in range(rounds):
        for ext, seconds in zip((mmcv_ext, mmcv._ext), times, strict=True):
            seconds.append(time_of(run, ext, device))
    ratio = statistics.median(times[0]) / statistics.median(times[1])
    return f'{difference:.1g}' if difference else '0', ratio


def table(cases: list[Case], device: str, rounds: int) -> list[str]:
    """Lines of a table of one device, and what is slow in it."""
    lines = [
        '| operator | size | value | gradient | time | time of gradient |',
        '|---|---|---|---|---|---|',
    ]
    slow = []
    for case in cases:
        print(f'{case.name}, {case.size}', file=sys.stderr)
        value, time_ratio = measure(case.forward, device, rounds)
        gradient, grad_ratio = measure(case.backward, device, rounds)
        ratios = [time_ratio, grad_ratio]
        if max((x for x in ratios if x == x), default=0) > SLOW:
            slow.append(f'{case.name} ({case.size})')
        cells = ['' if x != x else f'{x:.2f}' for x in ratios]
        lines.append(
            f'| {case.name} | {case.size} | {value} | {gradient} '
            f'| {cells[0]} | {cells[1]} |'
        )
    named = ', '.join(slow) or 'none'
    return [*lines, '', f'Slower than {SLOW} times compiled: {named}.']


def machine() -> str:
    """On what, and with what, this was measured."""
    name = processor()
    if torch.cuda.is_available():
        name = f'{torch.cuda.get_device_name()}, {name}'
    load = (
        f', load {os.getloadavg()[0]:.1f}' if hasattr(os, 'getloadavg') else ''
    )
    return (
        f'{date.today()}, {name}, {torch.get_num_threads()} threads{load}; '
        f'torch {torch.__version__}, torchvision {torchvision.__version__}, '
        f'mmcv {mmcv.__version__}; commit {commit(REPO)}.'
    )


PAGE = """\
# mmcv's operators without a compiler

mmcv's operators are C++ and CUDA, and no wheel of them fits a newer torch.
`make env` installs mmcv with operators written on torchvision's
(`lshfm_mm/compat/mmcv_ext`); `make env MMCV=compiled` compiles mmcv's own.
This page compares them on the same inputs:

    {command}

{machine}

Medians of {rounds} rounds or more, in turn. Differences are the largest, as
a fraction of the largest value: 0 means the same bits. Times are ours over
the compiled: below 1 ours is faster. *none compiled*: mmcv has no such kernel
for this device, ours runs.

{tables}

What is no accident in them:

- nms on a GPU: mmcv compares the intersection with threshold x union,
  torchvision the quotient with the threshold. Boxes whose IoU is the
  threshold to the last bit may differ. On the CPU both take the quotient.
- RoIs and offsets that are NaN or infinite: the compiled kernels read memory
  there, or stop. Here such a RoI pools NaN, and such an offset sees nothing.
- Gaussian soft-nms: rounding of exp. All of soft-nms and nms_match runs on
  the CPU, as mmcv's does, in numpy, one step a box.
- roi_pool: mmcv has it on a GPU only, where its bins are rounded after a
  fused multiplication; a RoI whose edge falls on a pixel to the last bit may
  differ. The gradient of a RoI without an area is 0 here, and mmcv's goes to
  the first pixel. A bin without samples of roi_align's maximum gives 0 and not
  -10000.
- carafe, ms_deform_attn, focal losses and sync_bn are plain torch: more
  memory than a kernel of their own, and they run on the CPU too.
- float16 and bfloat16 are computed in float32 and rounded once. Maps in
  channels-last format are read right; compiled operators take them for plain
  ones, without an error.
- nms, roi_align and the deformable convolutions compile (`fullgraph=True`)
  and export; compiled ones do neither.

## mmcv's own tests

{own_tests}

## Not there

These raise `mmcv's operator NAME needs the compiled mmcv: python -m lshfm_mm
install_mmcv --compiled` (in a clone also `make env MMCV=compiled`):

{absent}
"""
OWN_TESTS = """\
Of tag v2.1.0, fetched and run by hand on 2026-11-25, on a CPU: those of nms,
bbox_overlaps, RoIAlign, RoIPool, both deformable convolutions, deformable RoI
pooling, focal losses, carafe, masked convolution, multi-scale deformable
attention, SAConv, SyncBN and ONNX.

- As published: with torchvision's operators 37 pass and none fails, with
  compiled ones 36 pass and `test_onnx.py::test_roialign` fails; 109 are
  skipped for want of a GPU. SyncBN's pass by returning at once: they want
  four GPUs.
- With CUDA cases turned to the CPU, but for SyncBN's and ONNX's, 68 run:
  torchvision's operators pass 67, compiled ones 27, since most have no kernel
  there. `test_carafe_naive_gradcheck` is the one that fails: mmcv's Python
  asserts a GPU.
- ONNX's cases for CUDA ask for nodes by the names of torch's old exporter,
  which torch 2.14 does not write.
"""


def main() -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument('--rounds', type=int, default=11)
    parser.add_argument('--out', type=Path, required=True)
    options = parser.parse_args()
    if not are_compiled():
        sys.exit(
            'error: mmcv: its operators are not compiled here, so there is '
            'nothing to compare with; make env MMCV=compiled'
        )
    about = machine()  # the load before we add to it
    devices = ['cpu', *['cuda'] * torch.cuda.is_available()]
    parts = []
    for device in devices:
        cases = all_cases(device)
        parts += [f'## {device.upper()}', '']
        parts += [*table(cases, device, options.rounds), '']
    if devices == ['cpu']:
        parts.append(
            'No GPU was there: no times of CUDA are known. Values are '
            'compared by [its tests](gpu.md).'
        )
    page = PAGE.format(
        command=' '.join(
            ['python benchmarks/compare_operators', *sys.argv[1:]]
        ),
        machine=about,
        rounds=options.rounds,
        tables='\n'.join(parts),
        own_tests=OWN_TESTS.strip(),
        absent=', '.join(f'`{x}`' for x in mmcv_ext.NOT_SERVED) + '.',
    )
    with atomic_write(options.out) as partial:
        partial.write_text(page, 'utf-8')


if __name__ == '__main__':
    main()
