"""The numbers of a report against NumPy on features of plain hooks."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope

from lshfm_mm.insight import analysis, collect, summarize

from .conftest import read_shapes

REPO = Path(__file__).parent.parent
CLASSES = ('circle', 'square', 'triangle', 'star', 'cross', 'ring')


def spy(layer, index=0):
    """What a layer gets, call by call."""
    calls = []
    layer.register_forward_pre_hook(
        lambda _, args: calls.append(args[index].detach().double().numpy())
    )
    return calls


def by_hand(student, teacher, weight, bias):
    """Angles, norms and equal codes of rows, float64."""
    norms = [np.sqrt((x**2).sum(axis=1)) for x in (student, teacher)]
    cosine = (student * teacher).sum(axis=1) / norms[0] / norms[1]
    codes = [x @ weight.T + bias > 0 for x in (student, teacher)]
    return (
        np.degrees(np.arccos(np.clip(cosine, -1, 1))),
        *norms,
        (codes[0] == codes[1]).mean(axis=1),
    )


def check(values, expected):
    """Samples equal those by hand, and so do the statistics."""
    for found, wanted in zip(values[:4], expected, strict=True):
        assert found.shape == wanted.shape
        assert np.allclose(found, wanted, rtol=1e-4, atol=2e-2)
    # A median bias puts features on hyperplanes, where rounding decides: the
    # statistics are compared on the samples as they were found.
    angle, student, teacher, codes = (
        np.asarray(x, np.float64) for x in values[:4]
    )
    keep = values.labels[:, 0] >= 0
    assert 0 < keep.sum()
    summary = summarize.summarize(values, keep)
    assert summary['count'] == keep.sum()
    for name, wanted in (
        ('angle', angle),
        ('norm_ratio', student / teacher),
        ('equal_codes', codes),
    ):
        wanted = np.sort(wanted[keep])
        found = summary[name]
        assert found['mean'] == pytest.approx(wanted.mean(), rel=1e-3)
        assert found['std'] == pytest.approx(wanted.std(), rel=1e-2)
        place = 0.25 * (len(wanted) - 1)  # between two samples
        low, part = int(place), place % 1
        quartile = wanted[low] * (1 - part) + wanted[low + 1] * part
        assert found['q25'] == pytest.approx(quartile, rel=1e-4)
        edges = summarize.BINS[name]
        total = sum(
            int(((a <= wanted) & (wanted < b)).sum())
            for a, b in zip(edges[:-1], edges[1:], strict=True)
        )
        bins = found['histogram']
        last = int((wanted == edges[-1]).sum())
        assert sum(bins['counts']) == total + last
        assert total + last + bins['below'] + bins['above'] == len(wanted)
    of_means = student[keep].sum() / teacher[keep].sum()
    assert summary['norm_ratio']['of_means'] == pytest.approx(of_means)


def objects_of(root):
    """Boxes (x1, y1, x2, y2) and class names of each validation image."""
    data = json.loads((root / 'annotations/val.json').read_text())
    names = {x['id']: x['name'] for x in data['categories']}
    found = {x['id']: [] for x in data['images']}
    for x in data['annotations']:
        left, top, width, height = x['bbox']
        box = (left, top, left + width, top + height)
        found[x['image_id']].append(
            (box, CLASSES.index(names[x['category_id']]))
        )
    return list(found.values())


def overlap(a, b):
    """IoU of two boxes."""
    width = max(0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = [(x[2] - x[0]) * (x[3] - x[1]) for x in (a, b)]
    return width * height / (sum(areas) - width * height)


def test_boxes_against_plain_hooks(make_config, shapes_root):
    cfg = make_config('faster_rcnn_lshfm')
    algorithm = collect.build_algorithm(cfg)
    heads = [x.roi_head for x in (algorithm.student, algorithm.teacher)]
    features = [spy(x.bbox_head.fc_cls) for x in heads]
    boxes = [spy(x.bbox_roi_extractor, 1) for x in heads]
    loader = collect.build_loader(cfg)
    (values,) = collect.collect(algorithm, loader, 5, num_rois=16).values()
    assert [len(x) for x in features] == [3, 3]  # batches of 2, 2 and 1
    for ours, theirs in zip(*boxes, strict=True):
        assert np.array_equal(ours, theirs)
    (loss,) = [
        x
        for name, x in algorithm.distiller.distill_losses.items()
        if 'lsh' in name
    ]
    check(
        values,
        by_hand(
            *map(np.concatenate, features),
            loss.weight.double().numpy(),
            loss.bias.double().numpy(),
        ),
    )
    objects = objects_of(shapes_root)
    expected = []
    for number, batch in enumerate(boxes[0]):
        for index, *box in batch:
            around = objects[2 * number + int(index)]
            best = max(around, key=lambda x: overlap(box, x[0]))
            covered = overlap(box, best[0]) >= 0.5
            expected.append(best[1] if covered else -1)
    assert values.labels[:, 0].tolist() == expected
    assert len(set(expected)) > 3
    again = collect.collect(algorithm, loader, 5, num_rois=16)['roi']
    for a, b in zip(values, again, strict=True):
        assert np.array_equal(a, b, equal_nan=a.dtype.kind == 'f')
    other = collect.collect(algorithm, loader, 5, num_rois=16, seed=1)['roi']
    before = list(algorithm.distiller.observers)
    with pytest.raises(KeyError):
        collect.collect(algorithm, [{}], 5)
    assert algorithm.distiller.observers == before
    assert not np.array_equal(values.labels, other.labels)


def test_annotations_are_resized_with_their_images(make_config):
    """Also where mmdet's pipeline would read them afterwards."""
    found = []
    for first in (1, 2):
        cfg = make_config('faster_rcnn_lshfm')
        steps = cfg.val_dataloader.dataset.pipeline
        steps[2].scale = (128, 128)
        steps[1], steps[2] = steps[first], steps[3 - first]
        batch = next(iter(collect.build_loader(cfg)))
        found.append(batch['data_samples'][0].gt_instances.bboxes.tensor)
        kinds = [x.type for x in steps]
        assert kinds[first] == 'LoadAnnotations'
        raw = cfg.val_dataloader.dataset
    data = json.loads(
        (Path(raw.data_root) / 'annotations/val.json').read_text()
    )
    first = data['annotations'][0]['bbox']
    for boxes in found:
        assert boxes[0].tolist() == pytest.approx(
            [
                2 * first[0],
                2 * first[1],
                2 * (first[0] + first[2]),
                2 * (first[1] + first[3]),
            ]
        )


def test_locations_against_plain_hooks(make_config, shapes_root, tmp_path):
    """Windows for the codes, the smallest object for the class."""
    cfg = make_config('retinanet_lsh')
    teacher = read_shapes('retinanet_teacher')
    teacher.merge_from_dict(
        {
            'model.backbone.base_channels': 8,
            'model.neck.in_channels': [8, 16, 32, 64],
        }
    )
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = collect.MODELS.build({**teacher.model, '_scope_': 'mmdet'})
        torch.nn.init.normal_(model.bbox_head.retina_cls.weight, std=0.1)
    torch.save({'state_dict': model.state_dict()}, tmp_path / 't.pth')
    cfg.model.teacher = teacher.model
    cfg.model.teacher_ckpt = str(tmp_path / 't.pth')
    algorithm = collect.build_algorithm(cfg)
    models = algorithm.student, algorithm.teacher
    features = [spy(x.bbox_head.retina_cls) for x in models]
    loader = collect.build_loader(cfg)
    ((tap, values),) = collect.collect(algorithm, loader, 4).items()
    # The teacher looks once for layers that need not run.
    del features[1][: -len(features[0])]
    (loss,) = algorithm.distiller.distill_losses.values()
    weight, bias = (x.double().numpy() for x in (loss.weight, loss.bias))
    objects = objects_of(shapes_root)
    expected, labels = [], []
    for call, maps in enumerate(zip(*features, strict=True)):
        batch, _, height, width = maps[0].shape
        windows = [
            torch.nn.functional.unfold(torch.tensor(x), 3, padding=1)
            .mT.flatten(0, 1)
            .numpy()
            for x in maps
        ]
        codes = by_hand(*windows, weight, bias)[3]
        rows = [x.transpose(0, 2, 3, 1).reshape(-1, x.shape[1]) for x in maps]
        expected.append(
            (*by_hand(*rows, weight[:, : rows[0].shape[1]], 0)[:3], codes)
        )
        levels = len(features[0]) // 2  # two batches of two images
        for image in range(batch):
            around = objects[2 * (call // levels) + image]
            for y in range(height):
                for x in range(width):
                    x_, y_ = (x + 0.5) * 64 / width, (y + 0.5) * 64 / height
                    over = [
                        ((b[2] - b[0]) * (b[3] - b[1]), label)
                        for b, label in around
                        if b[0] <= x_ < b[2] and b[1] <= y_ < b[3]
                    ]
                    labels.append(min(over)[1] if over else -1)
    check(values, [np.concatenate(x) for x in zip(*expected, strict=True)])
    assert values.labels[:, 0].tolist() == labels


def classifier(task, shapes_root, tmp_path):
    """The distillation of a shapes classifier, of random weights."""
    cfg = read_shapes(f'{task}_lshfm', 'pooled')
    teacher = read_shapes(f'{task}_teacher')
    teacher.model.backbone.pop('init_cfg', None)
    teacher.model.data_preprocessor = teacher.data_preprocessor
    cfg.model.architecture.backbone.pop('init_cfg', None)
    loader = cfg.val_dataloader
    loader.update(batch_size=4, num_workers=0, persistent_workers=False)
    loader.dataset.data_root = str(shapes_root)
    cfg.model.distiller.losses.pooled[0].bias = 'mean'  # on no sample
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model = collect.MODELS.build(
            {**teacher.model, '_scope_': 'mmpretrain'}
        )
        torch.nn.init.normal_(model.head.fc.weight, std=0.1)
    torch.save({'state_dict': model.state_dict()}, tmp_path / 't.pth')
    cfg.model.teacher = teacher.model
    cfg.model.teacher_ckpt = str(tmp_path / 't.pth')
    return cfg


@pytest.mark.parametrize('task', ['single', 'multi'])
def test_images_against_plain_hooks(task, shapes_root, tmp_path):
    """With a bias from the teacher's features; images share classes."""
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        _images_against_plain_hooks(task, shapes_root, tmp_path)


def _images_against_plain_hooks(task, shapes_root, tmp_path):
    cfg = classifier(task, shapes_root, tmp_path)
    algorithm = collect.build_algorithm(cfg)
    loader = collect.build_loader(cfg)
    analysis._calibrate(algorithm, loader, 6, 0)
    models = algorithm.student, algorithm.teacher
    features = [spy(x.head.fc) for x in models]
    (values,) = collect.collect(algorithm, loader, 6).values()
    (loss,) = [
        x
        for name, x in algorithm.distiller.distill_losses.items()
        if 'lsh' in name
    ]
    assert loss.bias.abs().min() > 0
    check(
        values,
        by_hand(
            *map(np.concatenate, features),
            loss.weight.double().numpy(),
            loss.bias.double().numpy(),
        ),
    )
    groups = summarize.groups_of(values, len(CLASSES), split=False)
    dataset = loader.dataset
    for index in range(len(CLASSES)):
        expected = [
            index in np.atleast_1d(dataset.get_data_info(i)['gt_label'])
            for i in range(6)
        ]
        assert groups[str(index)].tolist() == expected


def test_angles_and_norms_are_counted_together():
    values = collect.Values(
        np.array([0, 90, np.nan, 0], np.float32),
        np.array([1, 2, 0, 90], np.float32),
        np.array([1, 2, 1, 1], np.float32),
        np.ones(4, np.float32),
        np.array([[0], [-1], [0], [0]], np.int16),
    )
    joint = summarize._joint(values, np.ones(4, bool))
    assert joint['outside'] == 1
    found = np.argwhere(joint['counts']).tolist()
    one = np.searchsorted(summarize.BINS['norm_ratio'], 1)
    assert found == [[0, one], [45, one]]
    summary = summarize.summarize(values)
    assert (summary['count'], summary['zeros']) == (4, 1)
    assert summary['angle']['mean'] == 30
    nothing = summarize.summarize(values, np.zeros(4, bool))
    assert (
        nothing['angle']['mean'] is nothing['norm_ratio']['of_means'] is None
    )
