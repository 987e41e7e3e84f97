"""The comparison of operators, from the command line to the page."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lshfm_mm.compat import mmcv_ext

from .test_execution import needs_compiled, needs_torchvision

TOOL = Path(__file__).parent.parent / 'benchmarks/compare_operators'


def run(out):
    return subprocess.run(
        [sys.executable, TOOL, '--rounds', '1', '--out', out],
        capture_output=True,
        text=True,
        check=False,
    )


@needs_torchvision
def test_it_needs_compiled_operators(tmp_path):
    process = run(tmp_path / 'page.md')
    assert process.returncode == 1
    assert process.stderr.splitlines()[-1] == (
        'error: mmcv: its operators are not compiled here, so there is '
        'nothing to compare with; make env MMCV=compiled'
    )
    assert not list(tmp_path.iterdir())


@needs_compiled
@pytest.mark.slow
def test_the_page(tmp_path):
    page = tmp_path / 'page.md'
    process = run(page)
    assert process.returncode == 0, process.stderr[-2000:]
    rows = [
        [cell.strip() for cell in line.split('|')[1:-1]]
        for line in page.read_text().partition('## CUDA')[0].splitlines()
        if line.startswith('| ') and not line.startswith('| operator')
    ]
    names = [row[0] for row in rows]
    assert names.count('nms') == names.count('deform_conv') == 2
    for name, _, *cells, _, _ in rows:
        if name.startswith('nms'):
            assert cells == ['0', '']  # the same bits; no gradient
        if name in ('roi_align', 'roi_align, not aligned'):
            assert cells == ['0', '0']
        if name == 'roi_pool':
            assert cells == ['none compiled'] * 2
        for cell in {*cells} - {'', 'none compiled'}:
            assert float(cell) < 1e-4, name
    assert all(name in page.read_text() for name in mmcv_ext.NOT_SERVED)


@pytest.mark.slow
def test_all_operators_are_compared():
    """Each function is called, and ours runs where none is compiled."""
    called = set()

    class Watched:
        def __getattr__(self, name):
            called.add(name)
            return getattr(mmcv_ext, name)

    all_cases = runpy.run_path(str(TOOL / 'cases.py'))['all_cases']
    for case in all_cases('cpu'):
        for step in (case.forward, case.backward):
            if step is not None:
                for x in step(Watched()):
                    assert x.isfinite().all() and x.any(), case.name
    other = {'get_compiler_version', 'get_compiling_cuda_version'}
    other |= {'carafe_naive_forward', 'carafe_naive_backward'}
    assert called == set(mmcv_ext.__all__) - other


def test_differences_are_fractions_of_the_largest_value():
    largest = runpy.run_path(str(TOOL))['largest_difference']
    one = torch.tensor([1.0, -4.0])
    assert largest([one], [one.clone()]) == 0
    assert largest([one + 0.5], [one]) == pytest.approx(0.125)
    assert largest([one[:1]], [one]) == float('inf')
    assert largest([one[:0]], [one[:0]]) == 0
