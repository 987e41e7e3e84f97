"""The generated shapes, against what can be known without the generator."""

import json
import math
import runpy
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from lshfm_mm.datasets.shapes import forms, scene, write
from lshfm_mm.datasets.shapes.layers import CLUTTER, OBJECT_SHARE, is_clear
from lshfm_mm.errors import ConfigError

# pycocotools reads its own lists in a way that NumPy has deprecated.
pytestmark = pytest.mark.filterwarnings(
    'ignore:__array__ implementation:DeprecationWarning'
)
REPO = Path(__file__).parent.parent
SET = dict(num_train=16, num_val=8, size=96, seed=3)
SPLITS = ('train', 'val')


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp('data') / 'shapes'
    write.generate(folder, **SET)
    return folder


def read(root, name):
    return json.loads((root / f'annotations/{name}.json').read_text())


def contents(root):
    """Every file below a folder and its bytes."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob('*')
        if path.is_file()
    }


def polygon(*corners):
    return np.array([[math.cos(a) * r, math.sin(a) * r] for r, a in corners])


@pytest.mark.parametrize('detail', [0.0, 0.5, 1.0])
@pytest.mark.parametrize('name', forms.CLASSES)
def test_shapes_are_those_that_opencv_fills(name, detail):
    scale, side = 200, 501
    line = ((np.arange(side) - side // 2) / scale).astype(np.float32)
    v, u = np.meshgrid(line, line, indexing='ij')
    mask = forms.shape_mask(forms.CLASSES.index(name), u, v, detail)

    drawn = np.zeros((side, side), np.uint8)
    centre = (side // 2, side // 2)
    tenth = math.pi / 5
    notch, arm = 0.62 - 0.14 * detail, 0.38 - 0.12 * detail
    corners = {
        'square': polygon(
            *(
                (0.84 * math.sqrt(2), math.pi * (k / 2 + 0.25))
                for k in range(4)
            )
        ),
        'triangle': polygon(
            *((1.16, math.pi * (2 * k / 3 - 0.5)) for k in range(3))
        ),
        'star': polygon(
            *((notch if k % 2 else 1.12, k * tenth) for k in range(10))
        ),
        'cross': np.array(
            [
                [x, y]
                for sx, sy in ((1, 1), (-1, 1), (-1, -1), (1, -1))
                for x, y in (
                    [(0.98, arm), (arm, arm), (arm, 0.98)][:: sx * sy]
                )
                for x, y in [(sx * x, sy * y)]
            ]
        ),
    }
    if name == 'circle':
        cv2.circle(drawn, centre, round(0.95 * scale), 1, -1)
    elif name == 'ring':
        cv2.circle(drawn, centre, round(0.97 * scale), 1, -1)
        hole = 0.36 + 0.3 * detail
        cv2.circle(drawn, centre, round(hole * scale), 0, -1)
    else:
        points = np.rint(corners[name] * scale + side // 2).astype(np.int32)
        cv2.fillPoly(drawn, [points], 1)

    # They may differ by the pixels on the edge.
    edge = cv2.morphologyEx(drawn, cv2.MORPH_GRADIENT, np.ones((5, 5)))
    assert not (mask != drawn.astype(bool))[edge == 0].any()
    assert np.hypot(u, v)[mask].max() <= forms.REACH


def test_render_keeps_its_promises():
    for size in (64, 160):
        for index in range(40):
            rng = np.random.default_rng([size, index])
            image, objects = scene.render(rng, size)
            assert image.shape == (size, size, 3)
            assert image.dtype == np.uint8
            assert 1 <= len(objects) <= 5
            taken = np.zeros((size, size), int)
            for item in objects:
                left, top, width, height = item.box
                assert min(left, top) >= 0
                assert max(left + width, top + height) <= size
                assert 6 <= min(width, height)
                assert max(width, height) <= 75 * size / 160
                assert item.mask.sum() >= 36
                taken += item.mask
            # A pixel shows one object at most.
            assert taken.max() == 1


def test_the_default_images_stay_what_they_were():
    """Drawn before there were labels and crops."""
    expected = [
        [(1, 28, 46, 22, 23), (5, 73, 24, 29, 30), (1, 127, 41, 13, 15)]
        + [(3, 113, 83, 33, 33), (4, 87, 91, 49, 58)],
        [(1, 38, 104, 63, 56), (4, 5, 136, 16, 16), (0, 91, 10, 50, 50)]
        + [(0, 48, 25, 56, 53)],
        [(3, 125, 119, 17, 15), (5, 115, 72, 45, 51), (3, 46, 124, 16, 16)]
        + [(0, 22, 52, 44, 46), (1, 54, 41, 43, 44)],
    ]
    means = [85.379, 111.266, 130.167]
    for index, (objects, mean) in enumerate(zip(expected, means, strict=True)):
        rng = np.random.default_rng([0, 0, index])
        image, found = scene.render(rng, 160)
        assert [(x.label, *x.box) for x in found] == objects
        assert image.mean() == pytest.approx(mean, abs=0.01)


@pytest.mark.parametrize(
    ('seen', 'area', 'clear'),
    [
        ((6, 6), 60, True),
        ((6, 6), 61, False),  # 36 of 61 pixels are less than 60 %
        ((6, 40), 240, True),
        ((5, 40), 200, False),  # too narrow
        ((5, 7), 35, False),  # too small
    ],
)
def test_what_counts_as_seen(seen, area, clear):
    mask = np.zeros((50, 50), bool)
    mask[3 : 3 + seen[0], 5 : 5 + seen[1]] = True
    assert is_clear(mask, area, OBJECT_SHARE) == clear
    assert is_clear(mask.T, area, OBJECT_SHARE) == clear


@pytest.mark.parametrize(('side', 'clear'), [(7, False), (8, True)])
def test_of_a_slanting_form_pixels_count(side, clear):
    """A triangle in a box that is wide enough: 28 or 36 pixels."""
    mask = np.tri(side, dtype=bool)
    assert mask.sum() == side * (side + 1) / 2
    assert is_clear(np.pad(mask, 3), mask.sum(), OBJECT_SHARE) == clear


def test_mask_is_what_changes_when_the_object_is_left_out():
    clipped = hidden = 0
    for index in range(40):
        drawn = scene.compose(np.random.default_rng([9, index]), 160)
        _, objects = scene.render(np.random.default_rng([9, index]), 160)
        whole = scene.paint(drawn)
        layers = [
            number
            for number, layer in enumerate(drawn.layers)
            if layer.label != CLUTTER
        ]
        for number, item in zip(layers, objects, strict=True):
            layer = drawn.layers.pop(number)
            changed = scene.paint(drawn) != whole
            drawn.layers.insert(number, layer)
            np.testing.assert_array_equal(changed.any(2), item.mask)
            assert item.label == layer.label
            painted, seen = layer.mask.sum(), item.mask.sum()
            at_border = any(
                part.start == 0 or part.stop == 160 for part in layer.window
            )
            assert (
                layer.area >= painted if at_border else layer.area == painted
            )
            assert seen >= 0.6 * layer.area
            clipped += painted < layer.area
            hidden += seen < painted
    # Else all of this is easy.
    assert clipped >= 5
    assert hidden >= 30


def test_clutter_lies_behind_and_before_the_objects():
    behind = before = decoys = 0
    for index in range(40):
        drawn = scene.compose(np.random.default_rng([9, index]), 160)
        labels = [layer.label != CLUTTER for layer in drawn.layers]
        first = labels.index(True)
        last = len(labels) - labels[::-1].index(True)
        assert all(labels[first:last])
        behind += first
        before += len(labels) - last
        for number, layer in enumerate(drawn.layers):
            # A decoy that is cut off could pass for an object.
            if layer.label == CLUTTER and layer.share:
                seen = (drawn.owner == number).sum()
                assert layer.area == layer.mask.sum()
                assert seen >= 0.75 * layer.area
                decoys += 1
    assert behind >= 1.5 * 40
    assert before >= 0.5 * 40
    assert decoys >= 1 * 40


def test_only_noise_is_added_to_what_is_painted():
    for index in range(10):
        drawn = scene.compose(np.random.default_rng(index), 160)
        image, _ = scene.render(np.random.default_rng(index), 160)
        clean = scene.paint(drawn)
        apart = (image - clean)[(clean > 50) & (clean < 205)]
        assert 3 <= drawn.noise <= 13
        assert abs(apart.mean()) < 0.3
        # Rounding adds a variance of 1/12.
        expected = math.hypot(drawn.noise, math.sqrt(1 / 12))
        assert apart.std() == pytest.approx(expected, rel=0.02)


def test_classes_are_as_frequent_and_as_colourful():
    labels, colours = [], []
    for index in range(200):
        drawn = scene.compose(np.random.default_rng([5, index]), 160)
        for layer in drawn.layers:
            if layer.label != CLUTTER:
                labels.append(layer.label)
                colours.append(layer.colour)
    labels, colours = np.array(labels), np.array(colours)
    number = len(labels)
    assert number > 2.5 * 200
    shares = np.bincount(labels) / number
    error = math.sqrt(5 / 36 / number)
    np.testing.assert_allclose(shares, 1 / 6, atol=3.5 * error)
    for label in range(6):
        own = colours[labels == label]
        error = colours.std(0) / math.sqrt(len(own))
        assert (abs(own.mean(0) - colours.mean(0)) < 3.5 * error).all()


@pytest.mark.parametrize('split', SPLITS)
def test_boxes_and_areas_are_those_of_the_decoded_masks(root, split):
    content = read(root, split)
    assert len(content['images']) == SET[f'num_{split}']
    numbers = [item['id'] for item in content['annotations']]
    assert numbers == list(range(1, len(numbers) + 1))
    for item in content['annotations']:
        mask = coco_mask.decode(item['segmentation'])
        assert mask.shape == (96, 96)
        y, x = np.nonzero(mask)
        left, top, width, height = item['bbox']
        assert (left, top) == (x.min(), y.min())
        assert (left + width, top + height) == (x.max() + 1, y.max() + 1)
        assert item['area'] == len(x)
        assert item['iscrowd'] == 0


@pytest.mark.parametrize('split', SPLITS)
def test_files_hold_what_render_returns(root, split):
    content = read(root, split)
    assert content['info'] == {
        'description': 'shapes',
        'version': write.VERSION,
        **SET,
    }
    names = {item['id']: item['name'] for item in content['categories']}
    assert names == dict(enumerate(forms.CLASSES, start=1))
    for index, record in enumerate(content['images']):
        rng = np.random.default_rng([3, SPLITS.index(split), index])
        image, objects = scene.render(rng, 96)
        assert record == {
            'id': index + 1,
            'file_name': f'{index:06d}.png',
            'width': 96,
            'height': 96,
        }
        stored = cv2.imread(str(root / split / record['file_name']))
        np.testing.assert_array_equal(stored, image)
        found = [
            item
            for item in content['annotations']
            if item['image_id'] == record['id']
        ]
        assert len(found) == len(objects)
        for item, expected in zip(found, objects, strict=True):
            assert names[item['category_id']] == forms.CLASSES[expected.label]
            mask = coco_mask.decode(item['segmentation'])
            np.testing.assert_array_equal(mask.astype(bool), expected.mask)


@pytest.mark.parametrize('kind', ['bbox', 'segm'])
def test_truth_evaluated_as_detections_is_perfect(root, kind):
    truth = COCO(root / 'annotations/train.json')
    annotations = truth.loadAnns(truth.getAnnIds())
    where = 'bbox' if kind == 'bbox' else 'segmentation'
    keys = ('image_id', 'category_id', where)
    detections = truth.loadRes(
        [{key: x[key] for key in keys} | {'score': 1.0} for x in annotations]
    )
    evaluation = COCOeval(truth, detections, kind)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert evaluation.stats[0] == 1


def test_a_set_starts_with_the_smaller_set_of_its_seed(root, tmp_path):
    write.generate(tmp_path, num_train=6, num_val=3, size=96, seed=3)
    large, small = contents(root), contents(tmp_path)
    for name in small:
        if not name.startswith('annotations/'):
            assert small[name] == large[name], name
    for split, count in (('train', 6), ('val', 3)):
        assert len(list((tmp_path / split).iterdir())) == count
        few, many = read(tmp_path, split), read(root, split)
        assert few['images'] == many['images'][:count]
        assert few['annotations'] == [
            item for item in many['annotations'] if item['image_id'] <= count
        ]
        labels = read(root, f'{split}_labels')
        labels['data_list'] = labels['data_list'][:count]
        assert read(tmp_path, f'{split}_labels') == labels


@pytest.mark.parametrize('split', SPLITS)
def test_labels_are_the_classes_of_the_annotations(root, split):
    content, labels = read(root, split), read(root, f'{split}_labels')
    assert labels['metainfo'] == {'classes': list(forms.CLASSES)}
    assert len(labels['data_list']) == SET[f'num_{split}']
    names = {item['id']: item['name'] for item in content['categories']}
    several = 0
    for image, record in zip(
        content['images'], labels['data_list'], strict=True
    ):
        present = {
            names[item['category_id']]
            for item in content['annotations']
            if item['image_id'] == image['id']
        }
        assert record == {
            'img_path': image['file_name'],
            'gt_label': [
                label
                for label, name in enumerate(forms.CLASSES)
                if name in present
            ],
        }
        several += len(present) > 1
    assert several


@pytest.mark.parametrize('split', SPLITS)
def test_crops_have_the_class_of_their_object(root, split):
    """Each against a crop that is cut and resized another way."""
    content, labels = read(root, split), read(root, f'{split}_crops')
    records = labels['data_list']
    assert len(records) == len(content['annotations'])
    names = {x['id']: x['file_name'] for x in content['images']}
    for record, item in zip(records, content['annotations'], strict=True):
        assert record['gt_label'] == item['category_id'] - 1
        found = cv2.imread(str(root / 'crops' / split / record['img_path']))
        assert found.shape == (32, 32, 3)
        image = cv2.imread(str(root / split / names[item['image_id']]))
        image = image.astype(np.float64)
        x, y, width, height = item['bbox']
        side = 1.25 * max(width, height)
        columns, rows = (
            centre - side / 2 + (np.arange(32) + 0.5) * side / 32 - 0.5
            for centre in (x + width / 2, y + height / 2)
        )
        expected = sum(
            wy[:, None, None]
            * wx[None, :, None]
            * image[iy.clip(0, 95)][:, ix.clip(0, 95)]
            for iy, wy in linear(rows)
            for ix, wx in linear(columns)
        )
        assert np.abs(expected - found).mean() < 1


def linear(positions):
    """Indices and weights of linear interpolation."""
    low = np.floor(positions).astype(int)
    part = positions - low
    return (low, 1 - part), (low + 1, part)


@pytest.mark.parametrize(
    ('kind', 'view', 'folder'),
    [
        ('BaseDataset', 'crops', 'crops/val'),
        ('MultiLabelDataset', 'labels', 'val'),
    ],
)
def test_mmpretrain_reads_the_labels(root, kind, view, folder):
    DATASETS = pytest.importorskip('mmpretrain.registry').DATASETS
    dataset = DATASETS.build(
        dict(
            _scope_='mmpretrain',
            type=kind,
            data_root=str(root),
            ann_file=f'annotations/val_{view}.json',
            data_prefix=folder,
            pipeline=[dict(type='LoadImageFromFile'), dict(type='PackInputs')],
        )
    )
    assert type(dataset).__module__.startswith('mmpretrain.')
    assert tuple(dataset.metainfo['classes']) == forms.CLASSES
    records = read(root, f'val_{view}')['data_list']
    assert len(dataset) == len(records) >= SET['num_val']
    for item, record in zip(dataset, records, strict=True):
        image = cv2.imread(str(root / folder / record['img_path']))
        assert (item['inputs'].permute(1, 2, 0).numpy() == image).all()
        found = item['data_samples'].gt_label.tolist()
        assert found == np.atleast_1d(record['gt_label']).tolist()


def test_the_seed_decides_every_byte(root, tmp_path):
    np.random.seed(1)
    write.generate(tmp_path / 'same', **SET)
    write.generate(tmp_path / 'other', **{**SET, 'seed': 4})
    expected = contents(root)
    assert contents(tmp_path / 'same') == expected
    other = contents(tmp_path / 'other')
    # No image comes twice, within a set or in both.
    pictures = [
        data
        for files in (expected, other)
        for name, data in files.items()
        if name.startswith(('train/', 'val/'))
    ]
    assert len(set(pictures)) == len(pictures) == 2 * (16 + 8)


def test_a_set_that_is_there_is_left_alone(root, monkeypatch):
    monkeypatch.setattr(write, 'render', None)
    before = {path: path.stat().st_mtime_ns for path in root.rglob('*')}
    write.generate(str(root), **SET)
    after = {path: path.stat().st_mtime_ns for path in root.rglob('*')}
    assert after == before


def test_another_set_is_an_error(root):
    before = contents(root)
    with pytest.raises(ConfigError) as caught:
        write.generate(root, **{**SET, 'num_val': 9})
    held = 'num_train 16, num_val {}, size 96, seed 3'
    version = f'shapes (version {write.VERSION}, '
    assert str(caught.value) == (
        f'root: {root}/annotations/train.json is {version}{held.format(8)}),'
        f' but asked for is {version}{held.format(9)}); take another root or '
        f'delete this one'
    )
    assert contents(root) == before


@pytest.mark.parametrize(
    'text', ['{"info": {"year": 2017}}', '[]', '{"images": []}', '{"inf']
)
def test_a_foreign_file_is_an_error(tmp_path, text):
    path = tmp_path / 'annotations/val.json'
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(ConfigError, match='val.json is of another origin, '):
        write.generate(tmp_path, **SET)
    assert contents(tmp_path) == {'annotations/val.json': text.encode()}


def test_an_interrupted_set_has_no_annotations(root, tmp_path, monkeypatch):
    render, calls = scene.render, []

    def interrupted(*args):
        calls.append(args)
        if len(calls) == SET['num_train'] + 5:
            raise KeyboardInterrupt
        return render(*args)

    with monkeypatch.context() as patch:
        patch.setattr(write, 'render', interrupted)
        with pytest.raises(KeyboardInterrupt):
            write.generate(tmp_path, **SET)
    assert (tmp_path / 'train/000015.png').is_file()
    assert not list((tmp_path / 'annotations').iterdir())
    write.generate(tmp_path, **SET)
    assert contents(tmp_path) == contents(root)


def test_a_full_disk_leaves_no_part_of_a_file(root, tmp_path, monkeypatch):
    write_text = Path.write_text

    def fail_at_last(path, text, **kwargs):
        if 'val.json' not in path.name:
            return write_text(path, text, **kwargs)
        write_text(path, text[: len(text) // 2], **kwargs)
        raise OSError(28, 'No space left on device')

    with monkeypatch.context() as patch:
        patch.setattr(Path, 'write_text', fail_at_last)
        with pytest.raises(OSError, match='No space left'):
            write.generate(tmp_path, **SET)
    names = [path.name for path in (tmp_path / 'annotations').iterdir()]
    assert sorted(names) == [
        'train.json',
        'train_crops.json',
        'train_labels.json',
        'val_crops.json',
        'val_labels.json',
    ]
    write.generate(tmp_path, **SET)
    assert contents(tmp_path) == contents(root)


@pytest.mark.parametrize(
    ('field', 'value', 'least'),
    [
        ('num_train', 0, 1),
        ('num_val', -2, 1),
        ('size', 63, 64),
        ('size', 96.0, 64),
        ('seed', -1, 0),
        ('seed', True, 0),
        ('seed', '0', 0),
    ],
)
def test_bad_arguments(tmp_path, field, value, least):
    with pytest.raises(ConfigError) as caught:
        write.generate(tmp_path, **{**SET, field: value})
    assert str(caught.value) == (
        f'{field}: must be an int >= {least}, but got {value!r}'
    )
    assert not list(tmp_path.iterdir())


def make_shapes(monkeypatch, *arguments):
    """Run the tool; return what it exits with."""
    monkeypatch.setattr(sys, 'argv', ['make_shapes.py', *map(str, arguments)])
    try:
        runpy.run_path(str(REPO / 'tools/make_shapes.py'), run_name='__main__')
    except SystemExit as error:
        return error.code
    return 0


def test_tool_generates(root, tmp_path, monkeypatch, capsys):
    options = (
        f'--{name.replace("_", "-")}={value}' for name, value in SET.items()
    )
    assert make_shapes(monkeypatch, tmp_path / 'new', *options) == 0
    assert capsys.readouterr().out == f'shapes: {tmp_path / "new"}\n'
    assert contents(tmp_path / 'new') == contents(root)


def test_tool_reports_errors_in_one_line(tmp_path, monkeypatch):
    # A text as exit code is printed to stderr, with status 1.
    answer = make_shapes(monkeypatch, tmp_path, '--size', 32)
    assert answer == ('error: size: must be an int >= 64, but got 32')
    (tmp_path / 'file').touch()
    answer = make_shapes(monkeypatch, tmp_path / 'file')
    assert answer.startswith(f'error: root: cannot write to {tmp_path}/file (')
    assert answer.endswith('; take another folder')
    assert '\n' not in answer


def test_easy_shapes_are_whole_strong_and_alone(tmp_path):
    for index in range(20):
        rng = np.random.default_rng([4, index])
        drawn = scene.compose(rng, 160, easy=True)
        assert 1 <= len(drawn.layers) == len(drawn.objects)
        assert drawn.noise <= 3 and drawn.background.std((0, 1)).max() < 20
        for layer in drawn.layers:
            y, x = ((part.start + part.stop) // 2 for part in layer.window)
            apart = math.dist(layer.colour, drawn.background[y, x].tolist())
            assert apart > 80 or set(layer.colour) & {5, 250}  # cut there
    write.generate(tmp_path, 2, 1, 64, easy=True)
    content = json.loads((tmp_path / 'annotations/train.json').read_text())
    assert content['info']['description'] == 'easy shapes'
    with pytest.raises(ConfigError, match=r'is easy shapes .*for is shapes'):
        write.generate(tmp_path, 2, 1, 64)
