"""Data of classifiers, and their metrics, against plain loops."""

import copy
import functools
import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.registry import DefaultScope
from mmpretrain.registry import DATASETS, MODELS
from mmpretrain.structures import DataSample

from lshfm_mm.datasets import shapes
from lshfm_mm.errors import ConfigError

REPO = Path(__file__).parent.parent
SPLITS = ('train', 'val')


@pytest.fixture(autouse=True)
def _mmpretrain():
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield


@functools.cache
def read(name):
    return Config.fromfile(REPO / f'configs/_base_/{name}.py')


def base(name):
    return copy.deepcopy(read(name))


def coco(root, ann_file, **kwargs):
    """Read with the entry of our config, at another place."""
    entry = base('coco14_multilabel').train_dataloader.dataset
    assert entry.type == 'CocoMultiLabel'
    entry.update(data_root=str(root), ann_file=ann_file, **kwargs)
    return DATASETS.build(entry)


def targets(dataset):
    return [
        (Path(info['img_path']).name, info['gt_label'])
        for info in (dataset.get_data_info(i) for i in range(len(dataset)))
    ]


@pytest.mark.parametrize('split', SPLITS)
def test_coco_targets_are_those_of_a_loop_over_the_json(shapes_root, split):
    content = json.loads(
        (shapes_root / f'annotations/{split}.json').read_text()
    )
    expected = []
    for image in content['images']:
        present = [False] * 6
        for item in content['annotations']:
            if item['image_id'] == image['id']:
                present[item['category_id'] - 1] = True
        labels = [label for label in range(6) if present[label]]
        expected.append((image['file_name'], labels))
    dataset = coco(
        shapes_root, f'annotations/{split}.json', data_prefix=f'{split}/'
    )
    assert targets(dataset) == expected
    assert dataset.metainfo['classes'] == shapes.CLASSES
    # The same as from the labels that the generator wrote.
    labels = json.loads(
        (shapes_root / f'annotations/{split}_labels.json').read_text()
    )
    assert expected == [
        (x['img_path'], x['gt_label']) for x in labels['data_list']
    ]
    batch = [dataset[index] for index in range(2)]
    assert batch[0]['inputs'].shape == (3, 448, 448)
    assert batch[1]['data_samples'].gt_label.tolist() == expected[1][1]


@pytest.fixture
def instances(tmp_path):
    """COCO's gaps in the ids, in disorder; a crowd; images without objects."""

    def item(number, image, category, crowd=0):
        return dict(
            id=number,
            image_id=image,
            category_id=category,
            bbox=[0, 0, 4, 4],
            area=16,
            iscrowd=crowd,
        )

    content = dict(
        images=[
            dict(id=x, file_name=f'{x}.jpg', width=8, height=8)
            for x in (70, 3, 42, 8, 9)
        ],
        annotations=[
            item(5, 8, 90),
            item(1, 3, 44, crowd=1),
            item(2, 70, 90),
            item(3, 70, 1),
            item(4, 70, 90),
            item(6, 8, 13, crowd=1),
            item(7, 8, 95),
        ],
        categories=[
            dict(id=44, name='bottle'),
            dict(id=1, name='person'),
            dict(id=90, name='toothbrush'),
            dict(id=13, name='stop sign'),
            *(dict(id=x, name=f'thing {x}') for x in (95, 94, 93, 92, 91)),
        ],
    )

    def write(**changes):
        path = tmp_path / 'instances.json'
        path.write_text(json.dumps({**content, **changes}))
        return path

    write.content = content
    return write


def test_crowds_count_and_images_without_annotations_do_not(instances):
    path = instances()
    dataset = coco(path.parent, path.name, data_prefix='images')
    assert dataset.metainfo['classes'] == (
        *('person', 'stop sign', 'bottle', 'toothbrush'),
        *('thing 91', 'thing 92', 'thing 93', 'thing 94', 'thing 95'),
    )
    expected = [('70.jpg', [0, 3]), ('3.jpg', [2]), ('8.jpg', [1, 3, 8])]
    assert targets(dataset) == expected
    folder = Path(dataset.get_data_info(0)['img_path']).parent
    assert folder == path.parent / 'images'
    assert dataset.get_cat_ids(2) == [1, 3, 8]
    # In the evaluation, too, unless they shall stay.
    dataset = coco(path.parent, path.name, test_mode=True)
    assert targets(dataset) == expected
    dataset = coco(
        path.parent, path.name, filter_cfg=dict(filter_empty_gt=False)
    )
    empty = [('42.jpg', []), ('9.jpg', [])]
    assert sorted(targets(dataset)) == sorted(expected + empty)
    # Another order of the classes is the user's right.
    classes = ('bottle', 'toothbrush', 'thing 95', 'stop sign', 'person')
    dataset = coco(path.parent, path.name, metainfo=dict(classes=classes))
    assert targets(dataset)[0] == ('70.jpg', [1, 4])
    assert dataset.metainfo['classes'] == classes


def test_errors_of_coco_are_one_line(instances):
    path = instances()

    def message(ann_file='instances.json', **kwargs):
        with pytest.raises(ConfigError) as error:
            coco(path.parent, ann_file, **kwargs)
        assert '\n' not in str(error.value)
        return str(error.value)

    assert message('gone.json') == (
        f'ann_file: no such file: {path.parent}/gone.json; set data_root'
    )
    assert message(metainfo=dict(classes=('bottle', 'person'))) == (
        f'ann_file: annotation 5 of {path} has the category 90, none of the '
        f'2 classes; mend the file or metainfo'
    )
    instances(categories=instances.content['categories'][:3])
    assert 'annotation 6 of ' in message()
    assert 'category 13, none of the 3 classes' in message()
    for key in ('annotations', 'images', 'categories'):
        content = {k: v for k, v in instances.content.items() if k != key}
        path.write_text(json.dumps(content))
        assert message().startswith(f'ann_file: {path} has no {key!r}; give ')
    instances(annotations=[])
    assert message() == (
        f'ann_file: {path} has 5 images and none with an annotation; give '
        f'another file'
    )


OBJECTS = {  # image -> name and difficult flag of its objects
    '000005': [('chair', 0), ('chair', 1), ('bottle', 0)],
    '000007': [('car', 1)],
    '000012': [('person', 1), ('aeroplane', 0), ('tvmonitor', 1)],
    '009949': [('tvmonitor', 0), ('tvmonitor', 0)],
}


@pytest.fixture
def voc_root(tmp_path):
    """A folder in the layout of VOC2007."""
    root = tmp_path / 'VOC2007'
    for folder in ('JPEGImages', 'Annotations', 'ImageSets/Main'):
        (root / folder).mkdir(parents=True)
    for name, objects in OBJECTS.items():
        xml = ''.join(
            f'<object><name>{kind}</name><difficult>{difficult}</difficult>'
            f'<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax>'
            f'<ymax>9</ymax></bndbox></object>'
            for kind, difficult in objects
        )
        (root / f'Annotations/{name}.xml').write_text(
            f'<annotation><filename>{name}.jpg</filename>{xml}</annotation>'
        )
        image = np.full((30, 40, 3), int(name) % 256, np.uint8)
        cv2.imwrite(str(root / f'JPEGImages/{name}.jpg'), image)
    names = list(OBJECTS)
    for split, part in (('trainval', names[:3]), ('test', names[1:])):
        path = root / f'ImageSets/Main/{split}.txt'
        path.write_text('\n'.join(part) + '\n')
    return root


@pytest.mark.parametrize('split', ['trainval', 'test'])
def test_voc_is_read_by_our_config(voc_root, split):
    cfg = base('voc07_multilabel')
    loader = (
        cfg.train_dataloader if split == 'trainval' else cfg.val_dataloader
    )
    loader.dataset.data_root = str(voc_root)
    dataset = DATASETS.build(loader.dataset)
    names = list(OBJECTS)[:3] if split == 'trainval' else list(OBJECTS)[1:]
    assert [Path(x).stem for x, _ in targets(dataset)] == names
    classes = list(dataset.metainfo['classes'])
    assert classes == sorted(classes)
    assert len(classes) == 20
    preprocessor = MODELS.build(
        dict(cfg.data_preprocessor, type='ClsDataPreprocessor')
    )
    items = [dataset[index] for index in range(len(names))]
    assert all(x['inputs'].shape == (3, 448, 448) for x in items)
    samples = preprocessor(
        dict(
            inputs=torch.stack([x['inputs'] for x in items]),
            data_samples=[x['data_samples'] for x in items],
        )
    )['data_samples']
    for name, sample in zip(names, samples, strict=True):
        flags = {0: set(), 1: set()}
        for kind, difficult in OBJECTS[name]:
            flags[difficult].add(classes.index(kind))
        # Difficult objects are no targets.
        assert set(sample.gt_label.tolist()) == flags[0]
        assert set(sample.gt_score.nonzero().flatten().tolist()) == flags[0]
        assert set(sample.gt_score.tolist()) <= {0, 1}
        if split == 'test':
            assert set(sample.gt_label_difficult) == flags[1]


def average_precision(scores, target):
    """Mean of the precision at the rank of each positive, in %."""
    found, total = 0, 0.0
    ranked = sorted(zip(scores, target, strict=True), key=lambda x: -x[0])
    for rank, (_, positive) in enumerate(ranked, start=1):
        if positive:
            found += 1
            total += found / rank
    return 100 * total / found if found else 0.0


def rates(predicted, target):
    """Precision, recall and F1 in %, 0 where they are undefined."""
    both = sum(p and t for p, t in zip(predicted, target, strict=True))
    precision = both / max(sum(predicted), 1)
    recall = both / max(sum(target), 1)
    both = precision + recall
    f1 = 2 * precision * recall / both if both else 0.0
    return [100 * x for x in (precision, recall, f1)]


def references(scores, target):
    """All metrics; ``target`` has 1, 0, and -1 for what does not count."""
    classes = [
        [(s, t) for s, t in zip(*pair, strict=True) if t >= 0]
        for pair in zip(scores.T.tolist(), target.T.tolist(), strict=True)
    ]
    names = ('precision', 'recall', 'f1-score')
    each = [
        rates([s >= 0.5 for s, _ in x], [t == 1 for _, t in x])
        for x in classes
    ]
    whole = [pair for x in classes for pair in x]
    micro = rates([s >= 0.5 for s, _ in whole], [t == 1 for _, t in whole])
    expected = {
        'mAP': np.mean(
            [average_precision(*zip(*x, strict=True)) for x in classes]
        )
    }
    for index, name in enumerate(names):
        expected[name] = np.mean([x[index] for x in each])
        expected[f'{name}_micro'] = micro[index]
    return {f'multi-label/{key}': value for key, value in expected.items()}


@pytest.mark.parametrize('with_scores', [False, True])
@pytest.mark.parametrize('name', ['voc07_multilabel', 'coco14_multilabel'])
def test_metrics_of_our_configs_are_those_of_loops(name, with_scores):
    cfg = base(name)
    number, classes = 90, cfg.data_preprocessor.num_classes
    rng = np.random.default_rng(0)
    scores = rng.permutation(number * classes) / (number * classes)
    scores = scores.reshape(number, classes).astype(np.float32)
    easy = rng.random((number, classes)) < 0.15
    easy[:, 2] = False  # a class without any object
    scores[:, 3] *= 0.4  # one that is never predicted
    difficult = rng.random((number, classes)) < 0.1
    voc = name.startswith('voc')
    samples = []
    for index in range(number):
        sample = DataSample().set_pred_score(scores[index])
        sample.set_gt_label(easy[index].nonzero()[0])
        if with_scores:  # as the data preprocessor makes them
            sample.set_gt_score(easy[index].astype(np.float32))
        if voc:
            sample.set_field(
                difficult[index].nonzero()[0].tolist(),
                'gt_label_difficult',
                field_type='metainfo',
            )
        samples.append(sample)
    evaluator = Evaluator(cfg.val_evaluator)
    evaluator.process(samples)
    found = evaluator.evaluate(number)
    # What is nothing but difficult in an image does not count there.
    ignored = difficult & ~easy if voc else np.zeros_like(easy)
    expected = references(scores, np.where(ignored, -1, easy))
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, rel=1e-5), key
    assert expected['multi-label/mAP'] > 5


@pytest.mark.parametrize('name', ['single', 'multi'])
@pytest.mark.parametrize('split', SPLITS)
def test_shapes_are_read_by_mmpretrain_alone(shapes_root, name, split):
    cfg = base(f'shapes_{name}')
    assert 'custom_imports' not in cfg
    entry = cfg[f'{split}_dataloader'].dataset
    assert entry.data_root == cfg.data_root
    entry.data_root = str(shapes_root)
    dataset = DATASETS.build(entry)
    assert type(dataset).__module__.startswith('mmpretrain.')
    assert dataset.metainfo['classes'] == list(shapes.CLASSES)
    assert cfg.data_preprocessor.num_classes == len(shapes.CLASSES)
    records = json.loads((shapes_root / entry.ann_file).read_text())
    found = [x['data_samples'].gt_label.tolist() for x in dataset]
    assert found == [
        np.atleast_1d(x['gt_label']).tolist() for x in records['data_list']
    ]


@pytest.mark.slow
def test_the_package_needs_no_mmpretrain():
    code = (
        'import sys; sys.modules["mmpretrain"] = None; import lshfm_mm; '
        'print("lshfm_mm.datasets.coco_multi_label" in sys.modules)'
    )
    answer = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', code],
        capture_output=True,
        text=True,
        cwd=REPO,
    )
    assert answer.stdout == 'False\n', answer.stderr
