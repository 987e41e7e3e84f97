"""One family: pair, train, resume, export, test by upstream's plain tool."""

import copy
import functools
import json
import multiprocessing
import os
import runpy
import shutil
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import mmdet
import mmpretrain
import torch
from mmdet.models.backbones.trident_resnet import TridentConv
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from shrink import FIXED, shrink, walk, without_downloads

from lshfm_mm.pairing import write_config
from lshfm_mm.utils.configs import read_config

REPO = Path(__file__).resolve().parents[2]
PACKAGES = {'mmdet': mmdet, 'mmpretrain': mmpretrain}
BN = torch.nn.modules.batchnorm._BatchNorm  # SyncBN's, of one process
SECONDS = 600  # that a tool may take
# Each tool runs in a process of its own, which has the stack already.
SERVER = multiprocessing.get_context('forkserver')
SERVER.set_forkserver_preload(['lshfm_mm', 'lshfm_mm.cli', 'mmdet.apis'])


class Failure(Exception):
    """A tool ended with an error: which, and its last line."""


def configs(package: str) -> Path:
    """The folder of a package's configs."""
    return Path(PACKAGES[package].__file__).parent / '.mim/configs'


def run(tool: Path, *args: object) -> str:
    """Run a tool with arguments; what it printed.

    Raises:
        Failure: If it fails or takes too long.
    """
    with tempfile.NamedTemporaryFile('r', encoding='utf-8') as said:
        process = SERVER.Process(target=_run, args=(said.name, tool, *args))
        process.start()
        process.join(SECONDS)
        late = process.is_alive()
        process.kill()
        process.join()
        text = said.read()
    if late:
        raise Failure(f'{tool.stem}: took more than {SECONDS} s')
    if process.exitcode:
        lines = [line for line in text.splitlines() if line.strip()]
        raise Failure(f'{tool.stem}: {lines[-1] if lines else "crashed"}')
    return text


def _run(said: str, tool: Path, *args: object) -> None:
    file = os.open(said, os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(file, stream)
    warnings.simplefilter('ignore')
    torch.set_num_threads(1)
    os.chdir(REPO)
    sys.argv = [str(tool), *map(str, args)]
    runpy.run_path(str(tool), run_name='__main__')


def try_config(package: str, path: Path, work: Path, data: Path) -> str:
    """Take a config whole through all that a user does with it.

    Args:
        package (str): 'mmdet' or 'mmpretrain'.
        path (Path): Config of it; the teacher's and the student's.
        work (Path): Folder for what is written; emptied first.
        data (Path): Folder of shapes.

    Returns:
        str: What was mimicked, and by what the student was measured.

    Raises:
        Failure: If a tool fails, or two numbers that must be equal are not.
    """
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    student, teacher = work / 'student.py', work / 'teacher.py'
    distilled, weights = work / 'distilled.py', work / 'teacher.pth'
    cfg = shrink(read_config('config', str(path)), data, package != 'mmdet')
    side = FIXED.get(data.name, 224)
    if package != 'mmdet':
        side = _side(cfg)
    else:
        _give_weights(cfg, work / 'backbone.pth', side)
    cfg.dump(student)
    _write_teacher(package, path, student, teacher, weights, side)
    chosen = write_config(
        str(teacher), str(student), str(distilled), str(weights)
    )
    try:
        last = _train(distilled, work)
    except Failure as failure:
        try:
            _train(student, work / 'plain')
        except Failure as plain:
            raise Failure(f'plain training fails, too: {plain}') from failure
        raise
    exported = work / 'exported.pth'
    run(REPO / 'tools/export_student.py', last, '-o', exported)
    plain = exported.with_suffix('.py')
    test = configs(package).parent / 'tools/test.py'
    ours = _metrics(REPO / 'tools/test.py', distilled, last, work / 'ours')
    theirs = _metrics(
        test, plain if plain.exists() else student, exported, work / 'theirs'
    )
    if not ours or ours != theirs:
        raise Failure(f'the export scores {theirs}, the student {ours}')
    return f'{chosen.split(": ", 1)[1]} ({len(ours)})'


def _train(config: Path, work: Path) -> Path:
    """Train whole, and again from the middle; give the last checkpoint."""
    tool, whole, rest = REPO / 'tools/train.py', work / 'whole', work / 'rest'
    run(tool, config, '--work-dir', whole)
    first, last = _checkpoints(whole)
    rest.mkdir()
    shutil.copy(first, rest)
    run(tool, config, '--work-dir', rest, '--resume', rest / first.name)
    _check_same(last, rest / last.name)
    return last


def _write_teacher(
    package: str,
    path: Path,
    student: Path,
    teacher: Path,
    weights: Path,
    side: int,
) -> None:
    """The config as it is with random weights; a classifier's as small."""
    cfg = read_config('config', str(path))
    if package != 'mmdet':
        cfg = Config.fromfile(student)
    walk(cfg.model, without_downloads)
    cfg.dump(teacher)
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(package):
        model = MODELS.build(Config.fromfile(teacher).model)
        model.init_weights()
    _settle(model, side)
    torch.save({'state_dict': model.state_dict()}, weights)


def _give_weights(cfg: Config, file: Path, side: int) -> None:
    """Let the backbone of a detector start from a file, as mmdet's do."""
    torch.manual_seed(1)
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(copy.deepcopy(cfg.model))  # DETRs change it
        model.init_weights()
    _settle(model, side)
    torch.save({'state_dict': model.backbone.state_dict()}, file)
    init = dict(type='Pretrained', checkpoint=str(file))
    cfg.model.backbone.init_cfg = init


def _side(cfg: Config) -> int:
    """The side of a classifier's images; some networks take no other."""
    sizes = [224]
    walk(
        cfg.train_dataloader.dataset.pipeline,
        lambda node: sizes.extend(
            x
            for x in (node.get('scale'), node.get('crop_size'))
            if isinstance(x, int)
        ),
    )
    return sizes[-1]


def _settle(model: torch.nn.Module, side: int) -> None:
    """Give a model of random weights what training would have given it.

    Features of an ordinary size, by the statistics of its normalisation; and
    a class layer that does not begin with zeros.
    """
    model.train()
    for layer in model.modules():
        if isinstance(layer, BN):
            layer.momentum = 1.0
            layer.train()  # with norm_eval, too
        if isinstance(layer, torch.nn.SyncBatchNorm):
            layer.forward = functools.partial(BN.forward, layer)
        if isinstance(layer, torch.nn.Linear) and not layer.weight.any():
            torch.nn.init.normal_(layer.weight, std=0.02)
        if isinstance(layer, TridentConv):  # whose weights are as memory was
            torch.nn.init.kaiming_normal_(layer.weight)
    images = 255 * torch.rand(2, 3, side, side)
    own = model.data_preprocessor
    if getattr(own, 'mean', None) is not None:  # those of Caffe keep 255
        images = (images - own.mean) / own.std
    with torch.no_grad():
        model.extract_feat(images)


def _checkpoints(folder: Path) -> Sequence[Path]:
    """What was saved at the end of both epochs."""
    found = sorted(folder.glob('*_*.pth'), key=os.path.getmtime)
    found = [x for x in found if x.stem.startswith(('epoch_', 'iter_'))]
    if len(found) < 2:
        raise Failure(f'train: wrote {[x.name for x in found]}')
    return found[0], found[-1]


def _check_same(one: Path, other: Path) -> None:
    """Raise unless an interrupted training gave the same weights."""
    states = [
        torch.load(path, weights_only=True)['state_dict']
        for path in (one, other)
    ]
    wrong = [
        key
        for key, value in states[0].items()
        if not torch.equal(value.nan_to_num(), states[1][key].nan_to_num())
    ]
    if wrong:
        raise Failure(
            f'train: {len(wrong)} of {len(states[0])} tensors are others '
            f'after a resume, such as {wrong[0]}'
        )
    nan = [k for k, v in states[0].items() if not v.isfinite().all()]
    if nan:
        raise Failure(f'train: {nan[0]} is not finite')


def _metrics(
    tool: Path, config: Path, checkpoint: Path, folder: Path
) -> dict[str, float]:
    """The metrics that a test tool wrote."""
    run(tool, config, checkpoint, '--work-dir', folder)
    (file,) = folder.glob('*/*.json')
    found = json.loads(file.read_text('utf-8'))
    ignored = ('time', 'data_time')
    return {k: v for k, v in found.items() if k not in ignored}
