"""The scripts that start several processes."""

import os
import re
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import mmdet
import pytest
import torch
from mmengine.config import Config

from lshfm_mm.cli.training import start_processes
from lshfm_mm.errors import ConfigError

from .test_tools import metrics_of

pytestmark = pytest.mark.skipif(
    sys.platform == 'win32', reason='the launchers are scripts for bash'
)
REPO = Path(__file__).parent.parent
MMDET = Path(mmdet.__file__).parent / '.mim/tools'
LAUNCHER = 'torch.distributed.run'
SAY = '#!/bin/sh\nfor x in "$@"; do printf "%s\\n" "$x"; done\n'


@pytest.fixture
def said(tmp_path):
    """Run a script; the arguments that it gives to python or srun."""
    for name in ('python', 'srun'):
        (tmp_path / name).write_text(SAY)
        (tmp_path / name).chmod(0o755)

    def run(script, *arguments, **variables):
        path = f'{tmp_path}:{os.environ["PATH"]}'
        answer = subprocess.run(
            ['bash', str(script), *arguments],
            capture_output=True,
            text=True,
            cwd=REPO,
            env={**os.environ, 'PATH': path, **variables},
        )
        return answer

    return run


@pytest.mark.parametrize('variables', [False, True])
@pytest.mark.parametrize(
    ('name', 'arguments'),
    [
        ('dist_train', ['c.py', '4']),
        ('dist_test', ['c.py', 'x.pth', '4']),
        ('slurm_train', ['part', 'job', 'c.py', 'dir']),
        ('slurm_test', ['part', 'job', 'c.py', 'x.pth']),
    ],
)
def test_scripts_start_what_those_of_mmdet_start(
    name, arguments, variables, said
):
    """Argument by argument; torch has a new name for its launcher."""
    given = dict(NNODES='2', NODE_RANK='1', PORT='7', MASTER_ADDR='host')
    if name.startswith('slurm'):
        given = dict(
            GPUS='4', GPUS_PER_NODE='2', CPUS_PER_TASK='3', SRUN_ARGS='-x n1'
        )
    given = given if variables else {}
    arguments = [*arguments, '--cfg-options', 'a=1', 'b.c=2']
    found = []
    for folder in (REPO / 'tools', MMDET):
        answer = said(folder / f'{name}.sh', *arguments, **given)
        assert answer.returncode == 0, answer.stderr
        text = answer.stdout.replace('torch.distributed.launch', LAUNCHER)
        text = text.replace('="slurm"', '=slurm')
        text = re.sub(r'^.*/?(train|test)\.py$', r'\1.py', text, flags=re.M)
        found.append(text.splitlines())
    assert found[0] == found[1]
    assert LAUNCHER in found[0] or '-p' in found[0]


def test_arguments_with_blanks_stay_whole(said):
    answer = said(REPO / 'tools/dist_train.sh', 'my c.py', '2', 'x="[1, 2]"')
    assert answer.stdout.splitlines()[-4:] == [
        *('my c.py', '--launcher', 'pytorch', 'x="[1, 2]"')
    ]


@pytest.mark.parametrize(
    'name', ['dist_train', 'dist_test', 'slurm_train', 'slurm_test']
)
def test_too_few_arguments_are_told(name, said):
    answer = said(REPO / f'tools/{name}.sh', 'c.py')
    assert answer.returncode == 2
    assert answer.stderr.startswith('usage: ')
    assert not answer.stdout


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
@pytest.mark.parametrize(
    ('launcher', 'backend'),
    [('pytorch', None), ('pytorch', 'nccl'), ('slurm', 'gloo')],
)
def test_a_backend_without_its_gpu_is_told(launcher, backend):
    args = Namespace(launcher=launcher, cfg_options=None)
    cfg = Config({'env_cfg': {'dist_cfg': {}}})
    if backend:
        cfg.env_cfg.dist_cfg.backend = backend
    with pytest.raises(ConfigError, match='env_cfg.dist_cfg.backend=gloo$'):
        start_processes(args, cfg)
    assert not torch.distributed.is_initialized()
    args.launcher = 'none'
    start_processes(args, cfg)
    assert args.cfg_options is None


@pytest.mark.slow
def test_train_and_test_on_two_processes(make_config, tmp_path):
    """With mmdet's arguments, on the CPU; a test by two scores as by one."""
    cfg = make_config('faster_rcnn_lshfm', {'train_cfg.max_epochs': 1})
    cfg.dump(tmp_path / 'mine.py')
    gloo = ['--cfg-options', 'env_cfg.dist_cfg.backend=gloo']

    def script(name, *arguments):
        answer = subprocess.run(
            [f'tools/{name}.sh', tmp_path / 'mine.py', *arguments],
            capture_output=True,
            text=True,
            cwd=REPO,
            timeout=400,
            env={
                **os.environ,
                'PATH': f'{Path(sys.executable).parent}:{os.environ["PATH"]}',
                'PORT': '29871',
            },
        )
        assert answer.returncode == 0, answer.stdout + answer.stderr
        return answer.stdout + answer.stderr

    log = script('dist_train', '2', '--work-dir', tmp_path / 'work', *gloo)
    assert re.search(r'Epoch\(train\) +\[1\]\[3/3\]', log)  # 12 images
    checkpoint = tmp_path / 'work/epoch_1.pth'
    scores = []
    for number in ('1', '2'):
        folder = tmp_path / number
        work = ['--work-dir', folder]
        script('dist_test', checkpoint, number, *work, *gloo)
        scores.append(metrics_of(folder))
    assert scores[0] == scores[1]
    assert 'coco/bbox_mAP' in scores[0]
