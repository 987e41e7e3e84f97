"""Write down which tests of a GPU passed, and on which card.

Runs the tests marked ``cuda`` and writes a page in Markdown from what pytest
reports, also on a machine without a GPU, where all of them are skipped::

    python benchmarks/gpu_report.py --out docs/gpu.md
"""

import argparse
import platform
import subprocess
import sys
import tempfile
from collections import Counter
from datetime import date
from pathlib import Path
from xml.etree import ElementTree

import torch
import torchvision
from machine import commit

import lshfm_mm
from lshfm_mm.compat.operators import are_compiled
from lshfm_mm.utils.files import atomic_write

REPO = Path(__file__).resolve().parent.parent


def outcomes(report: str) -> list[tuple[str, str, str]]:
    """Name, outcome and reason of each test of a JUnit report of pytest."""
    found = []
    for case in ElementTree.fromstring(report).iter('testcase'):
        module = case.get('classname', '').rpartition('.')[2]
        outcome, reason = 'passed', ''
        for child in case:
            if child.tag in ('failure', 'error', 'skipped'):
                outcome = dict(skipped='skipped').get(child.tag, 'failed')
                lines = (child.get('message') or '').strip().splitlines()
                reason = lines[0][:200] if lines else ''
        found.append((f'{module}: {case.get("name")}', outcome, reason))
    return found


def driver() -> str:
    """Version of the driver, as nvidia-smi tells it."""
    query = ['--query-gpu=driver_version', '--format=csv,noheader']
    try:
        found = subprocess.run(
            ['nvidia-smi', *query], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return 'unknown'
    return found.stdout.splitlines()[0]


def machine() -> dict[str, str]:
    """What the tests ran on."""
    count = torch.cuda.device_count()
    cards = Counter(torch.cuda.get_device_name(x) for x in range(count))
    return {
        'GPU': ', '.join(f'{n} x {x}' for x, n in cards.items()) or 'none',
        'driver': driver() if count else 'none',
        'CUDA of torch': str(torch.version.cuda),
        'torch': torch.__version__,
        'torchvision': torchvision.__version__,
        "mmcv's operators": 'compiled' if are_compiled() else 'torchvision',
        'lshfm_mm': f'{lshfm_mm.__version__}, {commit(REPO)}',
        'Python': f'{platform.python_version()}, {platform.system()}',
        'date': date.today().isoformat(),
    }


def page(facts: dict[str, str], tests: list[tuple[str, str, str]]) -> str:
    """The page in Markdown."""
    counts = Counter(outcome for _, outcome, _ in tests)
    summary = ', '.join(
        f'{counts[x]} {x}' for x in ('passed', 'failed', 'skipped')
    )
    if facts['GPU'] == 'none':
        summary += (
            '. **Nobody has run them on a GPU yet**: this was written on a '
            'machine without one'
        )
    lines = [
        '# On a GPU',
        '',
        '`make gpu` runs the tests marked `cuda` and writes this page. They '
        'train both kinds of detectors under AMP, resume a training, and '
        'compare losses, calibration and operators with those of the CPU. '
        'The tests of each day ([tests/test_fake_cuda.py]'
        '(../tests/test_fake_cuda.py)) need no GPU: torch computes shapes, '
        'dtypes and devices on one that is not there.',
        '',
        f'{len(tests)} tests: {summary}.',
        '',
        '| | |',
        '|---|---|',
        *(f'| {key} | {value} |' for key, value in facts.items()),
        '',
        '| test | outcome | reason |',
        '|---|---|---|',
        *(
            f'| `{name}` | {outcome} | {reason.replace("|", chr(92) + "|")} |'
            for name, outcome, reason in tests
        ),
    ]
    return '\n'.join(lines) + '\n'


def main() -> None:
    """Run the tests, write the page; exits with what pytest returns."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--out', required=True, help='Markdown page to write')
    out = Path(parser.parse_args().out)
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / 'report.xml'
        run = subprocess.run(
            [sys.executable, '-m', 'pytest', '-m', 'cuda']
            + [f'--junitxml={report}'],
            cwd=REPO,
            check=False,
        )
        if not report.is_file():
            sys.exit(run.returncode)
        tests = outcomes(report.read_text('utf-8'))
    with atomic_write(out) as partial:
        partial.write_text(page(machine(), tests), 'utf-8')
    sys.exit(run.returncode)


if __name__ == '__main__':
    main()
