"""Each wrong input gets the one line that docs/errors.md shows."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mmdet
import pytest
from mmengine.registry import DefaultScope

from lshfm_mm.errors import ConfigError

from .bad_inputs import ROWS, Bench

PAGE = Path(__file__).parent.parent / 'docs/errors.md'
WRITE = 'WRITE_ERRORS' in os.environ  # make errors
TOP = """# What is said of a wrong input

Written by `make errors` from [tests/bad_inputs.py](../tests/bad_inputs.py);
a test holds each line. The tools print it after `error: ` and end with the
exit status 1; from Python it is a `ConfigError`. It is said before the first
step of a training, but for what only a batch shows: images that are empty
files, or that have two labels where one is needed. A type that no registry
has, and an image that cannot be decoded, keep the words of MMEngine and mmcv.
"""
said: dict[tuple[str, str], str] = {}


@pytest.fixture
def bench(make_config, shapes_root, teacher_checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Bench(tmp_path, make_config, shapes_root, teacher_checkpoint)


@pytest.fixture(scope='module')
def page() -> Iterator[dict[tuple[str, str], str]]:
    """What the page says; written anew afterwards, if asked for."""
    shown, group = {}, ''
    for line in PAGE.read_text('utf-8').splitlines() if PAGE.exists() else []:
        if line.startswith('## '):
            group = line[3:]
        elif found := re.fullmatch(r'\| (.*?) \| `` (.*) `` \|', line):
            shown[group, found[1]] = found[2].replace('\\|', '|')
    yield shown
    if WRITE:
        PAGE.write_text(written(), 'utf-8')


def written() -> str:
    lines, group = [TOP], None
    for row in ROWS:
        if row.group != group:
            group = row.group
            head = f'## {group}', '', '| what is wrong | the line |'
            lines += [*([''] if len(lines) > 1 else []), *head, '|---|---|']
        text = said[row.group, row.wrong].replace('|', '\\|')
        lines.append(f'| {row.wrong} | `` {text} `` |')
    return '\n'.join(lines) + '\n'


@contextmanager
def scope_kept() -> Iterator[None]:
    """The tools set the default scope."""
    before = DefaultScope.get_current_instance()
    yield
    if before is not None:
        DefaultScope.get_instance(
            f'{before.scope_name}-{len(said)}',
            scope_name=before.scope_name,
        )


def line_of(row, bench) -> str:
    """What is said, without the names of temporary folders."""
    with pytest.raises((ConfigError, SystemExit)) as error, scope_kept():
        row.do(bench)
    text = str(error.value)
    if isinstance(error.value, SystemExit):
        assert text.startswith('error: '), text
        text = text.removeprefix('error: ')
    if os.name == 'nt':
        text = re.sub(r'\\+', '/', text)
    for path, name in (
        (f'{bench.folder.as_posix()}/', ''),
        (bench.shapes.as_posix(), 'data/shapes'),
        (f'{bench.teacher.parent.as_posix()}/', ''),
        (Path(mmdet.__file__).parent.parent.as_posix(), 'site-packages'),
    ):
        text = text.replace(path, name)
    # torch's own words, of this release or that.
    return re.sub(r'(readable checkpoint) \(.*\);', r'\1 (...);', text)


@pytest.mark.parametrize(
    'row',
    [
        pytest.param(
            row,
            id=f'{row.group}: {row.wrong}',
            marks=[pytest.mark.slow] if row.slow and not WRITE else [],
        )
        for row in ROWS
    ],
)
def test_the_line_is_that_of_the_page(row, bench, page):
    line = said[row.group, row.wrong] = line_of(row, bench)
    assert '\n' not in line
    assert re.match(r'[\w.\[\]]+: ', line), line
    assert WRITE or line == page[row.group, row.wrong]


def test_the_page_has_these_rows_and_no_others(page):
    expected = [(x.group, x.wrong) for x in ROWS]
    assert len(expected) == len(set(expected)) >= 60
    if not WRITE:
        assert list(page) == expected
        assert PAGE.read_text('utf-8').startswith(TOP)
