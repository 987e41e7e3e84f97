"""The page of make gpu, from what pytest really reports."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).parent.parent
TESTS = """
import pytest

def test_good():
    pass

def test_bad():
    assert 1 == 2, 'one | two'

@pytest.mark.skip(reason='there is no GPU')
def test_left_out():
    pass

@pytest.fixture
def broken():
    raise ValueError('broken fixture')

def test_of_it(broken):
    pass
"""


@pytest.fixture(scope='module')
def tool():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(REPO / 'benchmarks')
        return importlib.import_module('gpu_report')


def test_outcomes_of_real_tests(tool, tmp_path):
    (tmp_path / 'test_some.py').write_text(TESTS)
    report = tmp_path / 'report.xml'
    subprocess.run(
        [sys.executable, '-m', 'pytest', '-q', f'--junitxml={report}'],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        check=False,
    )
    found = tool.outcomes(report.read_text())
    assert [x[:2] for x in found] == [
        ('test_some: test_good', 'passed'),
        ('test_some: test_bad', 'failed'),
        ('test_some: test_left_out', 'skipped'),
        ('test_some: test_of_it', 'failed'),
    ]
    assert found[1][2].startswith('AssertionError: one | two')
    assert found[2][2] == 'there is no GPU'
    assert 'broken fixture' in found[3][2]
    page = tool.page({'GPU': '1 x Card', 'torch': '2.14'}, found)
    assert '4 tests: 1 passed, 2 failed, 1 skipped.' in page
    assert '| GPU | 1 x Card |' in page
    assert (
        '| `test_some: test_bad` | failed | AssertionError: one \\| two'
        in (page)
    )
    nobody = tool.page({'GPU': 'none'}, found[2:3])
    assert 'Nobody has run them on a GPU yet' in nobody
    assert 'Nobody' not in page


def test_the_machine_is_named(tool):
    facts = tool.machine()
    assert facts['GPU'] == 'none'  # the tests see none
    assert facts['torch'] and facts['date']
