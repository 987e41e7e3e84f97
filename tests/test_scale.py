"""The page of how things grow: every row, and what follows from counting."""

import re

import pytest

from .processes import REPO, run_python


@pytest.mark.slow
def test_what_is_counted_grows_as_it_must(tmp_path):
    """Time is not judged; bytes and errors are."""
    page = tmp_path / 'scale.md'
    run_python(REPO / 'benchmarks/scale.py', '--out', page)
    rows = {
        cells[1]: cells
        for line in page.read_text('utf-8').splitlines()
        if (cells := [x.strip() for x in line.split('|')])[3:]
    }
    powers = {
        x: float(row[4]) for x, row in rows.items() if row[4][-1:].isdigit()
    }
    assert len(powers) == 7
    in_file = rows['LSH loss in a checkpoint, hash functions'][3]
    small, _, large = (float(x) for x in re.findall(r'[\d.]+', in_file))
    assert large - small == pytest.approx(8 * (4096 - 256) / 1e3, rel=0.05)
    assert abs(powers['median of a hash function, samples']) < 0.15
    errors = rows['error of its rank, samples'][3]
    assert max(float(x) for x in re.findall(r'[\d.]+', errors)) < 0.45
