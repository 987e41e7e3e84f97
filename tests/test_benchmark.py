"""The benchmark, from the command line to the page."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from .conftest import CUDA_TESTS_ON

REPO = Path(__file__).parent.parent
pytestmark = pytest.mark.skipif(
    not sys.platform.startswith('linux'), reason='reads memory from /proc'
)


def run(tmp_path, *arguments):
    page, figures = tmp_path / 'page.md', tmp_path / 'figures.json'
    process = subprocess.run(
        [
            sys.executable,
            REPO / 'benchmarks/benchmark.py',
            *('--rounds', '1', '--size', '64', '64'),
            *('--loss-shape', '300', '16', '64'),
            *('--json', figures, '--out', page),
            *arguments,
        ],
        env={**os.environ, 'PYTHONPATH': str(REPO)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr[-2000:]
    return json.loads(figures.read_text('utf-8')), page.read_text('utf-8')


@pytest.mark.slow
def test_the_loss_alone(tmp_path):
    figures, page = run(tmp_path, '--detectors')
    assert figures['loss']['shape'] == [300, 16, 64]
    assert figures['loss']['value'] < 1e-6
    assert figures['loss']['gradient'] < 1e-6
    assert figures['machine']['versions']['torch'] in page
    assert 'N = 300, D = 16, K = 64' in page
    assert figures['command'] in page


@pytest.mark.cuda
@pytest.mark.parametrize('more', [[], ['--amp']], ids=['float32', 'amp'])
def test_a_table_of_a_gpu(tmp_path, more):
    if more and CUDA_TESTS_ON == 'cpu':
        pytest.skip('AmpOptimWrapper needs a GPU')
    figures, page = run(
        tmp_path,
        *('--device', CUDA_TESTS_ON, '--size', '128', '160'),
        *('--detectors', 'retinanet', *more),
    )
    assert figures['loss']['value'] < 1e-5
    for name, arm in figures['detectors']['retinanet'].items():
        assert arm['seconds']['step'] > 0 and arm['peak'] > 0
        assert name in page
    if CUDA_TESTS_ON == 'cuda':
        assert torch.cuda.get_device_name() in page


@pytest.mark.slow
def test_all_arms(tmp_path):
    """The sizes are those of the networks, whatever the images."""
    # Large enough for 512 proposals an image.
    figures, page = run(tmp_path, '--size', '128', '160')
    arms = figures['detectors']['faster_rcnn']
    plain = arms['student alone']
    theirs = arms['MMRazor SingleTeacherDistill, LSHL2']
    for name, arm in arms.items():
        assert arm['seconds']['step'] > 0
        assert name in page
        if 'floor' in arm:
            assert arm['checkpoint'] <= 0.62 * theirs['checkpoint']
            assert arm['student'] <= 1.001 * plain['student']
    ours = arms['RoI, LSHL2']['rois']
    assert ours['student'] == ours['teacher']
    assert theirs['rois']['teacher'][0] == ours['teacher'][0]
    assert arms['RoI, LSHL2, max_rois=128']['rois']['teacher'][0] == 256
    for detector in ('retinanet', 'gfl', 'rtmdet'):
        arms = figures['detectors'][detector]
        dense = arms['class tower, LSHL2, K = 4096']
        assert dense['seconds']['head'] > 0 and dense['floor'] > 0
        ours = arms['FPN, CWD']
        assert ours['seconds']['head'] == 0
        theirs = arms['MMRazor FpnTeacherDistill, CWD']
        assert ours['checkpoint'] < theirs['checkpoint']
