"""What users get wrong: each entry, done on small real files.

``tests/test_bad_inputs.py`` runs them and compares what is said with
docs/errors.md, which ``make errors`` writes.
"""

import json
import math
import runpy
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from mmrazor.registry import MODELS

from lshfm_mm.calibration.sketches import MedianSketch
from lshfm_mm.datasets.shapes.scene import CLASSES
from lshfm_mm.hooks import LSHCalibrationHook
from lshfm_mm.losses import FeatureL2Loss, LSHLoss, l2_loss, lsh_loss
from lshfm_mm.training.averaging import average_checkpoints

from .conftest import read_shapes
from .test_classification import (
    STAGE1,
    classifier,
    distil,
    embedded,
    images,
    step,
)

REPO = Path(__file__).parent.parent
HEAD = 'roi_head.bbox_head.fc_cls'
FPN = dict(layer='neck', record='output')
L2 = dict(type='FeatureL2Loss')
RETINANET = 'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py'
RESNET = 'mmpretrain::resnet/resnet18_8xb32_in1k.py'


class Row(NamedTuple):
    """One wrong input."""

    group: str
    wrong: str
    do: Callable[['Bench'], object]
    slow: bool = False


class Bench:
    """A folder with small real files, and what users do with them."""

    def __init__(self, folder, make_config, shapes_root, teacher) -> None:
        self.folder = folder
        self.make_config = make_config
        self.shapes = shapes_root
        self.teacher = teacher
        self.state = torch.load(teacher, weights_only=True)['state_dict']

    def build(self, name='faster_rcnn_lshfm', **changes: Any) -> Any:
        """Build a model; changes of its config, ``__`` for dots."""
        changes = {
            f'model.{k.replace("__", ".")}': v for k, v in changes.items()
        }
        return MODELS.build(self.make_config(name, changes).model)

    def losses(self, *losses: Any) -> Any:
        """Build with these losses at the tap."""
        return self.build(distiller__losses__roi=list(losses))

    def tap(self, tap: Any, *losses: Any) -> Any:
        """Build with this tap."""
        if isinstance(tap, dict):
            tap = dict(tap, _delete_=True)
        changes = dict(distiller__losses__roi=list(losses)) if losses else {}
        return self.build(distiller__taps__roi=tap, **changes)

    def several(self, tap: str, **changes: Any) -> Any:
        """Build with the teachers a and b, and this tap."""
        config = str(self.teacher.with_suffix('.py'))
        entry = dict(model=config, ckpt=str(self.teacher))
        return self.build(
            teacher=None,
            teacher_ckpt=None,
            teachers=dict(a=entry, b=entry),
            distiller__taps__roi=dict(
                student=HEAD, teacher=tap, _delete_=True
            ),
            **changes,
        )

    def ckpt(self, content: Any) -> Any:
        """Build with this file as the teacher's checkpoint."""
        return self.build(teacher_ckpt=self.write('teacher.pth', content))

    def write(self, name: str, content: Any) -> str:
        """Write text, bytes or a checkpoint; its name."""
        path = self.folder / name
        if isinstance(content, str):
            path.write_text(content)
        elif isinstance(content, bytes):
            path.write_bytes(content)
        else:
            torch.save(content, path)
        return name

    def config(self, name='faster_rcnn_student', **changes: Any) -> str:
        """Write a config; ``__`` for dots. Its name."""
        changes = {k.replace('__', '.'): v for k, v in changes.items()}
        cfg = self.make_config(name, {'train_cfg.max_epochs': 1, **changes})
        cfg.work_dir = 'work_dirs'
        cfg.dump(self.folder / f'{name}.py')
        return f'{name}.py'

    def new_style(self) -> str:
        """Write a config of the new style. Its name."""
        self.write('base.py', 'model = dict()')
        text = 'from mmengine.config import read_base\n'
        text += 'with read_base():\n    from .base import *\n'
        return self.write('new.py', text)

    def single(self, **changes: Any) -> str:
        """Write the config of a classifier. Its name."""
        cfg = read_shapes('single_student')
        for split in ('train', 'val', 'test'):
            loader = cfg[f'{split}_dataloader']
            loader.dataset.data_root = str(self.shapes)
        cfg.merge_from_dict(
            {k.replace('__', '.'): v for k, v in changes.items()}
        )
        cfg.dump(self.folder / 'single.py')
        return 'single.py'

    def tool(self, name: str, *arguments: Any) -> None:
        """Run a tool of the repository."""
        line = [f'{name}.py', *map(str, arguments)]
        with patch.object(sys, 'argv', line):
            runpy.run_path(str(REPO / f'tools/{name}.py'), run_name='__main__')

    def train(self, name='faster_rcnn_student', **changes: Any) -> None:
        """Train with a config."""
        self.tool('train', self.config(name, **changes))

    def resume_of(self, name: str) -> None:
        """Resume what was trained with another config."""
        (self.folder / 'work_dirs').mkdir()
        self.write('work_dirs/last_checkpoint', '')
        other = self.folder / self.write(name, '')
        self.write('work_dirs/config_file.txt', str(other))
        self.tool('train', self.config(), '--resume')

    def data(self, change: Callable | None = None, **dataset: Any) -> None:
        """Train on annotations that are changed in place."""
        path = self.shapes / 'annotations/train.json'
        content = json.loads(path.read_text())
        if change is not None:
            content = change(content) or content
        if not isinstance(content, str):
            content = json.dumps(content)
        name = self.write('train.json', content)
        dataset = {
            f'train_dataloader__dataset__{k}': v for k, v in dataset.items()
        }
        file = str(self.folder / name)
        self.train(train_dataloader__dataset__ann_file=file, **dataset)

    def evaluate(self, change: Callable[[dict], object]) -> None:
        """Train with changed annotations for the evaluator."""
        path = self.shapes / 'annotations/val.json'
        content = json.loads(path.read_text())
        change(content)
        name = self.write('val.json', json.dumps(content))
        self.train(val_evaluator__ann_file=str(self.folder / name))

    def image(self, content: bytes) -> None:
        """Train on images of which one is another file."""
        folder = self.folder / 'images'
        shutil.copytree(self.shapes / 'train', folder)
        (folder / '000003.png').write_bytes(content)
        prefix = dict(img=str(folder))
        self.train(train_dataloader__dataset__data_prefix=prefix)

    def trained(self, name='faster_rcnn_lshfm') -> str:
        """A checkpoint as the training of a config writes it."""
        model = MODELS.build(self.make_config(name).model)
        return self.write(
            'epoch_1.pth', {'state_dict': model.state_dict(), 'meta': {}}
        )


def spoil(state: dict, key: str, value: float) -> dict:
    """Put a value into a tensor of a state dict."""
    state = {k: v.clone() for k, v in state.items()}
    state[key].view(-1)[0] = value
    return {'state_dict': state}


def rename(state: dict, old: str, new: str) -> dict:
    """Rename the keys of a state dict."""
    return {'state_dict': {k.replace(old, new): v for k, v in state.items()}}


def put(key: str, value: Any) -> Callable[[dict], None]:
    """A change of the first annotation."""
    return lambda x: x['annotations'][0].update({key: value})


def put_all(key: str, value: Any) -> Callable[[dict], None]:
    """A change of all annotations."""

    def change(content: dict) -> None:
        for entry in content['annotations']:
            entry[key] = value

    return change


def lack(kind: str, key: str) -> Callable[[dict], None]:
    """A change: the first entry of a list lacks a key."""

    def change(content: dict) -> None:
        del content[kind][0][key]

    return change


def replace(**parts: Any) -> Callable[[dict], None]:
    """A change of the whole file."""
    return lambda x: x.update(parts)


def too_small(content: dict) -> None:
    """Boxes in parts of the image, where pixels are wanted."""
    for entry in content['annotations']:
        entry['bbox'] = [x / 64 for x in entry['bbox']]


def rows(group: str, *entries: tuple) -> list[Row]:
    """Rows of one group."""
    return [Row(group, *x) for x in entries]


S, T = torch.ones(6, 5), torch.ones(6, 5)
MAPS = torch.ones(2, 4, 3, 3)
W, B = torch.ones(9, 5), torch.zeros(9)
CLASS_WEIGHT = f'{HEAD}.weight'

ROWS = [
    *rows(
        'Taps',
        ('a layer that is misspelt', lambda x: x.tap(HEAD[:-1])),
        ('a number for a layer', lambda x: x.tap(7)),
        (
            'only one of the two models',
            lambda x: x.tap(dict(student=HEAD)),
        ),
        ('an unknown key', lambda x: x.tap(dict(layer=HEAD, normalise=True))),
        (
            'a record that is misspelt',
            lambda x: x.tap(dict(FPN, record='outputs')),
        ),
        (
            'a word for a flag',
            lambda x: x.tap(dict(FPN, normalize='yes')),
        ),
        (
            'unknown weights',
            lambda x: x.tap(dict(layer=HEAD, weights='foreground')),
        ),
        (
            'weights that need a class layer, on a neck',
            lambda x: x.tap(dict(FPN, weights='confidence'), L2),
        ),
        (
            'weights for a loss that cannot weigh',
            lambda x: x.tap(
                dict(layer=HEAD, weights='balanced'), dict(type='PKDLoss')
            ),
        ),
        (
            'a list for the taps',
            lambda x: x.build(distiller__taps=[HEAD]),
        ),
        (
            'a tap without losses',
            lambda x: x.build(distiller__taps__fpn=FPN),
        ),
        (
            'losses of a tap that is misspelt',
            lambda x: x.build(distiller__losses__rio=[L2]),
        ),
        (
            'an active tap that is misspelt',
            lambda x: x.build(distiller__active=['rio']),
        ),
        ('no active tap', lambda x: x.build(distiller__active=[])),
        (
            'widths that differ',
            lambda x: x.build(
                architecture__roi_head__bbox_head__fc_out_channels=32
            ),
        ),
        (
            'a connector of a tap that is misspelt',
            lambda x: x.build(
                distiller__connectors=dict(
                    rio=dict(type='TorchNNConnector', module_name='ReLU')
                )
            ),
        ),
        (
            'a layer that does not run on RoIs',
            lambda x: x.tap('rpn_head.rpn_cls'),
        ),
    ),
    *rows(
        'Losses',
        ('a type that is misspelt', lambda x: x.losses(dict(type='LSHLos'))),
        ('a string for a list', lambda x: x.losses('LSHLoss')),
        ('no type', lambda x: x.losses(dict(loss_weight=7))),
        (
            'an argument that is misspelt',
            lambda x: x.losses(dict(type='LSHLoss', loss_wieght=7)),
        ),
        (
            'an argument cut short',
            lambda x: x.losses(dict(type='LSHLoss', num_hash=512)),
        ),
        (
            "an argument of MMRazor's that is misspelt",
            lambda x: x.losses(dict(type='L2Loss', normalise=False)),
        ),
        (
            'a loss that needs labels',
            lambda x: x.losses(dict(type='DKDLoss')),
        ),
        ('no hash function', lambda x: LSHLoss(num_hashes=0)),
        ('half a hash function', lambda x: LSHLoss(num_hashes=1.5)),
        ('a std that is misspelt', lambda x: LSHLoss(std='techer')),
        ('a std of 0', lambda x: LSHLoss(std=0.0)),
        ('a weight of NaN', lambda x: LSHLoss(loss_weight=math.nan)),
        ('a negative weight', lambda x: FeatureL2Loss(loss_weight=-1)),
        ('a word for a weight', lambda x: LSHLoss(loss_weight='7')),
        ('an unknown bias', lambda x: LSHLoss(bias='average')),
        ('an unknown mode', lambda x: LSHLoss(mode='cosine')),
        (
            'a seed that is no number',
            lambda x: LSHLoss(seed='0'),
        ),
        (
            'a bias where it has no effect',
            lambda x: LSHLoss(mode='l2', bias='median'),
        ),
        ('an even window', lambda x: FeatureL2Loss(window=2)),
        (
            "a width that is not the teacher's",
            lambda x: x.losses(dict(type='LSHLoss', feature_dim=128)),
        ),
        (
            'no std where the teacher has none',
            lambda x: x.tap(FPN, dict(type='LSHLoss')),
        ),
        (
            'a loss that is used before it is ready',
            lambda x: LSHLoss()(S, T),
        ),
        (
            'a median that nothing calibrates',
            lambda x: LSHLoss(5, std=1.0, bias='median')(S, T),
        ),
    ),
    *rows(
        'Tensors',
        ('other widths', lambda x: l2_loss(S, T[:, :4])),
        ('other numbers of samples', lambda x: lsh_loss(S, T[:5], W, B)),
        ('features of three dimensions', lambda x: l2_loss(S[None], T[None])),
        ('maps against rows', lambda x: l2_loss(MAPS, T)),
        (
            'hash functions of another width',
            lambda x: lsh_loss(S[:, :4], T[:, :4], W, B),
        ),
        (
            'hash functions of an even window',
            lambda x: lsh_loss(MAPS, MAPS, torch.ones(9, 16), B),
        ),
        ('one bias too few', lambda x: lsh_loss(S, T, W, B[:8])),
        (
            'weights of other samples',
            lambda x: l2_loss(S, T, torch.ones(5)),
        ),
        (
            'integers for features',
            lambda x: l2_loss(S.int(), T.int()),
        ),
        (
            'complex features',
            lambda x: lsh_loss(S * 1j, T * 1j, W, B),
        ),
        ('a sketch of an odd size', lambda x: MedianSketch(2, size=5)),
        ('a median of nothing', lambda x: MedianSketch(2).result()),
    ),
    *rows(
        'Algorithm and hooks',
        ('an unknown argument', lambda x: x.build(inherits=True)),
        (
            "an argument of the other algorithm's",
            lambda x: x.build('retinanet_lshfm', max_rois=64),
        ),
        (
            'an unknown argument of the distiller',
            lambda x: x.build(distiller__tap=dict(roi=HEAD)),
        ),
        (
            "MMRazor's distiller",
            lambda x: x.build(distiller__type='ConfigurableDistiller'),
        ),
        ('no RoI to mimic', lambda x: x.build(max_rois=0)),
        ('a word for a flag', lambda x: x.build(inherit='False')),
        (
            'an unknown precision',
            lambda x: x.build(teacher_precision='fp16'),
        ),
        (
            'a part of the student that is misspelt',
            lambda x: x.build(student_trainable=['nekc']),
        ),
        (
            'a student that nothing trains',
            lambda x: x.build(calculate_student_loss=False),
        ),
        (
            'a teacher that is to be trained',
            lambda x: x.build(teacher_trainable=True),
        ),
        (
            'an architecture that is misspelt',
            lambda x: x.build(
                architecture=dict(_delete_=True, type='FasterRCCN')
            ),
        ),
        (
            'a list of teachers',
            lambda x: x.build(teacher=['teacher.py', 'other.py']),
        ),
        (
            'a teacher beside several',
            lambda x: x.build(teachers=dict(a=dict(model='teacher.py'))),
        ),
        (
            'several teachers, and a tap that does not say whose',
            lambda x: x.several(HEAD),
        ),
        (
            'several teachers, one without a tap',
            lambda x: x.several(f'a:{HEAD}'),
        ),
        (
            'several teachers, and inherit that does not say whose',
            lambda x: x.several(f'a:{HEAD}', inherit=True),
        ),
        (
            "a teacher's config that is absent",
            lambda x: x.build(teacher__cfg_path='teacher.py'),
        ),
        (
            'settings beside the config of the teacher',
            lambda x: x.build(teacher__backbone=dict(depth=18)),
        ),
        (
            'a calibration on no batch',
            lambda x: LSHCalibrationHook(num_batches=0),
        ),
        (
            'a calibration without a distillation',
            lambda x: x.train(custom_hooks=[dict(type='LSHCalibrationHook')]),
            True,
        ),
        (
            'an average of more epochs than there are',
            lambda x: x.train(
                custom_hooks=[dict(type='AverageCheckpointsHook')]
            ),
            True,
        ),
        (
            'bfloat16 of images too small for it on a CPU',
            lambda x: x.train(
                'retinanet_student',
                optim_wrapper__type='mmrazor.BFloat16OptimWrapper',
                train_dataloader__dataset__pipeline__2__scale=(32, 32),
            ),
            True,
        ),
    ),
    *rows(
        'Checkpoints',
        ('none', lambda x: x.build(teacher_ckpt=None)),
        ('absent', lambda x: x.build(teacher_ckpt='teacher.pth')),
        ('empty', lambda x: x.ckpt(b'')),
        (
            'truncated',
            lambda x: x.ckpt(x.teacher.read_bytes()[:100_000]),
        ),
        ('a text file', lambda x: x.ckpt('no checkpoint')),
        ('a list', lambda x: x.ckpt([1, 2])),
        ('without weights', lambda x: x.ckpt({'epoch': 3})),
        (
            'NaN in a weight',
            lambda x: x.ckpt(spoil(x.state, CLASS_WEIGHT, math.nan)),
        ),
        (
            'infinity in a statistic',
            lambda x: x.ckpt(
                spoil(x.state, 'backbone.bn1.running_var', math.inf)
            ),
        ),
        (
            'other names of the weights',
            lambda x: x.ckpt(rename(x.state, 'backbone', 'trunk')),
        ),
        (
            'other classes',
            lambda x: x.ckpt(
                {'state_dict': {**x.state, CLASS_WEIGHT: torch.ones(81, 256)}}
            ),
        ),
        (
            'of a distillation',
            lambda x: x.build(teacher_ckpt=x.trained()),
        ),
        (
            'load_from: absent',
            lambda x: x.train(load_from='start.pth'),
        ),
        (
            'load_from: truncated',
            lambda x: x.train(
                load_from=x.write(
                    'start.pth', x.teacher.read_bytes()[:100_000]
                )
            ),
        ),
        (
            'load_from: NaN in a weight',
            lambda x: x.train(
                load_from=x.write(
                    'start.pth', spoil(x.state, CLASS_WEIGHT, math.nan)
                )
            ),
        ),
        (
            'init_cfg: NaN in a weight',
            lambda x: x.train(
                model__backbone__init_cfg=dict(
                    _delete_=True,
                    type='Pretrained',
                    checkpoint=x.write(
                        'start.pth', spoil(x.state, CLASS_WEIGHT, math.nan)
                    ),
                )
            ),
        ),
        (
            'init_cfg: weights of an unknown name',
            lambda x: x.train(
                model__backbone__init_cfg=dict(
                    _delete_=True,
                    type='Pretrained',
                    checkpoint='torchvision://resnet19',
                )
            ),
        ),
        (
            'averaged: of two trainings',
            lambda x: average_checkpoints(
                [
                    x.write('a.pth', {'state_dict': {'a': S}}),
                    x.write('b.pth', {'state_dict': {'b': S}}),
                ],
                'average.pth',
            ),
        ),
        (
            'tested: of another model',
            lambda x: x.tool('test', x.config(), x.teacher),
        ),
        (
            'tested: NaN in a weight',
            lambda x: x.tool(
                'test',
                x.config('faster_rcnn_teacher'),
                x.write('t.pth', spoil(x.state, CLASS_WEIGHT, math.nan)),
            ),
        ),
    ),
    *rows(
        'Annotations and images',
        (
            'a file that is absent',
            lambda x: x.train(
                train_dataloader__dataset__ann_file='annotations/trian.json'
            ),
        ),
        (
            'a folder of images that is absent',
            lambda x: x.data(data_prefix=dict(img='trian/')),
        ),
        (
            'a truncated file',
            lambda x: x.data(lambda y: json.dumps(y)[:5000]),
        ),
        ('an empty file', lambda x: x.data(lambda y: ' ')),
        ('no list of annotations', lambda x: x.data(lambda y: y['images'])),
        ('no annotation', lambda x: x.data(replace(annotations=[]))),
        ('no image', lambda x: x.data(replace(images=[]))),
        (
            'an annotation without area',
            lambda x: x.data(lack('annotations', 'area')),
        ),
        (
            'an image without its height',
            lambda x: x.data(lack('images', 'height')),
        ),
        (
            'a class that is misspelt',
            lambda x: x.data(metainfo=dict(classes=('circel', *CLASSES[1:]))),
        ),
        (
            'classes in another order',
            lambda x: x.data(metainfo=dict(classes=CLASSES[::-1])),
        ),
        (
            'one class without its comma',
            lambda x: x.data(metainfo=dict(classes='circle')),
        ),
        (
            'no classes of the own data',
            lambda x: x.data(metainfo=dict(_delete_=True)),
        ),
        ('a box of NaN', lambda x: x.data(put('bbox', [3, 4, math.nan, 9]))),
        (
            'a box of three numbers',
            lambda x: x.data(put('bbox', [30, 4, 9])),
        ),
        ('boxes in parts of the image', lambda x: x.data(too_small)),
        ('boxes without area', lambda x: x.data(put_all('area', 0))),
        ('boxes to ignore alone', lambda x: x.data(put_all('iscrowd', 1))),
        (
            'ids that are words',
            lambda x: x.data(put_all('category_id', '1')),
        ),
        ('ids that repeat', lambda x: x.data(put_all('id', 1))),
        (
            'two categories of one name',
            lambda x: x.data(
                lambda y: y['categories'].append(dict(id=0, name='ring'))
            ),
        ),
        (
            'images that are all too small',
            lambda x: x.data(filter_cfg=dict(min_size=65)),
        ),
        (
            'masks without polygons',
            lambda x: x.data(
                lack('annotations', 'segmentation'),
                pipeline=[dict(type='LoadAnnotations', with_mask=True)],
            ),
        ),
        (
            'a data_prefix without the images',
            lambda x: x.data(data_prefix=dict(_delete_=True)),
        ),
        (
            'a head of another number of classes',
            lambda x: x.train(
                model__roi_head__bbox_head__num_classes=5,
                custom_hooks=[dict(type='DataCheckHook')],
            ),
        ),
        (
            'an evaluation without iscrowd',
            lambda x: x.evaluate(lack('annotations', 'iscrowd')),
        ),
        (
            'an evaluation on other images',
            lambda x: x.evaluate(lambda y: y['images'].pop()),
        ),
        (
            'an image that is absent',
            lambda x: x.data(
                lambda y: y['images'][2].update(file_name='12.png')
            ),
        ),
        ('an empty image', lambda x: x.image(b'')),
        (
            "an evaluator's file that is absent",
            lambda x: x.train(val_evaluator__ann_file='val.json'),
        ),
        (
            'a classifier: a truncated file',
            lambda x: x.tool(
                'train',
                x.single(
                    train_dataloader__dataset__ann_file=str(
                        x.folder / x.write('crops.json', '{"data_list": [')
                    )
                ),
            ),
        ),
        (
            'a classifier: annotations of a detector',
            lambda x: x.tool(
                'train',
                x.single(
                    train_dataloader__dataset__ann_file='annotations/'
                    'train.json'
                ),
            ),
        ),
        (
            'a classifier: images that are elsewhere',
            lambda x: x.tool(
                'train',
                x.single(train_dataloader__dataset__data_prefix='train/'),
            ),
        ),
    ),
    *rows(
        'Wrong task',
        (
            'RoIs of a dense detector',
            lambda x: x.build('retinanet_lshfm', type='RoIMimicDistill'),
        ),
        (
            'RoIs of a classifier',
            lambda x: x.build(
                architecture=dict(_delete_=True, **classifier(4))
            ),
        ),
        (
            'the head of a two-stage detector without RoIs',
            lambda x: x.build(type='FeatureMimicDistill'),
        ),
        (
            "'correct' with several labels",
            lambda x: distil(
                classifier(4, head='MultiLabelLinearClsHead'),
                classifier(4, head='MultiLabelLinearClsHead'),
                dict(layer='head.fc', weights='correct'),
                [L2],
            ),
        ),
        (
            "'correct' with other classes",
            lambda x: distil(
                classifier(4),
                classifier(4, num_classes=7),
                dict(layer='head.fc', weights='correct'),
                [L2],
            ),
        ),
        (
            "'correct' with images of two labels",
            lambda x: two_labels(),
        ),
        (
            "a detector's checkpoint for a classifier",
            lambda x: x.tool('test', x.single(), x.teacher),
        ),
        (
            "a detector's checkpoint for the teacher of a classifier",
            lambda x: distil(
                classifier(4),
                classifier(4),
                'head.fc',
                [L2],
                teacher_ckpt=str(x.teacher),
            ),
        ),
        (
            'exported with the config of another task',
            lambda x: x.tool(
                'export_student',
                *(x.trained(), '-o', 'student.pth', '--config', x.single()),
            ),
        ),
        (
            'exported with the config of other classes',
            lambda x: x.tool(
                'export_student',
                *(x.trained(), '-o', 'student.pth', '--config'),
                x.config(model__roi_head__bbox_head__num_classes=7),
            ),
        ),
        (
            "exported with the teacher's config",
            lambda x: x.tool(
                'export_student',
                *(x.trained(), '-o', 'student.pth', '--config'),
                x.config('faster_rcnn_teacher'),
            ),
        ),
        (
            'a detector and a classifier',
            lambda x: x.tool(
                'make_config',
                *(RESNET, RETINANET, '-o', 'mine.py'),
                *('--teacher-ckpt', x.teacher),
            ),
            True,
        ),
    ),
    *rows(
        'Arguments of the tools',
        ('train: no such config', lambda x: x.tool('train', 'mine.py')),
        (
            'train: a config with an error',
            lambda x: x.tool('train', x.write('mine.py', 'model = dict(')),
        ),
        (
            'train: a config without a model',
            lambda x: x.tool('train', x.write('mine.py', 'a = 1')),
        ),
        (
            'train: an old style config on one with read_base',
            lambda x: x.tool(
                'train', x.write('mine.py', f"_base_ = '{x.new_style()}'")
            ),
        ),
        (
            'train: mixed precision on a CPU',
            lambda x: x.tool('train', x.config(), '--amp'),
        ),
        (
            'train: a rate for batches of an unknown size',
            lambda x: x.tool('train', x.config(), '--auto-scale-lr'),
        ),
        (
            'test: no such checkpoint',
            lambda x: x.tool('test', x.config(), 'epoch_1.pth'),
        ),
        (
            'test: a setting beside the student, which has it',
            lambda x: x.tool(
                'test',
                *(x.config('faster_rcnn_lshfm'), x.trained()),
                *('--cfg-options', 'model.test_cfg.rcnn.score_thr=0.5'),
            ),
        ),
        (
            'train: the work folder of another config is resumed',
            lambda x: x.resume_of('other.py'),
        ),
        (
            'export_student: no such checkpoint',
            lambda x: x.tool('export_student', 'epoch_1.pth', '-o', 'a.pth'),
        ),
        (
            'export_student: no checkpoint of a training',
            lambda x: x.tool(
                'export_student', x.write('a.pth', {'epoch': 3}), '-o', 'b.pth'
            ),
        ),
        (
            'export_student: the file exists',
            lambda x: x.tool(
                'export_student', x.trained(), '-o', x.write('s.pth', '')
            ),
        ),
        (
            'export_student: a config to write to',
            lambda x: x.tool('export_student', x.trained(), '-o', 'a.py'),
        ),
        (
            'export_student: NaN in a weight',
            lambda x: x.tool(
                'export_student',
                x.write('t.pth', spoil(x.state, CLASS_WEIGHT, math.nan)),
                *('-o', 's.pth'),
            ),
        ),
        (
            'export_student: an embedding without --config',
            lambda x: x.tool(
                'export_student',
                x.write(
                    'e.pth',
                    {'state_dict': MODELS.build(embedded()).state_dict()},
                ),
                *('-o', 's.pth'),
            ),
        ),
        (
            'make_config: no such teacher',
            lambda x: x.tool('make_config', 'a.py', RETINANET, '-o', 'b.py'),
        ),
        (
            'make_config: no such config in mmdet',
            lambda x: x.tool(
                'make_config', 'mmdet::retina.py', RETINANET, '-o', 'b.py'
            ),
        ),
        (
            'make_config: a teacher without weights',
            lambda x: x.tool(
                'make_config', x.config(), RETINANET, '-o', 'b.py'
            ),
        ),
        (
            'make_config: a distillation for the student',
            lambda x: x.tool(
                'make_config',
                *(RETINANET, x.config('faster_rcnn_lshfm'), '-o', 'b.py'),
            ),
        ),
        (
            'make_config: no config to write to',
            lambda x: x.tool(
                'make_config', RETINANET, RETINANET, '-o', 'mine.yaml'
            ),
        ),
        (
            'make_config: over the config of the student',
            lambda x: x.tool(
                'make_config',
                RETINANET,
                x.config(),
                '--force',
                '-o',
                x.config(),
            ),
        ),
        (
            'make_config: an unknown loss',
            lambda x: x.tool(
                'make_config',
                *(RETINANET, RETINANET, '-o', 'b.py', '--loss', 'kl'),
            ),
        ),
        (
            'make_config: an unknown tap',
            lambda x: x.tool(
                'make_config',
                *(RETINANET, RETINANET, '-o', 'b.py', '--tap', 'rois'),
                *('--teacher-ckpt', x.teacher),
            ),
            True,
        ),
        (
            'make_config: no such weights',
            lambda x: x.tool(
                'make_config',
                *(RETINANET, RETINANET, '-o', 'b.py'),
                *('--teacher-ckpt', 'teacher.pth'),
            ),
        ),
        (
            'make_config: a negative weight',
            lambda x: x.tool(
                'make_config',
                *(RETINANET, RETINANET, '-o', 'b.py', '--beta', '-1'),
            ),
        ),
        (
            'make_shapes: no image',
            lambda x: x.tool('make_shapes', 'data', '--num-train', '0'),
        ),
        (
            'make_shapes: images too small',
            lambda x: x.tool('make_shapes', 'data', '--size', '4'),
        ),
        (
            'make_shapes: over another set',
            lambda x: x.tool('make_shapes', x.shapes),
        ),
        (
            'get_photographs: over another set',
            lambda x: x.tool('get_photographs', 'bccd', x.shapes),
        ),
        (
            'get_photographs: no such archive',
            lambda x: x.tool(
                'get_photographs', 'bccd', 'bccd', '--source', 'bccd.zip'
            ),
        ),
        (
            'reproduce: no such row',
            lambda x: x.tool('reproduce', 'voc', 'faster_rcnn', 'r34_r18'),
        ),
        (
            'reproduce: too many GPUs',
            lambda x: x.tool(
                'reproduce', *('voc', 'retinanet', 'r101_r50', '--gpus', '3')
            ),
        ),
    ),
]


def two_labels() -> None:
    """A step on an image that has two."""
    tap = dict(layer='head.fc', weights='correct')
    model = distil(embedded(), classifier(8), tap, [L2], **STAGE1)
    batch = images(2)
    batch['data_samples'][1].set_gt_label([0, 2])
    step(model, batch)
