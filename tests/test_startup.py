"""The benchmark of the start-up, on a small file."""

import pytest

from .processes import REPO, run_python


@pytest.mark.slow
def test_the_parts_of_a_start_add_up(tmp_path):
    page = tmp_path / 'startup.md'
    run_python(
        *(REPO / 'benchmarks/startup.py', '--images', 40, '--rounds', 1),
        *('--out', page),
    )
    text = page.read_text('utf-8')
    assert '## 40 images, 292 boxes, 0 MB' in text
    rows = [x.strip('| ').split(' | ') for x in text.splitlines() if '|' in x]
    _, _, *rows = rows
    *parts, total = [(name, float(a), float(b)) for name, a, b in rows]
    for side in (1, 2):
        assert sum(x[side] for x in parts) == pytest.approx(total[side], abs=1)
    ours = {name: seconds for name, _, seconds in parts}
    assert all(ours[x] > 0 for x in ('imports', 'building', 'loading'))
