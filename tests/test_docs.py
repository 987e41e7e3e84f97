"""Links between the pages of the repository lead somewhere."""

import re
import subprocess
from pathlib import Path

import pytest
import torch
import yaml
from mmengine.config import Config
from mmrazor.registry import MODELS

from lshfm_mm.pairing import write_config
from lshfm_mm.teacher import model_config

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


@pytest.mark.parametrize(
    'folder', ['cifar100', 'coco14', 'distill', 'imagenet', 'voc', 'voc07']
)
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


def test_the_student_of_the_readme_can_be_built(tmp_path):
    """The own-data config on the page, and what make_config makes of it."""
    page = (REPO / 'README.md').read_text()
    [code] = [
        x
        for x in re.findall(r'```python\n(.*?)```', page, re.S)
        if 'data/mine/' in x
    ]
    student = tmp_path / 'student.py'
    student.write_text(code)
    out = tmp_path / 'mine.py'
    write_config(
        'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py',
        str(student),
        str(out),
    )
    cfg = Config.fromfile(out)
    assert cfg.model.architecture.bbox_head.num_classes == 3
    assert cfg.model.inherit
    assert cfg.train_dataloader.dataset.metainfo.classes == (
        'cat',
        'dog',
        'bird',
    )
    assert cfg.test_evaluator.ann_file == 'data/mine/val.json'


def test_the_config_on_the_page_of_classifiers_can_be_built(
    tmp_path, monkeypatch
):
    """Student and teacher of one width; then the embedding of the page."""
    page = (REPO / 'docs/classification.md').read_text()
    blocks = re.findall(r'```python\n(.*?)```', page, re.S)
    [code] = [x for x in blocks if x.startswith("_base_ = 'student.py'")]
    [embedding] = [x for x in blocks if x.startswith('student = _base_.mod')]
    monkeypatch.chdir(tmp_path)
    base = (REPO / 'configs/imagenet/r18.py').resolve()
    for name in ('student', 'teacher'):
        Path(f'{name}.py').write_text(f'_base_ = {str(base)!r}\n')
    teacher = MODELS.build(
        model_config('teacher', Config.fromfile('teacher.py').model)
    )
    torch.save({'state_dict': teacher.state_dict()}, 'teacher.pth')
    for text, width in (
        (code, None),
        (
            code.replace(
                'model = dict(',
                embedding.replace('2048', '512') + 'model = dict(',
            ).replace('=_base_.model', '=student'),
            512,
        ),
    ):
        Path('mine.py').write_text(text)
        cfg = Config.fromfile('mine.py')
        model = MODELS.build(
            dict(cfg.model, data_preprocessor=cfg.data_preprocessor)
        )
        assert set(model.distiller.distill_losses) == {
            'loss_pooled_lsh',
            'loss_pooled_featurel2',
        }
        neck = model.student.neck
        assert getattr(neck, 'out_channels', None) == width
