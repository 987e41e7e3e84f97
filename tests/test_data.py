"""What of the users' data would not be used is said before a training."""

import json
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
import torch
from mmdet.datasets import (
    CocoDataset,
    Objects365V1Dataset,
    Objects365V2Dataset,
    VOCDataset,
)
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config
from PIL import Image

from lshfm_mm.datasets import coco_files, unused
from lshfm_mm.datasets.check_files import check_data
from lshfm_mm.datasets.image_sizes import SizeCheck, add_size_checks
from lshfm_mm.datasets.shapes.scene import CLASSES
from lshfm_mm.errors import ConfigError
from lshfm_mm.hooks import data_check_hook

from .processes import run_each
from .test_training import epochs, train

FIELD = 'train_dataloader.dataset.ann_file'
LOADERS = ('train_dataloader', 'val_dataloader')


@pytest.fixture
def said(monkeypatch):
    """What is warned of."""
    lines = []
    monkeypatch.setattr(
        unused, 'print_log', lambda x, *_, **__: lines.append(x)
    )
    return lines


@pytest.fixture(autouse=True)
def _nothing_is_kept(monkeypatch):
    monkeypatch.setattr(CocoDataset, 'COCOAPI', CocoDataset.COCOAPI)
    yield
    coco_files.kept.clear()


@pytest.fixture
def coco(shapes_root, tmp_path, monkeypatch):
    """Check a changed copy of the annotations of shapes, as the tool does."""
    monkeypatch.chdir(tmp_path)

    def make(change=lambda content: None, **dataset):
        text = (shapes_root / 'annotations/train.json').read_text()
        content = json.loads(text)
        change(content)
        (tmp_path / 'x.json').write_text(json.dumps(content))
        dataset = (
            dict(
                type='CocoDataset',
                ann_file='x.json',
                data_prefix=dict(img=f'{shapes_root}/train'),
                metainfo=dict(classes=CLASSES),
            )
            | dataset
        )
        cfg = Config(dict(train_dataloader=dict(dataset=dataset)))
        check_data(cfg, LOADERS)
        return DATASETS.build(dataset)

    return make


def each(key, value, start=0, stop=None, of='annotations'):
    """A change of some entries; of all by default."""

    def change(content):
        for entry in content[of][start:stop]:
            entry[key] = value(entry) if callable(value) else value

    return change


def first(number):
    return dict(start=0, stop=number)


OUTSIDE = 'box outside of its image or without extent'
UNUSED = [  # what is wrong of an annotation -> the reason, the first example
    ('area', 0, 'area is 0', '['),
    ('ignore', 1, 'ignore is 1', '['),
    ('iscrowd', 1, 'iscrowd is 1', '['),
    ('category_id', 77, 'category_id is not in the file', '77'),
    (
        'category_id',
        '2',
        'category_id is a str, those of the file are not',
        "'2'",
    ),
    ('image_id', 99, 'image_id is not in the file', '99'),
    ('image_id', '1', 'image_id is a str, those of the file are not', "'1'"),
    ('bbox', [70, 0, 9, 9], OUTSIDE, '[70, 0, 9, 9]'),
    ('bbox', [9, 9, 0, 9], OUTSIDE, '[9, 9, 0, 9]'),
    ('bbox', [9, 9, 0.5, 9], 'box below 1 pixel', '[9, 9, 0.5, 9]'),
]


def learnt(dataset):
    """Boxes that mmdet trains on."""
    return sum(
        not box['ignore_flag']
        for index in range(len(dataset))
        for box in dataset.get_data_info(index)['instances']
    )


@pytest.mark.parametrize(('key', 'value', 'reason', 'example'), UNUSED)
def test_boxes_that_mmdet_would_not_use_are_counted(
    key, value, reason, example, coco, said
):
    total = learnt(coco())
    assert not said and total > 20
    dataset = coco(each(key, value, **first(3)))
    assert total - learnt(dataset) == 3
    (line,) = said
    start = f'{FIELD}: 3 of the {total} boxes of x.json are not used: {reason}'
    assert line.startswith(f'{start} (3, first annotation 1: {example}')
    with pytest.raises(ConfigError) as error:
        coco(each(key, value))
    assert f'none of the {total} boxes of x.json is used: {reason} (' in str(
        error.value
    )


def test_reasons_are_told_together_and_the_counts_are_those_of_mmdet(
    coco, said
):
    total = learnt(coco())

    def change(content):
        for number, (key, value, *_) in enumerate(UNUSED):
            content['annotations'][number][key] = value

    assert learnt(coco(change)) == total - len(UNUSED)
    assert f'{len(UNUSED)} of the {total} boxes' in said[0]
    assert 'are not used: category_id' not in said[0]  # the most frequent
    assert said[0].index(f'{OUTSIDE} (2, ') < said[0].index('area is 0 (1, ')


def test_images_that_are_left_out_are_counted(coco, said):
    small = each('width', 30, **first(2), of='images')
    dataset = coco(small, filter_cfg=dict(min_size=32))
    assert len(dataset) == 10
    assert (
        '2 of the 12 images of x.json are not used: smaller than ' in said[-1]
    )
    with pytest.raises(ConfigError) as error:
        coco(filter_cfg=dict(filter_empty_gt=True, min_size=65))
    assert str(error.value) == (
        f'{FIELD}: none of the 12 images of x.json is used: smaller than '
        f"min_size 65 (12, first 1); mend the file, or the data set's "
        f"filter_cfg, {{'filter_empty_gt': True, 'min_size': 65}}"
    )


def test_a_choice_of_classes_is_counted(coco, said):
    coco(metainfo=dict(classes=CLASSES[:2]))
    assert 'category that metainfo.classes leaves out (' in said[0]


def test_ids_that_repeat(coco, said):
    with pytest.raises(ConfigError) as error:
        coco(each('id', 7, **first(3)))
    assert str(error.value) == (
        f'{FIELD}: 3 annotations of x.json repeat ids, first 7; number them '
        f'anew'
    )
    with pytest.raises(ConfigError, match='1 categories of x.json repeat ids'):
        coco(each('id', 2, **first(1), of='categories'))
    dataset = coco(each('id', 2, **first(2), of='images'))
    assert len(dataset) == 11
    assert '1 images of x.json repeat ids, first 2: the last of ' in said[0]


def test_two_categories_of_one_name(coco):
    """Roboflow's root category: no order of the classes helps."""

    def change(content):
        content['categories'].insert(0, dict(id=0, name='circle'))

    with pytest.raises(ConfigError) as error:
        coco(change)
    assert str(error.value) == (
        f"{FIELD}: x.json has the categories [0, 1] of one name, 'circle', "
        f'and mmdet makes a class of each; remove [0], unused'
    )
    coco(change, metainfo=dict(classes=CLASSES[1:]))


MASKS = [dict(type='LoadAnnotations', with_bbox=True, with_mask=True)]


def test_masks_need_polygons(coco, said):
    triangle = [[3, 3, 9, 3, 9, 9]]
    coco(each('segmentation', triangle), pipeline=MASKS)
    assert not said
    with pytest.raises(ConfigError) as error:
        coco(each('segmentation', [], **first(1)), pipeline=MASKS)
    assert str(error.value) == (
        f"{FIELD}: annotation 1 of x.json has no 'segmentation', and the "
        f'pipeline loads masks; add polygons, or set with_mask=False for a '
        f'model without a mask head'
    )
    rle = dict(size=[64, 64], counts='abc')
    coco(each('segmentation', triangle), pipeline=MASKS)
    change = each('segmentation', lambda x: rle if x['id'] < 3 else triangle)
    coco(change, pipeline=[dict(MASKS[0], poly2mask=False)])
    assert 'poly2mask=False, and RLE (2, first annotation 1: ' in said[-1]


def test_boxes_of_corners_are_told(coco, said):
    coco(each('bbox', lambda x: [*x['bbox'][:2], 60, 60]))
    assert (
        'reach out of their images; COCO writes [x, y, width, heig'
        in (said[0])
    )


@pytest.mark.parametrize('lacks', [False, True])
def test_images_without_labels_are_welcome(lacks, coco, said):
    def change(content):
        content['annotations'] = []
        if lacks:
            del content['annotations']
            content['categories'] = []

    assert len(coco(change)) == 12
    assert said == [
        f'{FIELD}: x.json has no annotations: all of its images are background'
    ]


@pytest.mark.parametrize(
    'kind', [CocoDataset, Objects365V1Dataset, Objects365V2Dataset]
)
def test_a_file_is_read_once_for_the_check_and_for_mmdet(
    kind, coco, monkeypatch, tmp_path
):
    monkeypatch.setattr(kind, 'COCOAPI', kind.COCOAPI)
    reads = []
    load = json.load
    monkeypatch.setattr(json, 'load', lambda x: reads.append(x) or load(x))
    settings = dict(filter_empty_gt=True, min_size=32)
    dataset = coco(type=kind.__name__, filter_cfg=settings)
    assert len(dataset) == 12 and reads == []  # pycocotools has not read it
    assert coco_files.kept == {}  # nor is it held
    infos = [dataset.get_data_info(i) for i in range(12)]
    again = kind(
        ann_file='x.json',
        data_prefix=dict(img=dataset.data_prefix['img']),
        metainfo=dict(classes=CLASSES),
        filter_cfg=settings,
    )
    assert len(reads) == 1
    assert infos == [again.get_data_info(i) for i in range(12)]


class Lists:
    """VOC's layout, from shapes."""

    def __init__(self, shapes_root, folder):
        text = (shapes_root / 'annotations/train.json').read_text()
        content = json.loads(text)
        for name in ('Annotations', 'JPEGImages'):
            (folder / 'VOC' / name).mkdir(parents=True)
        self.files = {}
        for image in content['images']:
            name = image['file_name'].partition('.')[0]
            root = ElementTree.Element('annotation')
            size = ElementTree.SubElement(root, 'size')
            for key in ('width', 'height'):
                ElementTree.SubElement(size, key).text = str(image[key])
            for entry in content['annotations']:
                if entry['image_id'] != image['id']:
                    continue
                x, y, w, h = map(int, entry['bbox'])
                box = dict(xmin=x + 1, ymin=y + 1, xmax=x + w, ymax=y + h)
                part = ElementTree.SubElement(root, 'object')
                label = CLASSES[entry['category_id'] - 1]
                ElementTree.SubElement(part, 'name').text = label
                part = ElementTree.SubElement(part, 'bndbox')
                for key, value in box.items():
                    ElementTree.SubElement(part, key).text = str(value)
            self.files[name] = root
            image = cv2.imread(str(shapes_root / 'train' / f'{name}.png'))
            cv2.imwrite(str(folder / f'VOC/JPEGImages/{name}.jpg'), image)
        self.folder = folder

    def write(self):
        (self.folder / 'train.txt').write_text('\n'.join(self.files) + '\n')
        for name, root in self.files.items():
            path = self.folder / f'VOC/Annotations/{name}.xml'
            ElementTree.ElementTree(root).write(path)

    def check(self, written=False, **dataset):
        written or self.write()
        dataset = (
            dict(
                type='VOCDataset',
                data_root=str(self.folder),
                ann_file='train.txt',
                data_prefix=dict(sub_data_root='VOC/'),
                metainfo=dict(classes=CLASSES),
            )
            | dataset
        )
        cfg = Config(dict(train_dataloader=dict(dataset=dataset)))
        check_data(cfg, LOADERS)
        return DATASETS.build(dataset)


@pytest.fixture
def voc(shapes_root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Lists(shapes_root, tmp_path)


def test_objects_that_mmdet_would_not_use_are_counted(voc, said):
    total = learnt(voc.check())
    assert not said
    boxes = [x for root in voc.files.values() for x in root.iter('object')]
    assert len(boxes) == total
    ElementTree.SubElement(boxes[0], 'difficult').text = '1'
    circles = [x for x in boxes if x.findtext('name') == 'circle']
    for box in circles:
        box.find('name').text = 'Circle'
    assert learnt(voc.check()) == total - 1 - len(circles)
    assert (
        f"no class 'Circle'; did you mean 'circle'? ({len(circles)}, "
        in (said[0])
    )
    assert 'difficult is 1 (1, first 000000.xml)' in said[0]
    voc.check(filter_cfg=dict(bbox_min_size=20))
    assert 'smaller than bbox_min_size 20' in said[-1]


def test_a_set_in_another_case_is_no_set(voc):
    """mmdet: need at least one array to concatenate."""
    for root in voc.files.values():
        for box in root.iter('name'):
            box.text = box.text.title()
    with pytest.raises(ConfigError) as error:
        voc.check(filter_cfg=dict(filter_empty_gt=True))
    message = str(error.value)
    assert 'none of the 36 boxes of ' in message
    assert "no class 'Circle'; did you mean 'circle'? (4, first " in message
    with pytest.raises(ConfigError, match='none of the 12 images of .* is us'):
        for root in voc.files.values():
            for box in root.findall('object'):
                root.remove(box)
        voc.check(filter_cfg=dict(filter_empty_gt=True))
    assert len(voc.check()) == 12  # background is welcome


@pytest.mark.parametrize(
    ('spoil', 'message'),
    [
        (
            lambda x: next(x.iter('bndbox')).remove(next(x.iter('xmin'))),
            'an object of 000000.xml has no bndbox of 4 numbers',
        ),
        (
            lambda x: setattr(next(x.iter('xmax')), 'text', '0'),
            'an object of 000000.xml has no bndbox of 4 numbers',
        ),
    ],
)
def test_boxes_of_xml_that_are_none(spoil, message, voc):
    spoil(voc.files['000000'])
    with pytest.raises(ConfigError, match=message):
        voc.check()


def test_files_of_a_list_that_are_absent(voc):
    voc.check()
    path = voc.folder / 'VOC/JPEGImages/000003.jpg'
    path.unlink()
    with pytest.raises(ConfigError, match=f"names '000003', .* no {path}; ad"):
        voc.check()
    path.write_bytes(b'')
    xml = voc.folder / 'VOC/Annotations/000003.xml'
    xml.write_text('<annotation>')
    with pytest.raises(ConfigError, match=f'{xml} is no whole XML file'):
        voc.check(written=True)
    voc.files = {'000000 -1': voc.files['000000']}  # VOC's lists of one class
    with pytest.raises(ConfigError, match="names '000000 -1', but there is "):
        voc.check()


@pytest.fixture
def ready(make_config, tmp_path, monkeypatch):
    """A config of shapes whose annotations are changed."""
    monkeypatch.chdir(tmp_path)

    def make(change, *splits, name='faster_rcnn_student', **overrides):
        cfg = make_config(name, {**epochs(1), **overrides})
        for split in splits:
            part = cfg[f'{split}_dataloader'].dataset
            path = f'{part.data_root}/{part.ann_file}'
            content = json.loads(Path(path).read_text())
            change(content)
            part.ann_file = str(tmp_path / f'{split}.json')
            Path(part.ann_file).write_text(json.dumps(content))
            if split == 'val':
                cfg.val_evaluator.ann_file = part.ann_file
        return cfg

    return make


def error_of(cfg):
    with pytest.raises(ConfigError) as error:
        check_data(cfg, LOADERS)
    return str(error.value)


def test_an_evaluation_that_would_fail_is_refused(ready, tmp_path):
    """pycocotools: KeyError 'iscrowd', after the first epoch."""

    def lacks(content):
        del content['annotations'][2]['iscrowd']

    check_data(ready(lacks, 'train'), LOADERS)  # there it is nothing
    assert error_of(ready(lacks, 'val')) == (
        f'val_evaluator.ann_file: annotation 3 of {tmp_path}/val.json has no '
        f"['iscrowd'], which COCO evaluates by; add iscrowd, 0 for a single "
        f'object'
    )
    assert error_of(ready(each('id', 'a', **first(1)), 'val')) == (
        f"val_evaluator.ann_file: annotation 'a' of {tmp_path}/val.json: "
        f'pycocotools counts only ids of 1, 2, ...; number them so'
    )
    ready(lacks, 'val', val_evaluator=dict(ann_file=None))
    cfg = ready(lambda x: x['annotations'][0].pop('segmentation'), 'val')
    check_data(cfg, LOADERS)
    cfg.val_evaluator.metric = ['bbox', 'segm']
    message = error_of(cfg)
    assert f"1 of {tmp_path}/val.json has no ['segmentation'], " in message
    assert message.endswith("; add masks, or set metric='bbox'")


def test_an_evaluation_on_other_images_is_refused(ready, said):
    """The ids are there, but of other images: AP 0."""
    cfg = ready(None)
    cfg.val_dataloader.dataset.update(
        ann_file='annotations/train.json', data_prefix=dict(img='train/')
    )
    message = error_of(cfg)
    assert message.startswith('val_evaluator.ann_file: image 7 is None in ')
    cfg = ready(
        each('file_name', '000001.png', **first(1), of='images'), 'val'
    )
    cfg.val_evaluator.ann_file = make_file(cfg, 'annotations/val.json')
    check_data(cfg, LOADERS)
    (message,) = said
    assert 'image 1 is 000000.png in ' in message
    assert message.endswith(
        'val_dataloader.dataset.ann_file; name one file in both'
    )


def make_file(cfg, name):
    return f'{cfg.val_dataloader.dataset.data_root}/{name}'


def test_splits_that_number_their_classes_otherwise(ready):
    """Each file's own order was what the error line asked for."""

    def swap(content):
        content['categories'].reverse()

    cfg = ready(swap, 'val')
    cfg.val_dataloader.dataset.metainfo.classes = CLASSES[::-1]
    assert error_of(cfg).startswith(
        "val_dataloader.dataset: its class 0 is 'ring', that of "
        "train_dataloader.dataset is 'circle'; both must "
    )


WRAPPERS = [
    lambda x: dict(type='RepeatDataset', times=2, dataset=x),
    lambda x: dict(type='ConcatDataset', datasets=[x, x]),
    lambda x: dict(type='ClassBalancedDataset', oversample_thr=0.1, dataset=x),
    lambda x: dict(
        type='MultiImageMixDataset',
        dataset=dict(x, pipeline=x['pipeline'][:2]),
        pipeline=x['pipeline'][2:],
    ),
]


def wrong_sizes(content):
    content['annotations'][0]['area'] = 0
    for image in content['images'][:2]:
        image['width'] = 65
    content['images'][2].update(width=80, height=70)


@pytest.mark.parametrize('wrap', WRAPPERS)
def test_wrapped_data_is_looked_at_and_compared(wrap, ready, said):
    cfg = ready(wrong_sizes, 'train')
    loader = cfg.train_dataloader
    loader.dataset = wrap(loader.dataset.to_dict())
    check_data(cfg, LOADERS)
    parts = len(loader.dataset.get('datasets', [0]))
    assert len(said) == parts
    assert all('1 of the 36 boxes of ' in x for x in said)
    assert 'train.json are not used: area is 0 (1, first ' in said[0]
    dataset = DATASETS.build(loader.dataset)
    checks = add_size_checks(dataset)
    assert len(checks) == parts
    assert len([dataset[i] for i in range(len(dataset))]) >= 12
    assert all(x.count == 3 for x in checks)  # images, however often loaded


def test_images_of_another_size_are_told_in_the_first_epoch(ready, said):
    """In a worker; at once, and how many after the epoch."""
    cfg = ready(wrong_sizes, 'train', **epochs(2))
    cfg.custom_hooks = [dict(type='DataCheckHook')]
    cfg.train_dataloader.update(num_workers=1, persistent_workers=True)
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    train(cfg)
    first_line, last_line = said
    assert first_line.startswith('train_dataloader: so far ')
    assert last_line.startswith('train_dataloader: so far 3 images have anot')
    assert 'there, 64 x 64 in the file; boxes' in last_line


@pytest.mark.parametrize('file', ['', 'init_cfg', 'load_from'])
def test_a_plain_model_whose_frozen_weights_are_random(file, ready, said):
    """A warning, unless a file gave them."""
    cfg = ready(lambda x: None, 'train')
    cfg.model.backbone.frozen_stages = 1
    state = MODELS.build(cfg.model).state_dict()
    torch.save({k: torch.rand(v.shape) for k, v in state.items()}, 'all.pth')
    if file == 'init_cfg':
        cfg.model.backbone.init_cfg = dict(
            type='Pretrained', checkpoint='all.pth', prefix='backbone.'
        )
    elif file:
        cfg.load_from = 'all.pth'
    cfg.custom_hooks = [dict(type='DataCheckHook')]
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    train(cfg)
    told = [x for x in said if 'start at random and are frozen' in x]
    assert len(told) == (not file)
    assert all('backbone.conv1.weight' in x for x in told)


def test_images_that_exif_turns_are_told(ready, said, tmp_path):
    cfg = ready(lambda x: None)
    pixels = np.zeros((40, 64, 3), np.uint8)
    image = Image.fromarray(pixels)
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / 'a.jpg', exif=exif)
    (tmp_path / 'x.json').write_text(
        json.dumps(
            dict(
                images=[dict(id=1, file_name='a.jpg', width=64, height=40)],
                annotations=[],
                categories=[],
            )
        )
    )
    part = cfg.train_dataloader.dataset
    part.update(
        ann_file=str(tmp_path / 'x.json'),
        data_prefix=dict(img=f'{tmp_path}/'),
        filter_cfg=None,
    )
    dataset = DATASETS.build(part)
    (check,) = add_size_checks(dataset)
    assert not check.is_new
    for _ in range(2):
        dataset[0]
    assert check.count == 1
    assert check.tell() == (
        f'train_dataloader: so far 1 image has another size than their '
        f'annotations say, first {tmp_path}/a.jpg: 64 x 40 there, 40 x 64 in '
        f'the file, turned by EXIF?; boxes are of one of them'
    )


def test_a_head_with_another_number_of_classes(ready, said):
    def run(number, **changes):
        cfg = ready(None)
        cfg.custom_hooks = [dict(type='DataCheckHook')]
        cfg.model.roi_head.bbox_head.num_classes = number
        cfg.train_cfg.val_interval = 9
        cfg.merge_from_dict(changes)
        train(cfg)

    with pytest.raises(ConfigError) as error:
        run(5)
    assert str(error.value) == (
        'model.roi_head.bbox_head.num_classes: is 5, and the data have 6 '
        'classes; both must be the same'
    )
    with pytest.raises(ConfigError, match='is 7, and the data have 6 classes'):
        run(7)  # mmdet's first evaluation: list index out of range
    run(7, val_cfg=None, val_dataloader=None, val_evaluator=None)
    assert any('is 7, and the data have 6 classes; an ev' in x for x in said)
    said.clear()
    run(6)
    assert not any('num_classes' in x for x in said)


def folders(root, **classes):
    for split, names in classes.items():
        for name in names.split():
            (root / split / name).mkdir(parents=True, exist_ok=True)
            (root / split / name / '1.jpg').write_bytes(b'')


def classifier(root, kind='CustomDataset', **changes):
    loaders = {
        f'{split}_dataloader': dict(
            dataset=dict(
                type=kind, data_root=str(root), data_prefix=split, **changes
            )
        )
        for split in ('train', 'val')
    }
    return Config(dict(loaders, default_scope='mmpretrain'))


@pytest.mark.parametrize('kind', ['CustomDataset', 'ImageNet'])
def test_folders_that_number_their_classes_otherwise(kind, tmp_path, said):
    """A class that val has no image of, and all labels after it shift."""
    folders(tmp_path, train='dress hat pants', val='dress pants')
    check_data(classifier(tmp_path, kind), LOADERS)
    assert said == [
        "val_dataloader.dataset: its class 1 is 'pants', that of "
        "train_dataloader.dataset is 'hat'; both must have the same classes "
        'in the same order (in files: of the categories or folders)'
    ]
    check_data(classifier(tmp_path, kind, with_label=False), LOADERS)
    folders(tmp_path, val='hat')
    check_data(classifier(tmp_path, kind), LOADERS)
    folders(tmp_path, train='socks')  # val has the first of them
    check_data(classifier(tmp_path, kind), LOADERS)
    assert len(said) == 1


def test_labels_in_a_list_are_looked_at(tmp_path):
    folders(tmp_path, train='dress hat', val='dress hat')
    lines = tmp_path / 'x.txt'
    part = dict(ann_file='x.txt', classes=['dress', 'hat'])
    lines.write_text('dress/1.jpg 0\nhat/1.jpg 1\n')
    check_data(classifier(tmp_path, **part), LOADERS)
    for label in ('2', '-1', 'hat'):
        lines.write_text(f'dress/1.jpg 0\nhat/1.jpg {label}\n')
        assert (
            f'gives hat/1.jpg the label {label!r}; write the number of '
            in (error_of(classifier(tmp_path, **part)))
        )
    lines.write_text('hat/2.jpg 0')
    assert 'names the image hat/2.jpg, which' in error_of(
        classifier(tmp_path, **part)
    )
    content = dict(
        metainfo=dict(classes=['dress', 'hat']),
        data_list=[dict(img_path='hat/1.jpg', gt_label=[0, 2])],
    )
    (tmp_path / 'x.json').write_text(json.dumps(content))
    cfg = classifier(tmp_path, 'MultiLabelDataset', ann_file='x.json')
    assert 'gives hat/1.jpg the label 2; write the number of a class, 0' in (
        error_of(cfg)
    )


@pytest.mark.parametrize('learns', [True, False])
def test_images_without_labels_are_trained_on(learns, ready, said):
    """Background, or nothing but mimicking; also beside labelled ones."""

    def change(content):
        content.update(annotations=[], categories=[])

    cfg = ready(change, 'train', name='faster_rcnn_recommended', **epochs(1))
    cfg.model.inherit = False
    cfg.custom_hooks = [
        dict(type='DataCheckHook'),
        dict(type='FirstBatchAuditHook'),
    ]
    if not learns:
        cfg.model.update(
            calculate_student_loss=False, student_trainable=['neck']
        )
        cfg.model.distiller.active = ['fpn']
    part = cfg.train_dataloader.dataset
    part.filter_cfg = None
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    check_data(cfg, LOADERS)
    assert len(said) == 1 and 'all of its images are background' in said[0]
    train(cfg)


def test_images_of_lvis_have_urls_and_no_names(coco, tmp_path):
    def change(content):
        for image in content['images']:
            image['coco_url'] = f'http://x/train/{image.pop("file_name")}'

    text = dict(type='LVISV1Dataset', ann_file='x.json', data_prefix=dict())
    with pytest.raises(ConfigError, match="images without .'file_name'"):
        coco(change)
    cfg = Config(dict(train_dataloader=dict(dataset=text)))
    check_data(cfg, LOADERS)


def test_annotation_0_is_no_error(ready, said):
    check_data(ready(each('id', 0, **first(1)), 'val'), LOADERS)
    assert 'annotation 0 of ' in said[0] and 'counts as missed' in said[0]


def test_other_metrics_are_not_looked_at(ready):
    def lacks(content):
        del content['annotations'][2]['iscrowd']

    cfg = ready(lacks, 'val')
    cfg.val_evaluator.type = 'LVISMetric'
    check_data(cfg, LOADERS)


def test_a_metric_of_coco_on_other_files(ready, voc):
    voc.write()
    cfg = ready(None)
    cfg.val_dataloader.dataset = dict(
        type='VOCDataset',
        data_root=str(voc.folder),
        ann_file='train.txt',
        data_prefix=dict(sub_data_root='VOC/'),
        metainfo=dict(classes=CLASSES),
    )
    check_data(cfg, LOADERS)


def test_classes_of_xml_in_a_file(voc, said):
    Path('classes.txt').write_text('\n'.join(CLASSES))
    voc.check(metainfo=dict(classes='classes.txt'))
    assert not said
    with pytest.raises(ConfigError, match='must be a tuple of names, but g'):
        voc.check(metainfo=dict(classes='circle'))


def test_lists_of_an_own_class_are_not_looked_at(tmp_path):
    from mmpretrain.datasets import CustomDataset

    class Own(CustomDataset):
        def load_data_list(self):
            return []

    folders(tmp_path, train='dress hat', val='hat')
    (tmp_path / 'x.txt').write_text('a,0\n')
    part = dict(ann_file='x.txt', classes=['dress', 'hat'])
    check_data(classifier(tmp_path, Own, **part), LOADERS)
    check_data(classifier(tmp_path, Own), LOADERS)


@pytest.mark.parametrize('filters', [False, True])
def test_files_of_hard_negatives(filters, coco, voc, said):
    """Boxes of other classes alone: background, if it is not left out."""

    def change(content):
        content['categories'].append(dict(id=7, name='cat'))
        each('category_id', 7)(content)

    def run():
        settings = dict(filter_empty_gt=filters)
        for root in voc.files.values():
            for box in root.iter('name'):
                box.text = 'cat'
        return (
            lambda: coco(change, filter_cfg=settings),
            lambda: voc.check(filter_cfg=settings),
        )

    for check in run():
        if filters:
            with pytest.raises(ConfigError, match='none of the 36 boxes of '):
                check()
        else:
            assert len(check()) == 12
            assert '36 of the 36 boxes of ' in said[-1]


def test_only_training_and_evaluation_are_compared(ready, said):
    def swap(content):
        content['categories'].reverse()

    cfg = ready(swap, 'train')
    data = cfg.train_dataloader.dataset.to_dict()
    data['metainfo']['classes'] = CLASSES[::-1]
    cfg.train_dataloader.dataset = dict(
        type='ConcatDataset', datasets=[data], ignore_keys=['classes']
    )
    check_data(cfg, LOADERS)
    cfg.train_dataloader.dataset.ignore_keys = None
    assert "its class 0 is 'circle', that of " in error_of(cfg)
    val = cfg.val_dataloader.dataset
    cfg.val_evaluator = []
    parts = [val, dict(val, metainfo=dict(classes=CLASSES[:1]))]
    cfg.val_dataloader.dataset = dict(type='ConcatDataset', datasets=parts)
    cfg.train_dataloader.dataset = val
    check_data(cfg, LOADERS)
    assert not said


def test_sizes_that_cannot_be_compared():
    check = SizeCheck(range(3))
    turned = dict(height=3, width=4, ori_shape=(4, 3))
    check(dict(height=3, width=4, sample_idx=0))
    check(dict(turned, height='3', width='4', sample_idx=0))
    check(turned)  # of no known image
    assert not check.count
    check(dict(turned, sample_idx=2))
    assert check.sizes.tolist() == [[0, 0], [0, 0], [4, 3]]


def test_a_pretrained_file_that_gives_a_plain_model_nothing(ready, tmp_path):
    """MMEngine warns in the middle of its log, and trains from scratch."""
    cfg = ready(None)
    cfg.custom_hooks = [dict(type='DataCheckHook')]
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    weights = MODELS.build(cfg.model).state_dict()
    file = str(tmp_path / 'whole.pth')
    torch.save({'state_dict': weights}, file)
    init = dict(type='Pretrained', checkpoint=file)
    cfg.model.backbone.init_cfg = init
    with pytest.raises(ConfigError) as error:
        train(cfg)
    assert str(error.value).startswith(
        f'model.backbone.init_cfg: {file} gave 0 of its 20 weights, which '
        f"would start from scratch; add prefix='backbone.' to this init_cfg"
    )
    cfg.load_from = file  # then its init counts for nothing
    train(cfg)
    cfg.load_from = None
    cfg.model.backbone.init_cfg = dict(init, prefix='backbone.')
    train(cfg)


def test_a_teacher_of_mmrazor_has_another_checkpoint_than_its_init(
    ready, tmp_path
):
    """The latter is no fault: the checkpoint comes after it."""
    cfg = ready(None)
    cfg.custom_hooks = [dict(type='DataCheckHook')]
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    student = dict(cfg.model.to_dict(), _scope_='mmdet')
    files = [str(tmp_path / f'{x}.pth') for x in 'ab']
    for file in files:
        torch.save({'state_dict': MODELS.build(cfg.model).state_dict()}, file)
    init = dict(type='Pretrained', checkpoint=files[0], prefix='backbone.')
    backbone = dict(student['backbone'], init_cfg=init)
    recorder = dict(type='ModuleOutputs', source='neck.fpn_convs.0.conv')
    sides = {'s_feature': True, 't_feature': False}
    cfg.model = dict(
        _scope_='mmrazor',
        type='SingleTeacherDistill',
        architecture=student,
        teacher=dict(student, backbone=backbone),
        teacher_ckpt=files[1],
        distiller=dict(
            type='ConfigurableDistiller',
            student_recorders=dict(map=recorder),
            teacher_recorders=dict(map=recorder),
            distill_losses=dict(loss_map=dict(type='L2Loss')),
            loss_forward_mappings=dict(
                loss_map={
                    name: dict(from_student=of_student, recorder='map')
                    for name, of_student in sides.items()
                }
            ),
        ),
    )
    train(cfg)


class Four(list):
    """A data set that says a size of each image."""

    def get_data_info(self, index):
        return dict(height=3, width=4, img_path=f'{index}.jpg')


def find_in(rank, meeting, found):
    """A process that loads images of another size, or none."""
    torch.distributed.init_process_group(
        'gloo', meeting, rank=rank, world_size=2
    )
    lines = []
    data_check_hook.warn = lines.append
    check = SizeCheck(Four('0123'))
    for index in found[rank]:
        check(dict(height=3, width=4, ori_shape=(4, 3), sample_idx=index))
    hook = data_check_hook.DataCheckHook()
    hook.checks = [check]
    hook.after_train_iter(None)
    hook.after_train_epoch(None)
    total = sorted({*found[0], *found[1]})
    assert check.sizes.any(1).nonzero().flatten().tolist() == total
    assert f' so far {len(total)} image' in lines[-1]  # of the first, too
    assert f'first {total[0]}.jpg: 4 x 3 there, 3 x 4 in' in lines[-1]


@pytest.mark.parametrize('found', [([], [2]), ([1], [0, 1])])
def test_sizes_that_two_processes_find(tmp_path, found):
    args = (tmp_path / 'meeting').as_uri(), found
    run_each(*((find_in, rank, *args) for rank in range(2)), timeout=60)


def test_data_that_are_elsewhere(coco, voc, tmp_path):
    def rename(content):
        content['images'][2]['file_name'] = '12.png'

    petrel = dict(backend='petrel')
    part = dict(type='CocoDataset', ann_file='no.json', backend_args=petrel)
    check_data(Config(dict(train_dataloader=dict(dataset=part))), LOADERS)
    loads = [dict(type='LoadImageFromFile', backend_args=petrel)]
    with pytest.raises(ConfigError, match='names the image 12.png'):
        coco(rename)
    part = dict(
        type='CocoDataset',
        ann_file='x.json',
        data_prefix=dict(img=str(tmp_path)),
        metainfo=dict(classes=CLASSES),
        pipeline=loads,
    )
    check_data(Config(dict(train_dataloader=dict(dataset=part))), LOADERS)
    voc.write()
    part = dict(
        type='VOCDataset',
        ann_file=str(tmp_path / 'train.txt'),
        data_prefix=dict(sub_data_root='s3://VOC/'),
        metainfo=dict(classes=CLASSES),
    )
    check_data(Config(dict(train_dataloader=dict(dataset=part))), LOADERS)
    cfg = classifier('s3://x')
    check_data(cfg, LOADERS)


def test_classes_that_take_more_than_cocos(coco, shapes_root):
    class Own(CocoDataset):
        ANN_ID_UNIQUE = False

        def __init__(self, **settings):
            folder = dict(img=f'{shapes_root}/train')
            super().__init__(data_prefix=folder, **settings)

    with pytest.raises(ConfigError, match='repeat ids'):
        coco(each('id', 7, **first(3)))

    def change(content):
        each('id', 7, **first(3))(content)
        each('file_name', f'{shapes_root}/train/000000.png', of='images')(
            content
        )

    part = dict(type=Own, ann_file='x.json', metainfo=dict(classes=CLASSES))
    with pytest.raises(ConfigError):
        coco(change)  # writes the file
    check_data(Config(dict(train_dataloader=dict(dataset=part))), LOADERS)


def test_odd_entries_that_mmdet_leaves_out(coco, said, tmp_path):
    total = learnt(coco())
    nan = float('nan')

    def change(content):
        content['annotations'][0].update(
            category_id=6, bbox=[nan, 0, 9, 9], area=nan
        )

    coco(change, metainfo=dict(classes=CLASSES[:5]))
    assert 'metainfo.classes leaves out (' in said[-1]
    dataset = coco(each('bbox', [30, 4, -5, 9], **first(1)))
    assert learnt(dataset) == total - 1
    assert f'{OUTSIDE} (1, first annotation 1: [30, 4, -5, 9])' in said[-1]
    folders(tmp_path, train='hat', val='hat')
    content = dict(
        metainfo=dict(classes=['hat']),
        data_list=[dict(img_path='hat/1.jpg', gt_label=-1)],
    )
    (tmp_path / 'y.json').write_text(json.dumps(content))
    cfg = classifier(tmp_path, 'MultiLabelDataset', ann_file='y.json')
    check_data(cfg, LOADERS)


def test_odd_files_get_one_line(coco):
    with pytest.raises(ConfigError, match='x.json has null for its annot'):
        coco(lambda x: x.update(annotations=None))
    flat = each('segmentation', [3, 3, 9, 3, 9, 9], **first(1))
    with pytest.raises(ConfigError, match='has the segmentation .3, 3, 9, '):
        coco(flat, pipeline=MASKS)


@pytest.mark.parametrize('text', ['', '64.0'])
def test_odd_numbers_of_xml_get_one_line(text, voc):
    part = voc.files['000000'].find('size/width')
    part.text = text
    with pytest.raises(ConfigError, match='the size of 000000.xml is no who'):
        voc.check()
    part.text = '64'
    box = next(voc.files['000000'].iter('object'))
    ElementTree.SubElement(box, 'difficult').text = text
    with pytest.raises(ConfigError, match='or a difficult that is none'):
        voc.check()


def test_xml_that_an_own_class_parses(voc):
    class Own(VOCDataset):
        def parse_data_info(self, info):
            return info

    voc.files['000000'].find('size/width').text = '64.0'
    voc.check(type=Own, lazy_init=True)
