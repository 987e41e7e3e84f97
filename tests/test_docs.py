"""Links lead somewhere, configs build, and every command is run."""

import importlib
import json
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
from mmdet.registry import MODELS as DETECTION
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, METRICS, DefaultScope
from mmrazor.registry import MODELS

from lshfm_mm.datasets.photographs import get_photographs
from lshfm_mm.pairing import write_config
from lshfm_mm.utils.configs import model_config

from .test_photographs import server  # noqa: F401

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
    [code] = [x for x in blocks if x.startswith("_base_ = 'student.py'  #")]
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


CATS = ('cat', 'dog', 'bird')


def write_own_images(shapes_root):
    """Images and annotations in data/mine, as the pages have them."""
    content = json.loads((shapes_root / 'annotations/val.json').read_text())
    names = (*CATS, *'abc')
    for old, new in zip(content['categories'], names, strict=True):
        old['name'] = new
    for split in ('train', 'val'):
        shutil.copytree(shapes_root / 'val', f'data/mine/{split}')
        Path(f'data/mine/{split}.json').write_text(json.dumps(content))


@pytest.mark.parametrize(
    ('page', 'base'),
    [
        ('classification', 'mmpretrain::'),
        ('small_data', 'faster_rcnn/'),
        ('small_data', 'retinanet/'),
        ('small_data', 'rtmdet/'),
    ],
)
def test_own_images_on_the_pages(
    page, base, tmp_path, monkeypatch, shapes_root
):
    """Both configs read their data, and make_config pairs and inherits."""
    text = (REPO / f'docs/{page}.md').read_text('utf-8')
    blocks = re.findall(r'```python\n(.*?)```', text, re.S)
    whole = base.replace('retinanet', 'faster_rcnn')
    students = [whole in x and 'data/mine' in x for x in blocks]
    assert students.count(True) == 1
    student, *rest = blocks[students.index(True) :]
    if whole != base:  # the page has its model alone
        (model,) = (x for x in blocks if x.startswith(f'# mmdet::{base}'))
        path = model.split('\n')[0][2:]
        student = re.sub("mmdet::[^']*", path, student, count=1)
        before, after = re.split(
            r'model = dict\(.*?\n\)\n', student, flags=re.S
        )
        student = before + model + after
    teacher = next(x for x in rest if x[10:20] == 'student.py')
    monkeypatch.chdir(tmp_path)
    for name, code in (('student', student), ('teacher', teacher)):
        Path(f'{name}.py').write_text(code, 'utf-8')
    write_own_images(shapes_root)
    image = next(Path('data/mine/val').iterdir())
    for name in CATS:
        for split in ('train', 'val'):
            folder = Path('data/mine', split, name)
            folder.mkdir(parents=True)
            shutil.copy(image, folder)
    Path('t.pth').touch()
    write_config('teacher.py', 'student.py', 'distil.py', 't.pth')
    cfg = Config.fromfile('distil.py')
    # The heads of RTMDet's sizes are of other widths.
    assert cfg.model.inherit == (base != 'rtmdet/')
    if base == 'retinanet/':
        assert cfg.model.architecture.bbox_head.num_classes == 3
        assert [*cfg.model.distiller.losses] == ['fpn']
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        for split in ('train', 'val'):
            loader = cfg[f'{split}_dataloader']
            dataset = DATASETS.build(loader.dataset)
            item = dataset[0]
            assert len(dataset.metainfo['classes']) == 3
            assert max(item['inputs'].shape) in (224, 320)
            METRICS.build(cfg[f'{split}_evaluator'.replace('train', 'val')])


@pytest.mark.parametrize('family', ['convnext', 'dino'])
def test_a_small_model_of_the_page_learns_from_own_images(
    family, tmp_path, monkeypatch, shapes_root
):
    text = (REPO / 'docs/small_data.md').read_text('utf-8')
    blocks = re.findall(r'```python\n(.*?)```', text, re.S)
    (data,) = (x for x in blocks if 'todo' in x)
    (model,) = (x for x in blocks if x.startswith(f'# mmdet::{family}/'))
    base = model.split('\n')[0][2:]
    monkeypatch.chdir(tmp_path)
    data = re.sub("mmdet::[^']*", base, data, count=1)
    Path('own.py').write_text(data + model, 'utf-8')
    cfg = Config.fromfile('own.py')
    write_own_images(shapes_root)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        dataset = DATASETS.build(cfg.train_dataloader.dataset)
        batch = pseudo_collate([dataset[i] for i in (0, 1)])
        tested = DATASETS.build(cfg.val_dataloader.dataset)[0]
        for image in (*batch['inputs'], tested['inputs']):
            assert max(image.shape) <= 1333 // 4
        torch.manual_seed(0)
        detector = MODELS.build(cfg.model)
        detector.init_weights()  # DINO's level_embed is as memory was
        batch = detector.data_preprocessor(batch, training=True)
        losses = detector(**batch, mode='loss')
    assert detector.parse_losses(losses)[0].isfinite()
    assert METRICS.build(cfg.val_evaluator).metrics == ['bbox']


def commands(page: str) -> list[str]:
    """The commands in the blocks of a page, without their comments."""
    text = (REPO / page).read_text('utf-8')
    blocks = re.findall(r'^```bash\n(.*?)^```', text, re.S | re.M)
    lines = ''.join(blocks).replace('\\\n', ' ').splitlines()
    found = [x.split('  #')[0].split(' # ')[0].strip() for x in lines]
    return [x for x in found if x and not x.startswith('#')]


# Page -> which of its commands are run as they stand, one after the other.
WALKS = {
    'docs/start.md': r'echo |python -m lshfm_mm (make_shapes|train|test|exp)',
    'docs/your_detector.md': r'python .*\b(teacher|student|distil)\.p',
    'docs/small_data.md': r'python -c ',
    'docs/troubleshooting.md': r'python .*\b(random|dry)\.p',
}


def steps(page: str) -> list[str]:
    """The commands of a page that a test runs, in order."""
    found = [x for x in commands(page) if re.match(WALKS[page], x)]
    return [x for x in found if '::' not in x or x.startswith('echo')]


PAIRS = sorted(
    {x for page in PAGES for x in commands(page) if 'make_config.py mm' in x}
)
# By test_the_steps_of_a_page_are_run, ..._the_way_from_nothing_... and
# ..._a_pair_of_the_pages_...
AS_THEY_STAND = {*PAIRS, *(x for page in WALKS for x in steps(page))}
# They make the environment in which the tests run; no test does.
SET_UP = [
    r'make env( [A-Z]+=\S+)*',
    r'source \.venv/bin/activate',
    r'pip install -c requirements\.lock .*',
    r'python -m lshfm_mm (install_mmcv|doctor)',
]
# The rest of the commands -> the test that runs the tool on other arguments.
ALIKE = {
    # On less data: the step from image to table is the same.
    r'make demo( TASK=\w+)?': 'test_docs.test_the_demo_goes_on_where_it_was',
    r'make demo DATA=aquarium': 'test_docs.test_the_demo_takes_photographs',
    # Without its data a config is built and not trained.
    r'python tools/train\.py configs/\S+\.py( --(work-dir|cfg-options) .*)?': (
        'test_configs.test_config_builds'
    ),
    r'python tools/train\.py \S+ --check(-teacher)?': (
        'test_tools.test_check_audits_and_trains_nothing'
    ),
    r'python tools/train\.py \S+ --resume': 'test_tools.test_training_resumes',
    r'python tools/(test|export_student)\.py .*': (
        'test_tools.test_the_student_scores_the_same_in_unmodified_mmdet'
    ),
    r'python tools/make_config\.py teacher\.py .* --beta 0 .*': (
        'test_pairing.test_a_weight_of_0_writes_the_control'
    ),
    r'python tools/train\.py +mmrazor::\S+\.py': (
        'test_mmrazor_configs.test_the_quickest_goes_all_the_way'
    ),
    r'python tools/analyze\.py .*': 'test_report.test_the_tool_writes_all',
    r'(\w+=\d+ )?tools/(dist|slurm)_(train|test)\.sh .*': (
        'test_launchers.test_scripts_start_what_those_of_mmdet_start'
    ),
    r'python benchmarks/foundation\.py .*': (
        'test_foundation.test_the_experiment_runs_on_any_folder_of_classes'
    ),
    r'python -m lshfm_mm get_photographs .*': (
        'test_photographs.test_what_is_there_is_not_fetched_again'
    ),
    r'python -m lshfm_mm get_weights data': (
        'test_get_weights.test_each_package_sees_what_torchvision_does'
    ),
    r'python tools/reproduce\.py .*': (
        'test_reproduce.test_the_whole_way_of_a_detector'
    ),
    r'python benchmarks/study .*': (
        'test_study.test_stopped_it_goes_on_where_it_was'
    ),
}


def is_set_up(command: str) -> bool:
    """Whether a command makes the environment."""
    return any(re.fullmatch(x, command) for x in SET_UP)


@pytest.mark.parametrize('page', PAGES)
def test_each_command_is_known(page):
    """It is run as it stands, or its tool is, or it needs nothing but make."""
    makefile = (REPO / 'Makefile').read_text('utf-8')
    for command in commands(page):
        for path in re.findall(r'configs/\S+\.py', command):
            assert (REPO / path).is_file() or path == 'configs/mine.py'
        if command.startswith('make '):
            target = command.split()[1]
            assert re.search(rf'^{target}:.*## ', makefile, re.M), command
        if command in AS_THEY_STAND or is_set_up(command):
            continue
        by = [x for k, x in ALIKE.items() if re.fullmatch(k, command)]
        by += ['make'] * command.startswith('make ')
        by += ['pytest'] * command.startswith('python -m pytest ')
        assert by, f'{page}: nothing runs: {command}'
        if '.' in by[0]:
            module, name = by[0].split('.')
            assert hasattr(importlib.import_module(f'tests.{module}'), name)


def test_each_command_of_the_readme_is_run():
    """As it stands, but for the set-up, and the demo on less data."""
    rest = [x for x in commands('README.md') if x not in AS_THEY_STAND]
    assert [x for x in rest if not is_set_up(x)] == ['make demo']
    # CI starts with the set-up on a machine that has nothing.
    ci = (REPO / '.github/workflows/ci.yml').read_text('utf-8')
    for line in (
        'pip install -c requirements.lock -e ',
        'python -m lshfm_mm install_mmcv\n',
        'python -m lshfm_mm doctor\n',
    ):
        assert f'- run: {line}' in ci


def test_each_component_is_in_the_reference():
    page = (REPO / 'docs/reference.md').read_text('utf-8')
    listed = (REPO / 'tests/api.txt').read_text('utf-8')
    registered = re.findall(r'^\w+ \w+: (\w+)', listed, re.M)
    assert len(registered) > 15
    assert [x for x in registered if not re.search(rf'\b{x}\b', page)] == []


@pytest.mark.parametrize('page', ['README.md', 'docs/your_detector.md'])
def test_the_ten_lines_are_those_of_the_example(page):
    text = (REPO / page).read_text('utf-8')
    example = (REPO / 'configs/examples/your_detector.py').read_text('utf-8')
    code, *_ = re.findall(r'```python\n(.*?)```', text, re.S)
    assert len(code.splitlines()) > 8
    assert code in example


@pytest.mark.slow
@pytest.mark.parametrize('command', PAIRS)
def test_a_pair_of_the_pages_is_written(command, tmp_path):
    (tmp_path / 'tools').symlink_to(REPO / 'tools')
    shell(command, tmp_path)
    path = tmp_path / command.split(' -o ')[1]
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


def walk(found: list[str], folder: Path) -> None:
    """Run the commands of a page, on less data and for one epoch."""
    mim = Path(mmdet.__file__).parent / '.mim'
    for step in found:
        step = re.sub(r'epoch_\d+', 'epoch_1', step)
        step = step.replace('--num-train 640', '--num-train 16 --num-val 4')
        step = re.sub(r'\S*mmdet/\.mim', str(mim), step)
        if re.search(r'(tools/train\.py|lshfm_mm train) ', step):
            step += ' --cfg-options train_cfg.max_epochs=1'
        shell(step, folder)


@pytest.mark.slow
def test_the_steps_of_a_page_are_run(tmp_path):
    """As they stand on the page, on less data and for one epoch."""
    found = steps('docs/start.md')
    assert len(found) == 8
    walk(found, tmp_path)
    student = torch.load(tmp_path / 'student.pth', weights_only=True)
    assert set(student) == {'meta', 'state_dict'}


def run_demo(folder: Path, *args: str) -> str:
    """What it prints, on less data and for one epoch."""
    code = (
        'import demo; demo.NUM_TRAIN, demo.NUM_VAL = 16, 6\n'
        'for options in demo.CONFIGS.values():\n'
        "    options.append('train_cfg.max_epochs=1')\n"
        'demo.main()\n'
    )
    script = folder / 'short_demo.py'
    tools = REPO / 'tools'
    script.write_text(
        f'import sys\nsys.path.insert(0, {str(tools)!r})\n{code}'
    )
    return shell(shlex.join(['python', str(script), *args]), folder)


@pytest.mark.slow
def test_the_demo_goes_on_where_it_was(tmp_path):
    """The second time it has nothing to do."""
    first, again = (run_demo(tmp_path) for _ in range(2))
    table = (tmp_path / 'work_dirs/shapes/faster_rcnn_table.md').read_text()
    assert len(table.splitlines()) == 2 + 4
    assert '| s / test image |' in table
    for output in (first, again):
        assert table in output
    assert 'Epoch(train)' in first and 'Epoch(' not in again


@pytest.mark.slow
@pytest.mark.usefixtures('server')
def test_the_demo_takes_photographs(tmp_path):
    """Those of small archives; the teacher's backbone is a random one."""
    for name in ('aquarium', 'clothing'):
        get_photographs(name, str(tmp_path / 'data' / name))
    for package, end in (('mmdet', ''), ('mmpretrain', '_mmpretrain')):
        backbone = DETECTION.build(dict(type=f'{package}.MobileNetV2'))
        state = {f'backbone.{k}': v for k, v in backbone.state_dict().items()}
        torch.save(state, tmp_path / f'data/mobilenet_v2_imagenet{end}.pth')
    run_demo(tmp_path, '--task', 'aquarium', '--seeds', '2')
    work = tmp_path / 'work_dirs/aquarium'
    table = (work / 'aquarium_table.md').read_text()
    assert len(table.splitlines()) == 2 + 4
    assert table.count(' ± ') == 3 * 3  # the students'
    one, other = (
        torch.load(work / f'aquarium_student{x}.pth')['state_dict']
        for x in ('', '-seed1')
    )
    key = 'backbone.conv1.weight'
    assert not torch.equal(one[key], other[key])
    assert (work / 'aquarium_detections.png').stat().st_size
    log = (work / 'aquarium_taught.log').read_text()
    for start in ('teacher', 'backbone'):
        assert f'from work_dirs/aquarium/aquarium_{start}.pth' in log


@pytest.mark.slow
def test_the_way_from_nothing_is_run(tmp_path, make_config):
    """A GFL, the narrow FCOS of the page that mimics it, mmdet's own test.

    One image to a batch of the evaluation, with maps of 1 x 1.
    """
    page = 'docs/your_detector.md'
    *found, override = steps(page)[-8:]
    assert {*found, override} == set(steps(page))
    assert 'teacher.py' in found[0] and 'student.pth' in found[-1]
    text = (REPO / 'docs/small_data.md').read_text('utf-8')
    blocks = re.findall(r'```python\n(.*?)```', text, re.S)
    (student,) = (x for x in blocks if 'frozen_stages' in x and 'fcos' in x)
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
    walk(found, tmp_path)
    assert Config.fromfile(tmp_path / 'distil.py').model.distiller.connectors
    (scores,) = tmp_path.glob('work_dirs/student/*/*.json')
    assert 'coco/bbox_mAP' in scores.read_text('utf-8')


@pytest.mark.slow
def test_a_dry_run_with_a_teacher_of_random_weights(tmp_path, make_config):
    for name in ('student', 'teacher'):
        make_config('faster_rcnn_student').dump(tmp_path / f'{name}.py')
    (tmp_path / 'tools').symlink_to(REPO / 'tools')
    pages = 'docs/small_data.md', 'docs/troubleshooting.md'
    (show, *dry) = [step for page in pages for step in steps(page)]
    assert 'FasterRCNN' in shell(show, tmp_path)
    assert len(dry) == 3
    walk(dry[:2], tmp_path)
    assert 'check: passed' in shell(dry[2], tmp_path)


def test_a_weight_is_overridden_as_on_the_page():
    text = (REPO / 'docs/your_detector.md').read_text('utf-8')
    key, value = re.search(r'--cfg-options (\S+)=(\d) ', text).groups()
    cfg = Config.fromfile(REPO / 'configs/examples/your_detector.py')
    cfg.merge_from_dict({key: int(value)})
    assert cfg.model.distiller.losses.roi[0].loss_weight == 2
    assert cfg.model.distiller.losses.roi[1].loss_weight == 4


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
