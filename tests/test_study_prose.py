"""What pages say of the study stands in its tables and its grid.

Of shares of a gap and intervals only that each is one of some table; not of
which, nor which of the two that an interval compares is ahead.
"""

import re
import shlex

import pytest

from .test_docs import PAGES
from .test_study import REPO, plan, report, results, runs, tables

NUMBER = r'[+-]?\d+\.\d'


@pytest.fixture(scope='module')
def measured():
    """Mean, low and high of each interval, also the other way round."""
    records = plan.current(runs.read_records())

    def held(ours, other, seeds=()):
        values = results.by_seed(records, ours)
        found = {x: values[x] for x in seeds or values}
        against = results.by_seed(records, other)
        return tables.said(results.difference(found, against))

    told = [
        *report.parts(records).values(),
        # What the text holds against each other, and no table.
        held('ablation_std/x0.1', 'faster_rcnn/alone+inherit'),
        held('animals/lsh+inherit', 'animals/alone', range(5)),
        held('animals/lsh+inherit', 'animals/alone+inherit', range(5)),
    ]
    pattern = rf'({NUMBER}) (?:degrees )?\[({NUMBER}), ({NUMBER})\]'
    found = {
        tuple(map(float, x))
        for text in told
        for x in re.findall(pattern, text)
    }
    assert len(found) > 200
    return found | {(-mean, -high, -low) for mean, low, high in found}


def words_of(page):
    """A page without what the report writes."""
    return re.sub(r'<!-- study: .+? -->.*?<!-- end -->', '', page, flags=re.S)


def intervals(page):
    """Mean, low and high of each interval in the words of a page.

    An interval holds its mean, also where words turn the sign of both, as in
    'is 0.4 lower [-0.1, 1.0]'.
    """
    text = words_of(page)
    # A first study, whose records are in an old commit.
    text = re.sub(r'e381e68.*?\n- ', '', text, flags=re.S)
    pattern = rf'\s\[({NUMBER}),\s+({NUMBER})\]'
    for found in re.finditer(pattern, text):
        before = text[max(0, found.start() - 60) : found.start()]
        *_, mean = re.findall(NUMBER, before)
        yield float(mean), float(found[1]), float(found[2])


def test_each_interval_on_a_page_is_one_of_a_table(measured):
    number = 0
    for page in PAGES:
        text = (REPO / page).read_text('utf-8')
        for mean, low, high in intervals(text):
            number += 1
            assert (mean, low, high) in measured, (page, mean, low, high)
    assert number > 80


def test_each_share_of_a_gap_on_a_page_is_one_of_a_table():
    told = report.parts(plan.current(runs.read_records())).values()
    known = {x for text in told for x in re.findall(r'(-?\d+) %', text)}
    pattern = (
        r'\bcloses(?:\s+by\s+itself)?\s+(\d+)\s%'
        r'|(\d+)\s%\s+of\s+(?:the|a|that)\b'
    )
    number = 0
    for page in PAGES:
        if page == 'docs/foundation.md':  # has runs of its own
            continue
        words = words_of((REPO / page).read_text('utf-8'))
        for found in re.finditer(pattern, words):
            number += 1
            assert (found[1] or found[2]) in known, (page, found[0])
    assert number > 20


def test_each_pattern_on_a_page_fits_an_arm():
    patterns = [
        pattern
        for page in PAGES
        for said in re.findall(
            r'benchmarks/study (--only [^`\n#]+)',
            (REPO / page).read_text('utf-8'),
        )
        for pattern in shlex.split(said.partition(' --seeds')[0])[1:]
    ]
    assert len(patterns) >= 5
    for pattern in patterns:
        assert list(plan.chosen([pattern])), pattern
