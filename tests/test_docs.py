"""Links lead somewhere, configs build, and every command is run."""

import importlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import mmdet
import pytest
import torch
import yaml
from mmengine.config import Config
from mmrazor.registry import MODELS

from lshfm_mm.pairing import write_config
from lshfm_mm.utils.configs import model_config

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
    links = re.findall(r'\]\(([^)#\s]+)', path.read_text('utf-8'))
    for link in links:
        if '://' not in link:
            assert (path.parent / link).exists(), link
    assert len(PAGES) >= 6


@pytest.mark.parametrize(
    'folder', ['cifar100', 'coco14', 'distill', 'imagenet', 'voc', 'voc07']
)
def test_the_metafile_lists_each_config_and_claims_no_result(folder):
    path = REPO / f'configs/{folder}/metafile.yml'
    models = yaml.safe_load(path.read_text('utf-8'))['Models']
    listed = {x['Config'] for x in models}
    found = {
        x.relative_to(REPO).as_posix()
        for x in (REPO / f'configs/{folder}').glob('*.py')
    }
    assert listed == found
    assert not any('Results' in x for x in models)


def test_the_student_of_the_readme_can_be_built(tmp_path):
    """The own-data config on the page, and what make_config makes of it."""
    page = (REPO / 'README.md').read_text('utf-8')
    [code] = [
        x
        for x in re.findall(r'```python\n(.*?)```', page, re.S)
        if 'data/mine/' in x
    ]
    student = tmp_path / 'student.py'
    student.write_text(code, 'utf-8')
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
    page = (REPO / 'docs/classification.md').read_text('utf-8')
    blocks = re.findall(r'```python\n(.*?)```', page, re.S)
    [code] = [x for x in blocks if x.startswith("_base_ = 'student.py'")]
    [embedding] = [x for x in blocks if x.startswith('student = _base_.mod')]
    monkeypatch.chdir(tmp_path)
    base = (REPO / 'configs/imagenet/resnet18_in1k.py').resolve()
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
        Path('mine.py').write_text(text, 'utf-8')
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


# A command of the pages -> the target of make, or the test, that runs it.
RUN_BY = {
    r'python \S*tools/\w+\.py (teacher|student|distil|work_dirs/distil)\b.*': (
        'test_docs.test_the_way_from_nothing_is_run'
    ),
    r'make [a-z]+( [A-Z]+=\S+)*': 'make',
    r'source \.venv/bin/activate': 'make env',
    r'pip install -c requirements\.lock .*': 'make env',
    r'python -m lshfm_mm (doctor|install_mmcv)': 'make env',
    r'(python tools/make_config\.py|python -m lshfm_mm make_config) .*': (
        'test_docs.test_a_pair_of_the_pages_is_written'
    ),
    r'echo .*|python -m lshfm_mm .*': 'test_docs.test_the_steps_are_run',
    r'python (tools/make_shapes|\S*mmdet/\.mim/tools/test)\.py .*': (
        'test_docs.test_the_steps_are_run'
    ),
    r'python tools/(train|test|export_student)\.py \S*shapes/.*': (
        'test_docs.test_the_steps_are_run'
    ),
    r'python tools/train\.py configs/\S+\.py( --(work-dir|cfg-options) .*)?': (
        'test_configs.test_config_builds'
    ),
    r'python tools/analyze\.py .*': 'test_report.test_the_tool_writes_all',
    r'python tools/train\.py \S+ --check(-teacher)?': (
        'test_tools.test_check_audits_and_trains_nothing'
    ),
    r'(\w+=\d+ )?tools/(dist|slurm)_(train|test)\.sh .*': (
        'test_launchers.test_scripts_start_what_those_of_mmdet_start'
    ),
    r'python benchmarks/study .*': (
        'test_study.test_stopped_it_goes_on_where_it_was'
    ),
    r'python -m pytest -m slow -s tests/test_kills\.py': 'make slow',
    r'python tools/(test|export_student)\.py .*': (
        'test_tools.test_the_student_scores_the_same_in_unmodified_mmdet'
    ),
}


def commands(page: str) -> list[str]:
    """The commands in the blocks of a page, without their comments."""
    text = (REPO / page).read_text('utf-8')
    blocks = re.findall(r'^```bash\n(.*?)^```', text, re.S | re.M)
    lines = ''.join(blocks).replace('\\\n', ' ').splitlines()
    found = [x.split('  #')[0].split(' # ')[0].strip() for x in lines]
    return [x for x in found if x and not x.startswith('#')]


@pytest.mark.parametrize('page', PAGES)
def test_each_command_is_run(page):
    makefile = (REPO / 'Makefile').read_text('utf-8')
    for command in commands(page):
        by = [x for k, x in RUN_BY.items() if re.fullmatch(k, command)]
        assert by, f'{page}: nothing runs: {command}'
        if by[0] == 'make':
            target = command.split()[1]
            assert re.search(rf'^{target}:.*## ', makefile, re.M), command
        elif not by[0].startswith('make'):
            module, name = by[0].split('.')
            assert hasattr(importlib.import_module(f'tests.{module}'), name)
        for path in re.findall(r'configs/\S+\.py', command):
            assert (REPO / path).is_file() or path == 'configs/mine.py'


def test_each_component_is_in_the_reference():
    page = (REPO / 'docs/reference.md').read_text('utf-8')
    listed = (REPO / 'tests/api.txt').read_text('utf-8')
    registered = re.findall(r'^\w+ \w+: (\w+)', listed, re.M)
    assert len(registered) > 15
    assert [x for x in registered if not re.search(rf'\b{x}\b', page)] == []


def test_the_ten_lines_are_those_of_the_example():
    page = (REPO / 'docs/your_detector.md').read_text('utf-8')
    example = (REPO / 'configs/examples/your_detector.py').read_text('utf-8')
    code, *_ = re.findall(r'```python\n(.*?)```', page, re.S)
    assert code in example


PAIRS = [
    (page, command)
    for page in PAGES
    for command in commands(page)
    if 'make_config' in command and 'teacher.py' not in command
]


@pytest.mark.slow
@pytest.mark.parametrize(
    'command', sorted({x.replace('tools/', '') for _, x in PAIRS})
)
def test_a_pair_of_the_pages_is_written(command, tmp_path):
    shell(
        command.replace('make_config', f'{REPO}/tools/make_config'), tmp_path
    )
    [path] = tmp_path.glob('configs/*.py')
    assert 'distiller' in Config.fromfile(path).model


def shell(command: str, folder: Path) -> str:
    """Run a command as a user does, from a folder."""
    python = f'{shlex.quote(sys.executable)} -W ignore'
    answer = subprocess.run(
        ['bash', '-ec', re.sub(r'^python\b', lambda _: python, command)],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, 'PYTHONPATH': str(REPO), 'OMP_NUM_THREADS': '1'},
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return answer.stdout


def walk(steps: list[str], folder: Path) -> None:
    """Run the commands of a page, on less data and for one epoch."""
    mim = Path(mmdet.__file__).parent / '.mim'
    for step in steps:
        step = re.sub(r'epoch_\d+', 'epoch_1', step)
        step = step.replace('--num-train 640', '--num-train 16 --num-val 4')
        step = re.sub(r'\S*mmdet/\.mim', str(mim), step)
        if re.search(r'(tools/train\.py|lshfm_mm train) ', step):
            step += ' --cfg-options train_cfg.max_epochs=1'
        shell(step, folder)


@pytest.mark.slow
@pytest.mark.parametrize('page', ['README.md', 'docs/start.md'])
def test_the_steps_are_run(page, tmp_path):
    """As they stand on the page, on less data and for one epoch."""
    steps = [
        x
        for x in commands(page)
        if re.search(r'shapes|lshfm_mm (train|test|export)|distil', x)
        and not x.startswith(('make', 'pip', 'python tools/analyze'))
    ]
    assert len(steps) >= 7
    for name in ('tools', 'configs'):
        (tmp_path / name).symlink_to(REPO / name)
    walk(steps, tmp_path)
    out = re.findall(r'-o (\S+)', '\n'.join(steps))[-1]
    student = torch.load(tmp_path / out, weights_only=True)
    assert set(student) == {'meta', 'state_dict'}


@pytest.mark.slow
def test_the_way_from_nothing_is_run(tmp_path, make_config):
    """A GFL, the narrow FCOS of the page that mimics it, mmdet's own test.

    One image to a batch of the evaluation, with maps of 1 x 1.
    """
    page = 'docs/your_detector.md'
    steps = commands(page)[-7:]
    assert 'teacher.py' in steps[0] and 'student.pth' in steps[-1]
    text = (REPO / page).read_text('utf-8')
    student = re.findall(r'```python\n(.*?)```', text, re.S)[-1]
    teacher = re.sub(
        r'mmdet::.*py', 'mmdet::gfl/gfl_r50_fpn_1x_coco.py', student
    )
    data = make_config('faster_rcnn_student')
    data.val_dataloader.batch_size = data.test_dataloader.batch_size = 1
    for name, code in (
        ('student', student),
        ('teacher', teacher.replace('channels=32', 'channels=64')),
    ):
        path = tmp_path / f'{name}.py'
        path.write_text(code, 'utf-8')
        cfg = Config.fromfile(path)
        for key in data:
            if re.fullmatch('(train|val|test)_(dataloader|evaluator)', key):
                cfg[key] = data[key]
        cfg.model.bbox_head.num_classes = 6
        cfg.model.test_cfg.score_thr = 0  # so that it finds something
        cfg.dump(path)
    (tmp_path / 'tools').symlink_to(REPO / 'tools')
    walk(steps, tmp_path)
    assert Config.fromfile(tmp_path / 'distil.py').model.distiller.connectors
    (scores,) = tmp_path.glob('work_dirs/student/*/*.json')
    assert 'coco/bbox_mAP' in scores.read_text('utf-8')


@pytest.mark.slow
def test_the_site_builds_and_a_dead_link_is_an_error(tmp_path):
    copy, out = tmp_path / 'copy', tmp_path / 'site'
    for path in TRACKED:
        (copy / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPO / path, copy / path, follow_symlinks=False)
    target = (REPO / 'Makefile').read_text('utf-8').partition('\ndocs: ')[2]
    command = target.split('python ')[1].partition('\n\t@')[0]
    command = f'python {command}'.replace('build/site', str(out))
    assert '-W' in command.split()
    shell(command, copy)
    assert 'LSHLoss' in (out / 'docs/reference.html').read_text('utf-8')
    with (copy / 'docs/how.md').open('a', encoding='utf-8') as file:
        file.write('[x](recipes.md#nowhere)')
    with pytest.raises(AssertionError, match='nowhere'):
        shell(command, copy)
