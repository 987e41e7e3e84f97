"""The command-line tools, each in a process of its own."""

import json
import pickle
import re
from pathlib import Path

import mmdet
import pytest
import torch
from mmengine.config import Config

from lshfm_mm.datasets.check_files import check_data
from lshfm_mm.datasets.shapes.scene import CLASSES
from lshfm_mm.errors import ConfigError

from .processes import run_python, run_tool

REPO = Path(__file__).parent.parent
LOADERS = ('train_dataloader',)
MMDET_TEST = Path(mmdet.__file__).parent / '.mim/tools/test.py'
# Runs mmdet's tool as it lies in the package and says what was imported.
UNMODIFIED = """
import runpy, sys
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name='__main__')
print('PLUGIN' if 'lshfm_mm' in sys.modules else 'NO PLUGIN')
"""


def metrics_of(folder: Path) -> dict[str, float]:
    """The COCO metrics that a test tool wrote."""
    (file,) = folder.glob('*/*.json')
    found = json.loads(file.read_text())
    return {k: v for k, v in found.items() if k.startswith('coco/')}


@pytest.fixture(scope='module')
def configs(make_config, tmp_path_factory):
    """Config files: a distillation of seconds, and its plain student.

    They are evaluated on the training images, which a detector this small
    can learn by heart in seconds: mAP is far from 0.
    """
    folder = tmp_path_factory.mktemp('configs')
    paths = {}
    for name in ('faster_rcnn_recommended', 'faster_rcnn_student'):
        cfg = make_config(
            name,
            {
                'train_cfg.max_epochs': 40,
                'train_cfg.val_interval': 40,
                'param_scheduler.1.end': 40,
                'default_hooks.checkpoint.interval': 40,
            },
        )
        for split in ('val', 'test'):
            cfg[f'{split}_dataloader'].dataset.update(
                ann_file='annotations/train.json',
                data_prefix=dict(img='train/'),
            )
            evaluator = cfg[f'{split}_evaluator']
            evaluator.ann_file = evaluator.ann_file.replace('val', 'train')
        paths[name] = folder / f'{name}.py'
        cfg.dump(paths[name])
    return paths


@pytest.fixture(scope='module')
def trained(configs, tmp_path_factory):
    """A finished training: the folder of a run of tools/train.py."""
    folder = tmp_path_factory.mktemp('trained')
    path = configs['faster_rcnn_recommended']
    log = run_tool('tools/train.py', path, '--work-dir', folder)
    assert 'inherit: the student starts with' in log
    assert 'distill.loss_roi_lsh' in log
    return folder


def test_the_student_scores_the_same_in_unmodified_mmdet(
    trained, configs, tmp_path
):
    """Ours on the training checkpoint, mmdet's own on the export."""
    ours, theirs = tmp_path / 'ours', tmp_path / 'theirs'
    checkpoint, student = trained / 'epoch_40.pth', tmp_path / 'student.pth'
    run_tool(
        'tools/test.py',
        configs['faster_rcnn_recommended'],
        checkpoint,
        *('--work-dir', ours, '--out', tmp_path / 'ours.pkl'),
    )
    run_tool('tools/export_student.py', checkpoint, '-o', student)
    said = run_python(
        *('-c', UNMODIFIED, MMDET_TEST, configs['faster_rcnn_student']),
        *(student, '--work-dir', theirs, '--out', tmp_path / 'theirs.pkl'),
    )
    assert 'NO PLUGIN' in said
    assert 'size mismatch' not in said
    assert 'missing keys' not in said
    assert metrics_of(ours) == metrics_of(theirs)
    assert metrics_of(theirs)['coco/bbox_mAP_50'] > 0.1
    boxes = [
        [
            image['pred_instances']['bboxes']
            for image in pickle.loads((tmp_path / f'{who}.pkl').read_bytes())
        ]
        for who in ('ours', 'theirs')
    ]
    assert sum(map(len, boxes[0])) > 10
    for a, b in zip(*boxes, strict=True):
        assert torch.equal(a, b)


def test_the_export_is_tensors_and_plain_python(trained, tmp_path):
    """Loaded by torch alone, in a process without any MM package."""
    out = tmp_path / 'student.pth'
    run_tool('tools/export_student.py', trained / 'epoch_40.pth', '-o', out)
    said = run_python(
        '-c',
        'import sys, torch; c = torch.load(sys.argv[1], weights_only=True); '
        'print(sorted(c), c["meta"]["dataset_meta"]["classes"][0], '
        'sum("teacher" in k or "architecture" in k or "distiller" in k '
        'for k in c["state_dict"]), "mmengine" in sys.modules)',
        out,
    )
    assert "['meta', 'state_dict'] circle 0 False" in said
    training = torch.load(trained / 'epoch_40.pth', weights_only=True)
    student = torch.load(out, weights_only=True)['state_dict']
    for key, value in student.items():
        expected = training['state_dict'][f'architecture.{key}']
        assert torch.equal(value, expected)


@pytest.mark.slow
def test_an_export_is_not_overwritten_unless_forced(trained, tmp_path):
    out = tmp_path / 'student.pth'
    out.write_text('precious')
    arguments = (trained / 'epoch_40.pth', '-o', out)
    said = run_tool('tools/export_student.py', *arguments, code=1)
    assert said == (
        f'error: out: {out} exists; give another name or --force to '
        f'overwrite\n'
    )
    assert out.read_text() == 'precious'
    run_tool('tools/export_student.py', *arguments, '--force')
    assert out.stat().st_size > 1000
    assert [p.name for p in tmp_path.iterdir()] == ['student.pth']


def test_check_audits_and_trains_nothing(trained, configs, tmp_path):
    """Of a teacher that knows the images; no file is left."""
    teacher = tmp_path / 'teacher.pth'
    run_tool(
        'tools/export_student.py', trained / 'epoch_40.pth', '-o', teacher
    )
    options = [
        f'model.teacher.cfg_path={configs["faster_rcnn_student"]}',
        f'model.teacher_ckpt={teacher}',
    ]
    before = sorted(REPO.glob('work_dirs/**/*'))
    said = run_tool(
        *('tools/train.py', configs['faster_rcnn_recommended']),
        *('--check', '--check-teacher', '--cfg-options', *options),
    )
    score, of_student = re.findall(r'coco/bbox_mAP_50: (\S+)', said)
    assert float(of_student) < float(score)
    assert float(score) > 0.1
    (told,) = re.findall(r'INFO - teacher on the validation set: (.*)', said)
    assert f'coco/bbox_mAP_50 {float(score):.4g},' in told
    assert said.count('System environment') == 1  # of that evaluation
    assert '| inherit: ' in said
    assert 'of the hash codes are equal' in said
    assert 'Epoch(train)' not in said
    assert 'check: passed, nothing was trained\n' in said
    assert sorted(REPO.glob('work_dirs/**/*')) == before


def test_training_resumes(trained, configs, tmp_path):
    """With the checkpoint of MMEngine, on any torch."""
    said = run_tool(
        *('tools/train.py', configs['faster_rcnn_recommended']),
        *('--work-dir', tmp_path, '--resume', trained / 'epoch_40.pth'),
        *('--cfg-options', 'train_cfg.max_epochs=41'),
    )
    assert 'resumed epoch: 40, iter: 240' in said
    assert (tmp_path / 'epoch_41.pth').exists()


@pytest.mark.parametrize(
    ('tool', 'arguments', 'message'),
    [
        ('train', ['nowhere.py'], 'error: config: no such file: nowhere.py'),
        (
            'train',
            ['configs/shapes/faster-rcnn_r18_shapes.py']
            + ['--cfg-options', 'train_dataloader.dataset.data_root=void'],
            'error: train_dataloader.dataset.ann_file: no such file or '
            'folder: void/annotations/train.json; get the data with "python '
            '-m lshfm_mm make_shapes data/easy_shapes --num-train 640 --size '
            '96 --easy", or set its data_root',
        ),
        (
            'train',
            ['configs/shapes/faster-rcnn_r18_shapes.py', '--check-teacher']
            + ['--cfg-options', 'train_dataloader=', 'val_dataloader=']
            + ['val_evaluator='],
            'error: --check-teacher: is for distillations of this package, '
            "but model.type is 'FasterRCNN'; leave it out",
        ),
        (
            'test',
            ['configs/distill/faster_rcnn_lshfm.py', 'README.md'],
            'error: test_dataloader.dataset.ann_file: no such file or '
            'folder: data/coco/annotations/instances_val2017.json; get the '
            'data with "python ',
        ),
        (
            'export_student',
            ['nowhere.pth', '-o', 'out.pth'],
            'error: checkpoint: no such file: nowhere.pth',
        ),
    ],
)
def test_errors_are_one_line(tool, arguments, message):
    """Some in a new Python: a tool imports all that it needs."""
    run = run_tool if arguments[0].startswith('configs/sh') else run_python
    said = run(f'tools/{tool}.py', *arguments, code=1)
    (line,) = [x for x in said.splitlines() if x.startswith('error: ')]
    assert line.startswith(message)
    assert 'Traceback' not in said


def test_image_folders_are_looked_for_and_remote_ones_are_not(shapes_root):
    def loader(**kwargs):
        dataset = dict(
            type='CocoDataset',
            data_root=str(shapes_root),
            metainfo=dict(classes=CLASSES),
        )
        return Config(
            dict(train_dataloader=dict(dataset={**dataset, **kwargs}))
        )

    good = dict(ann_file='annotations/train.json')
    check_data(loader(**good, data_prefix=dict(img='train/')), LOADERS)
    check_data(loader(ann_file='a.json', data_root='s3://b'), LOADERS)
    with pytest.raises(ConfigError) as error:
        check_data(loader(**good, data_prefix=dict(img='tran/')), LOADERS)
    assert 'train_dataloader.dataset.data_prefix.img: no such' in str(
        error.value
    )
    assert str(error.value).endswith('; set its data_root')


@pytest.mark.parametrize(
    ('name', 'looked_for', 'help_with'),
    [
        (
            'imagenet',
            [('split', 'train/')],
            '"python -m webbrowser https://www.image-net.org/download.php"',
        ),
        (
            'voc07_multilabel',
            [
                ('split', 'ImageSets/Main/trainval.txt'),
                ('data_prefix.img_path', 'JPEGImages/'),
                ('data_prefix.ann_path', 'Annotations/'),
            ],
            '--dataset-name voc2007 --save-dir {folder} --unzip"',
        ),
        (
            'coco14_multilabel',
            [
                ('ann_file', 'annotations/instances_train2014.json'),
                ('data_prefix', 'train2014/'),
            ],
            '--dataset-name coco2014 --save-dir {root} --unzip"',
        ),
        (
            'shapes_single',
            [
                ('ann_file', 'annotations/train_crops.json'),
                ('data_prefix', 'crops/train/'),
            ],
            'data/shapes --num-train 640 --size 128"',
        ),
    ],
)
def test_data_of_classifiers_is_looked_for(
    name, looked_for, help_with, tmp_path
):
    """One after the other, until all is there."""
    cfg = Config.fromfile(REPO / f'configs/_base_/{name}.py')
    root = tmp_path / ('VOCdevkit/VOC2007' if 'voc' in name else 'coco')
    cfg.train_dataloader.dataset.data_root = str(root)
    for field, path in looked_for:
        with pytest.raises(ConfigError) as error:
            check_data(cfg, LOADERS)
        message = str(error.value)
        assert message.startswith(
            f'train_dataloader.dataset.{field}: no such file or folder: '
            f'{root / path}; get the data with "'
        )
        assert message.endswith(
            f'{help_with.format(root=root, folder=tmp_path)}, or set its '
            f'data_root'
        )
        if 'download_dataset' in message:
            assert Path(message.split('python ')[1].split()[0]).is_file()
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        if path.endswith('/'):
            (root / path).mkdir()
        else:
            (root / path).write_text('{"data_list": [{}], "metainfo": {}}')
    check_data(cfg, LOADERS)


@pytest.mark.parametrize(
    ('dataset', 'looked_for'),
    [
        (dict(type='CIFAR100', split='train'), None),
        (dict(type='mmpretrain.MNIST', download=True), None),
        (dict(type='CIFAR100', split='train', download=False), ''),
        (dict(type='CUB', split='train'), ''),
        (dict(type='ImageNet', split='train', data_prefix='x'), 'x'),
        (dict(type='mmpretrain.VOC'), 'ImageSets/Main/trainval.txt'),
        (dict(type='VOC', split='', image_set_path='x.txt'), 'x.txt'),
        (dict(type='MultiLabelDataset', data_prefix=dict(img_path='x')), 'x'),
    ],
)
def test_where_a_data_set_is_looked_for(dataset, looked_for, tmp_path):
    dataset['data_root'] = str(tmp_path / 'absent')
    cfg = Config(dict(train_dataloader=dict(dataset=dict(dataset=[dataset]))))
    if looked_for is None:
        check_data(cfg, LOADERS)
        return
    path = re.escape(str(tmp_path / 'absent' / looked_for))
    with pytest.raises(ConfigError, match=f'folder: {path}; set its data_roo'):
        check_data(cfg, LOADERS)


def test_a_wrong_teacher_ends_before_any_work(configs, tmp_path):
    said = run_tool(
        *('tools/train.py', configs['faster_rcnn_recommended']),
        *('--work-dir', tmp_path),
        *('--cfg-options', 'model.teacher_ckpt=gone.pth'),
        code=1,
    )
    assert said.splitlines()[-1].startswith(
        'error: teacher_ckpt: no such file: gone.pth in the folder in which '
    )
    assert 'Traceback' not in said
    assert not list(tmp_path.glob('*.pth'))
