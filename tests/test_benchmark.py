"""The benchmark, from the command line to the page."""

import importlib
import json
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch

from .conftest import CUDA_TESTS_ON

REPO = Path(__file__).parent.parent
pytestmark = pytest.mark.skipif(
    not sys.platform.startswith('linux'), reason='reads memory from /proc'
)

# Ours: on the maps of the FPN, and on the class tower, of some hash functions.
DENSE = {
    **dict.fromkeys(
        ('retinanet', 'gfl'),
        (
            'recommended: FPN, CWD',
            'class tower, LSHL2, K = 1152',
            'class tower, LSHL2, K = 4096',
        ),
    ),
    'rtmdet': (
        'FPN, CWD',
        'recommended: class tower, LSHL2, K = 768',
    ),
}


def run(tmp_path, *arguments):
    page, figures = tmp_path / 'page.md', tmp_path / 'figures.json'
    process = subprocess.run(
        [
            sys.executable,
            REPO / 'benchmarks/step',
            *('--rounds', '1', '--size', '64', '64'),
            *('--class-images', '2', '--class-size', '64', '64'),
            *('--loss-shape', '300', '16', '64'),
            *('--json', figures, '--out', page),
            *arguments,
        ],
        env={
            **os.environ,
            'PYTHONPATH': os.pathsep.join([str(REPO), *sys.path]),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr[-2000:]
    return json.loads(figures.read_text('utf-8')), page.read_text('utf-8')


@pytest.mark.slow
def test_the_loss_alone(tmp_path):
    figures, page = run(tmp_path, '--models')
    assert figures['loss']['shape'] == [300, 16, 64]
    assert [*figures['loss']['forms']] == ['plain', 'ours, float32']
    ours = figures['loss']['forms']['ours, float32']
    assert ours['value'] < 1e-6 and ours['gradient'] < 1e-6
    assert figures['machine']['versions']['torch'] in page
    assert 'N = 300, D = 16, K = 64' in page
    assert figures['command'] in page
    assert f'{1000 * figures["loading"]:.1f} ms' in page


@pytest.mark.cuda
@pytest.mark.parametrize('more', [[], ['--amp']], ids=['float32', 'amp'])
def test_a_table_of_a_gpu(tmp_path, more):
    if more and CUDA_TESTS_ON == 'cpu':
        pytest.skip('AmpOptimWrapper needs a GPU')
    figures, page = run(
        tmp_path,
        *('--device', CUDA_TESTS_ON, '--size', '128', '160'),
        *('--models', 'retinanet', 'resnet', *more),
    )
    forms = figures['loss']['forms']
    assert forms['ours, float32']['value'] < 1e-5
    if CUDA_TESTS_ON == 'cuda':
        assert 1e-6 < forms['ours, bfloat16']['gradient'] < 0.02
    for model in ('retinanet', 'resnet'):
        for name, arm in figures['models'][model].items():
            assert arm['seconds']['step'] > 0 and arm['peak'] > 0
            assert name in page
    if CUDA_TESTS_ON == 'cuda':
        assert torch.cuda.get_device_name() in page


@pytest.mark.slow
def test_all_arms(tmp_path):
    """The sizes are those of the networks, whatever the images."""
    # Large enough for 512 proposals an image.
    figures, page = run(tmp_path, '--size', '128', '160')
    arms = figures['models']['faster_rcnn']
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
    for model, names in DENSE.items():
        arms = figures['models'][model]
        maps, *towers = (arms[name] for name in names)
        for tower in towers:  # its head runs
            assert tower['seconds']['head'] > maps['seconds']['head']
            assert tower['floor'] > 0
        assert {*maps['theirs']} == {
            'FpnTeacherDistill, CWD',
            'FpnTeacherDistill, PKD',
        }
        theirs = arms['MMRazor FpnTeacherDistill, CWD']
        assert maps['checkpoint'] < theirs['checkpoint']
    arms = figures['models']['resnet']
    ours = arms['pooled, LSHL2, K = 2048']
    step = arms['MMRazor SingleTeacherDistill, KL']['seconds']['step']
    ratio = ours['seconds']['step'] / step  # of one round
    assert ours['theirs']['SingleTeacherDistill, KL'] == pytest.approx(ratio)
    # Columns that have something in them.
    sections = page.split('\n## ')
    assert ['RoIs of student' in x for x in sections[1:]] == [True] + 5 * [
        False
    ]


@pytest.fixture
def clock(monkeypatch):
    for folder in ('benchmarks', 'benchmarks/step'):
        monkeypatch.syspath_prepend(REPO / folder)
    return importlib.import_module('clock')


def test_time_and_memory_of_a_cpu(clock):
    meter, size = clock.Meter('cpu'), 2**27
    assert 0.1 <= meter.seconds(lambda: time.sleep(0.1)) < 1
    allocate = partial(torch.ones, size, dtype=torch.uint8)
    assert meter.peak(allocate) == pytest.approx(size, rel=0.02)
    assert meter.peak(lambda: None) < 0.1 * size  # of this call alone


@pytest.mark.cuda
def test_time_and_memory_of_a_gpu(clock):
    """Python goes on before a kernel ends; the clock does not."""
    if CUDA_TESTS_ON == 'cpu':
        pytest.skip('needs the events of a GPU')
    meter, size, cycles = clock.Meter('cuda'), 2**27, 10**9
    meter.seconds(lambda: torch.cuda._sleep(1))
    assert 0.2 < meter.seconds(lambda: torch.cuda._sleep(cycles)) < 5
    torch.cuda._sleep(cycles)
    assert meter.seconds(lambda: None) < 0.1  # what came before is over
    allocate = partial(torch.empty, size, dtype=torch.uint8, device='cuda')
    assert meter.peak(allocate) == size


def test_the_median_of_ratios_is_that_of_rounds(clock):
    """A round that is slow for both counts like any other."""
    assert clock.ratio_to([2, 30, 4], [1, 10, 1]) == 3
