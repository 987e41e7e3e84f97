"""The gallery in configs/examples: each is short, and each runs."""

import json
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

from lshfm_mm.pairing.inspect import build_model
from lshfm_mm.utils.configs import model_config, read_config

from .conftest import SHAPES

REPO = Path(__file__).parent.parent
FOLDER = REPO / 'configs/examples'
EXAMPLES = sorted(x.stem for x in FOLDER.glob('*.py'))
PETS = ('cat', 'dog', 'bird')


@pytest.mark.parametrize('name', EXAMPLES)
def test_an_example_is_short_and_says_what_it_is_for(name):
    text = (FOLDER / f'{name}.py').read_text('utf-8')
    assert len(text.splitlines()) < 30
    assert text.startswith('"""')
    assert '# ' in text
    assert f'[{name}.py]({name}.py)' in (FOLDER / 'README.md').read_text(
        'utf-8'
    )


@pytest.fixture(scope='module')
def pets(shapes_root, tmp_path_factory) -> Path:
    """Shapes as the data of somebody: three classes, in COCO's and VOC's."""
    home = tmp_path_factory.mktemp('home')
    coco, voc = home / 'data/mine', home / 'data/mine_voc'
    coco.mkdir(parents=True)
    (voc / 'Annotations').mkdir(parents=True)
    (voc / 'JPEGImages').mkdir()
    for split in ('train', 'val'):
        shutil.copytree(shapes_root / split, coco / split)
        file = shapes_root / f'annotations/{split}.json'
        content = json.loads(file.read_text('utf-8'))
        kept = [x['id'] for x in content['categories'][: len(PETS)]]
        content['categories'] = [
            dict(id=i, name=n) for i, n in zip(kept, PETS, strict=True)
        ]
        content['annotations'] = [
            x for x in content['annotations'] if x['category_id'] in kept
        ]
        (coco / f'{split}.json').write_text(json.dumps(content))
        names = []
        for image in content['images']:
            names.append(f'{split}_{Path(image["file_name"]).stem}')
            picture = voc / f'JPEGImages/{names[-1]}.jpg'
            shutil.copy(shapes_root / split / image['file_name'], picture)
            root = ET.Element('annotation')
            size = ET.SubElement(root, 'size')
            for side in ('width', 'height'):
                ET.SubElement(size, side).text = str(image[side])
            for x in content['annotations']:
                if x['image_id'] == image['id']:
                    entry = ET.SubElement(root, 'object')
                    label = kept.index(x['category_id'])
                    ET.SubElement(entry, 'name').text = PETS[label]
                    box = ET.SubElement(entry, 'bndbox')
                    x1, y1, w, h = x['bbox']
                    corners = (x1 + 1, y1 + 1, x1 + w, y1 + h)
                    for key, value in zip(
                        ('xmin', 'ymin', 'xmax', 'ymax'), corners, strict=True
                    ):
                        ET.SubElement(box, key).text = str(round(value))
            file = voc / f'Annotations/{names[-1]}.xml'
            file.write_bytes(ET.tostring(root))
        (voc / f'{split}.txt').write_text('\n'.join(names))
    return home


def shrink(model) -> None:
    """A tenth of the channels, and no weights of the model zoo."""
    backbone, neck = model.backbone, model.get('neck', {})
    backbone.init_cfg = None
    if neck.get('type') == 'FPN':
        backbone.base_channels = 4
        neck.in_channels = [16, 32, 64, 128]
    elif neck.get('type') == 'CSPNeXtPAFPN':
        backbone.update(widen_factor=0.125, deepen_factor=0.33)
        neck.update(in_channels=[32, 64, 128], num_csp_blocks=1)


def made(cfg, path, file):
    """A small teacher from the config of a big one, and its weights."""
    teacher = read_config('teacher', path).model
    shrink(teacher)
    teacher = model_config('teacher', teacher)
    model = build_model('teacher', Config(dict(cfg, model=teacher)))
    # Statistics, without which features fade from layer to layer.
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = None
    with torch.no_grad():
        model.train().extract_feat(torch.randn(2, 3, 128, 128))
    torch.save(model.state_dict(), file)
    return teacher, str(file)


def read(name, folder, shapes_root=None) -> Config:
    """An example with small models; its data too, if it has none of ours."""
    cfg = Config.fromfile(FOLDER / f'{name}.py')
    init_default_scope(cfg.default_scope)
    shrink(cfg.model.architecture)
    if 'teachers' in cfg.model:
        for key, entry in cfg.model.teachers.items():
            file = folder / f'{key}.pth'
            entry.model, entry.ckpt = made(cfg, entry.model, file)
    else:
        path, file = cfg.model.teacher.cfg_path, folder / 'teacher.pth'
        cfg.model.teacher, cfg.model.teacher_ckpt = made(cfg, path, file)
    cfg.work_dir = str(folder / 'work')
    cfg.default_hooks.logger.interval = 1
    loaders = ['train', 'val']
    if shapes_root is not None:
        loaders = ['train']
        for split in ('val', 'test'):
            for part in ('cfg', 'dataloader', 'evaluator'):
                cfg[f'{split}_{part}'] = None
        dataset = cfg.train_dataloader.dataset
        if cfg.default_scope == 'mmpretrain':
            dataset.update(
                type='BaseDataset',
                ann_file='annotations/train_crops.json',
                data_prefix='crops/train/',
            )
            dataset.pop('split')
        else:
            classes = ('circle', 'square', 'triangle', 'star', 'cross', 'ring')
            dataset.update(
                ann_file='annotations/train.json',
                data_prefix=dict(img='train/'),
                metainfo=dict(classes=classes),
            )
        dataset.data_root = str(shapes_root)
    for split in loaders:
        loader = cfg[f'{split}_dataloader']
        loader.update(num_workers=0, persistent_workers=False, batch_size=2)
        for step in loader.dataset.pipeline:
            if step.type == 'Resize':
                step.scale = (128, 128)
    cfg.train_cfg.update(max_epochs=1, val_interval=1)
    return cfg


def train(cfg) -> Runner:
    """Train; all losses are finite and some are of the distiller."""
    # Names of runners must be new.
    cfg.experiment_name = f'{Path(cfg.work_dir).parent.name}_{cfg.resume}'
    runner = Runner.from_cfg(cfg)
    runner.train()
    scalars = runner.message_hub.log_scalars
    losses = {k: v for k, v in scalars.items() if 'distill.loss' in k}
    assert losses
    assert all(np.isfinite(x.data[0]).all() for x in losses.values())
    return runner


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['coco', 'voc'])
def test_own_data_trains_and_is_evaluated(kind, pets, tmp_path, monkeypatch):
    monkeypatch.chdir(pets)
    runner = train(read(f'own_{kind}_data', tmp_path))
    for loader, total in (
        (runner.train_dataloader, 12),
        (runner.val_dataloader, 6),
    ):
        dataset = loader.dataset
        assert dataset.metainfo['classes'] == PETS
        assert 0 < len(dataset) <= total
        labels = {
            x['bbox_label']
            for i in range(len(dataset))
            for x in dataset.get_data_info(i)['instances']
        }
        assert labels == {0, 1, 2}
    assert runner.iter == len(runner.train_dataloader) > 3
    metric = dict(coco='val/coco/bbox_mAP', voc='val/pascal_voc/mAP')[kind]
    assert metric in runner.message_hub.log_scalars
    [path] = Path(runner.work_dir).glob('epoch_1.pth')
    assert path.is_file()


@pytest.mark.slow
@pytest.mark.parametrize(
    ('name', 'losses'),
    [
        ('another_detector', {'cls_lsh', 'cls_relativel2'}),
        ('classification', {'pooled_lsh', 'pooled_relativel2'}),
        ('mixed_with_pkd', {'roi_lsh', 'roi_relativel2', 'fpn_pkd'}),
    ],
)
def test_an_example_trains(name, losses, shapes_root, tmp_path):
    assert_trains(name, losses, shapes_root, tmp_path)


def test_several_teachers_train(shapes_root, tmp_path):
    """The config on the page of several teachers."""
    page = (REPO / 'docs/several_teachers.md').read_text('utf-8')
    example = (FOLDER / 'several_teachers.py').read_text('utf-8')
    assert f'```python\n{example}```' in page
    losses = {'roi_lsh', 'roi_relativel2', 'neck_relativel2'}
    assert_trains('several_teachers', losses, shapes_root, tmp_path, 4)


def assert_trains(name, losses, shapes_root, tmp_path, images=None):
    cfg = read(name, tmp_path, shapes_root)
    cfg.train_dataloader.dataset.indices = images
    runner = train(cfg)
    found = [
        x.split('distill.loss_')[1]
        for x in runner.message_hub.log_scalars
        if 'distill.loss_' in x
    ]
    for loss in losses:
        assert any(x.startswith(loss) for x in found), found
    assert all(x.startswith(tuple(losses)) for x in found), found


@pytest.mark.slow
def test_resuming_goes_on(shapes_root, tmp_path):
    cfg = read('resuming', tmp_path, shapes_root)
    assert train(cfg).iter == 6  # from the beginning: there is nothing yet
    cfg.train_cfg.max_epochs = 2
    cfg.experiment_name = 'again'
    runner = Runner.from_cfg(cfg)
    steps = []
    runner.register_hook(Steps(steps))
    runner.train()
    assert steps == [6, 7, 8, 9, 10, 11]


class Steps(Hook):
    """Notes which steps were done."""

    def __init__(self, steps):
        self.steps = steps

    def after_train_iter(self, runner, *_args, **_kwargs):
        self.steps.append(runner.iter)


@pytest.mark.slow
@pytest.mark.parametrize('name', ['single_student', 'retinanet_student'])
def test_onnx_gives_the_same_numbers(name, tmp_path):
    """On three images of another number."""
    config = REPO / f'configs/shapes/{SHAPES[name]}.py'
    cfg = Config.fromfile(config)
    init_default_scope(cfg.default_scope)
    model = build_model('student', cfg)
    checkpoint, out = tmp_path / 'student.pth', tmp_path / 'student.onnx'
    torch.save({'state_dict': model.state_dict(), 'meta': {}}, checkpoint)
    answer = export_onnx(config, checkpoint, out)
    assert answer.returncode == 0, answer.stderr
    session = onnxruntime.InferenceSession(out)
    side = session.get_inputs()[0].shape[-1]
    image = torch.randn(3, 3, side, side)
    found = session.run(None, {'image': image.numpy()})
    with torch.no_grad():
        wanted = flat(model(image, mode='tensor'))
    for ours, theirs in zip(found, wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.slow
def test_onnx_refuses_rois(tmp_path):
    config = REPO / f'configs/shapes/{SHAPES["faster_rcnn_student"]}.py'
    answer = export_onnx(config, 'student.pth', tmp_path / 'student.onnx')
    assert answer.returncode == 1
    assert answer.stderr.splitlines()[-1].startswith('error: ')
    assert not list(tmp_path.iterdir())


def export_onnx(config, checkpoint, out) -> subprocess.CompletedProcess:
    tool = REPO / 'tools/export_onnx.py'
    return subprocess.run(
        [sys.executable, '-W', 'ignore', tool, config, checkpoint, '-o', out],
        capture_output=True,
        text=True,
    )


def flat(outputs) -> list[torch.Tensor]:
    if isinstance(outputs, torch.Tensor):
        return [outputs]
    return [x for part in outputs for x in flat(part)]
