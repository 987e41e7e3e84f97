"""Links between the pages of the repository lead somewhere."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

REPO = Path(__file__).parent.parent
TRACKED = subprocess.run(
    ['git', 'ls-files', '--cached', '--others', '--exclude-standard'],
    cwd=REPO,
    capture_output=True,
    text=True,
    check=True,
).stdout.split()
PAGES = [x for x in TRACKED if x.endswith('.md')]


@pytest.mark.parametrize('page', PAGES)
def test_links_lead_somewhere(page):
    path = REPO / page
    links = re.findall(r'\]\(([^)#\s]+)', path.read_text())
    for link in links:
        if '://' not in link:
            assert (path.parent / link).exists(), link
    assert len(PAGES) >= 6


@pytest.mark.parametrize('folder', ['distill', 'voc'])
def test_the_metafile_lists_each_config_and_claims_no_result(folder):
    path = REPO / f'configs/{folder}/metafile.yml'
    models = yaml.safe_load(path.read_text())['Models']
    listed = {x['Config'] for x in models}
    found = {
        str(x.relative_to(REPO))
        for x in (REPO / f'configs/{folder}').glob('*.py')
    }
    assert listed == found
    assert not any('Results' in x for x in models)
