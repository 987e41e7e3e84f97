"""Wrong arguments are told before the stack is imported."""

import os
import re
import subprocess
import sys

import pytest

from lshfm_mm import cli

from .processes import REPO

TOOLS = sorted(x.stem for x in (REPO / 'tools').glob('*.py'))
DETECTOR = 'configs/shapes/faster-rcnn_r18_shapes.py'
CLASSIFIER = 'configs/shapes/resnet18-w4_shapes-single.py'
SEVERAL = ['analyze', DETECTOR, '--out', 'x', 'a=README.md']
PAIR = ['make_config', '-o', 'x.py']


def answer(*command: str, code: int) -> str:
    """What a new Python says, which must not have imported the stack."""
    done = subprocess.run(
        [sys.executable, '-X', 'importtime', *command],
        capture_output=True,
        text=True,
        cwd=REPO,
        env={**os.environ, 'PYTHONPATH': str(REPO), 'COLUMNS': '80'},
    )
    lines = done.stderr.splitlines()
    imported = {
        line.rpartition('|')[2].strip()
        for line in lines
        if line.startswith('import time:')
    }
    said = [x for x in lines if not x.startswith('import time:')]
    assert 'lshfm_mm.version' in imported
    assert not imported & {'torch', 'mmengine', 'mmdet', 'mmrazor'}
    assert done.returncode == code, said
    return done.stdout + '\n'.join(said)


@pytest.mark.parametrize('tool', TOOLS)
def test_an_unknown_option_and_help(tool):
    said = answer(f'tools/{tool}.py', '--help', code=0)
    assert said.startswith(f'usage: {tool}.py ')
    assert ('options of lshfm_mm' in said) is (tool == 'train')
    said = answer('-m', 'lshfm_mm', tool, '--no-such-option', code=2)
    assert said.startswith(f'usage: {tool}.py ')
    assert f'\n{tool}.py: error: ' in said


def test_an_unknown_tool():
    for asked, code in (('fly', 1), ('--help', 0), ('-h', 0)):
        said = answer('-m', 'lshfm_mm', asked, code=code)
        assert said.startswith('usage: python -m lshfm_mm {analyze,demo,')


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['demo', '--task', 'x'], "argument --task: invalid choice: 'x'"),
        (['test', DETECTOR], 'arguments are required: checkpoint'),
        (['train', DETECTOR, '--launcher', 'x'], "invalid choice: 'x'"),
    ],
)
def test_what_argparse_refuses(arguments, message):
    tool, *rest = arguments
    assert message in answer(f'tools/{tool}.py', *rest, code=2)


@pytest.mark.parametrize(
    ('config', 'has_no_validate'), [(DETECTOR, False), (CLASSIFIER, True)]
)
def test_the_config_tells_whose_usage_it_is(config, has_no_validate):
    """Only mmpretrain's tool has --no-validate."""
    for option, code in (('--help', 0), ('--no-such-option', 2)):
        said = answer('tools/train.py', config, option, code=code)
        assert ('[--no-validate]' in said) is has_no_validate
        assert said.count('usage: train.py') == 1


def test_a_config_of_the_new_style_tells_whose_usage_it_is(tmp_path):
    config = tmp_path / 'new.py'
    config.write_text('from mmpretrain.models import ImageClassifier\n')
    assert '[--no-validate]' in answer(
        'tools/train.py', str(config), '--help', code=0
    )


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['train', 'gone.py'], 'config: no such file: gone.py in the folder'),
        (['train', DETECTOR, '--resume', 'gone.pth'], 'resume: no such file'),
        (['test', 'gone.py', 'README.md'], 'config: no such file: gone.py'),
        (['test', DETECTOR, 'gone.pth'], 'checkpoint: no such file: gone.pth'),
        (['export_student', 'gone.pth', '-o', 'x'], 'checkpoint: no such'),
        (['export_onnx', 'gone.py', 'x', '-o', 'x'], 'config: no such file'),
        ([*SEVERAL, 'b=gone.pth'], 'checkpoint: no such file: gone.pth'),
        ([*SEVERAL, 'b'], "students: 'b' is no NAME=VALUE"),
        ([*PAIR, DETECTOR, 'gone.py'], 'student: no such file: gone.py'),
        (
            [*PAIR, DETECTOR, DETECTOR, '--teacher-ckpt', 'gone.pth'],
            'teacher_ckpt: no such file: gone.pth',
        ),
        (['reproduce', 'voc', 'nothing'], "row: there is no 'voc nothing'"),
        (['reproduce', '--list'], ''),
    ],
)
def test_what_is_not_there_is_one_line(arguments, message):
    tool, *rest = arguments
    said = answer(f'tools/{tool}.py', *rest, code=1 if message else 0)
    if message:
        assert re.fullmatch(f'error: {re.escape(message)}[^\n]*', said)


@pytest.mark.parametrize(
    'text',
    [
        b"default_scope = 'mmdet'",
        b"default_scope = 'mmpretrain'",
        b"_base_ = 'config.py'",  # itself
        b"_base_ = 'torch.nothing.at_all::x.py'",
        b'# caf\xe9, in Latin-1',
    ],
)
def test_what_either_package_takes_is_not_refused(
    text, tmp_path, monkeypatch, capsys
):
    """The text of a config may tell nothing, or the wrong thing."""
    config = tmp_path / 'config.py'
    config.write_bytes(text)
    monkeypatch.setenv('LOCAL_RANK', '0')
    given = [str(config), '--no-validate', '--cfg-options', 'a=1', 'b=2']
    monkeypatch.setattr('sys.argv', ['train.py', *given])
    args = cli.parse_upstream('train')
    assert args.config == str(config) and args.no_validate
    assert args.cfg_options == ['a=1', 'b=2']
    assert capsys.readouterr() == ('', '')
