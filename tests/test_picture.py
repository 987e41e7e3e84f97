"""The picture of detections, and the demo's table."""

import re

import cv2
import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from mmengine.structures import InstanceData

from lshfm_mm.errors import ConfigError
from lshfm_mm.insight import detections

from .processes import load_tool


def pixels_like(image, colour):
    """How many pixels are about of a colour, RGB; boxes let 20 % through."""
    apart = np.abs(image[..., ::-1].astype(int) - colour)
    return int((apart.max(axis=-1) < 60).sum())


def test_a_row_for_the_truth_and_each_detector(
    make_config, teacher_checkpoint, tmp_path, monkeypatch
):
    """Of two detectors, one is sure everywhere, one sees nothing."""
    monkeypatch.setattr(detections, 'OVERLAP', 1.1)  # so none is right
    # White is the paper's, too.
    monkeypatch.setattr(detections, 'RIGHT', (255, 0, 255))
    labels = []
    monkeypatch.setattr(
        Axes, 'set_ylabel', lambda self, text, **kw: labels.append(text)
    )
    cfg = make_config('faster_rcnn_teacher')
    cfg.merge_from_dict(
        {
            'model.backbone.base_channels': 8,
            'model.neck.in_channels': [8, 16, 32, 64],
        }
    )
    models = {}
    for name, label in (('sure', 2), ('blind', -1)):
        checkpoint = torch.load(teacher_checkpoint, weights_only=False)
        head = 'roi_head.bbox_head.fc_cls.'
        checkpoint['state_dict'][f'{head}weight'].zero_()
        checkpoint['state_dict'][f'{head}bias'].zero_()[label] = 20
        torch.save(checkpoint, tmp_path / f'{name}.pth')
        models[name] = (cfg, tmp_path / f'{name}.pth')
    out = tmp_path / 'picture.png'
    detections.draw_detections(models, out)
    picture = cv2.imread(str(out))
    legend = detections.LEGEND * detections.DPI
    height = int(len(picture) - legend) // 3
    truth, sure, blind = (
        [
            pixels_like(picture[row * height : (row + 1) * height], colour)
            for colour in (detections.RIGHT, detections.WRONG)
        ]
        for row in range(3)
    )
    assert truth[0] > blind[0] + 200
    assert sure[1] > blind[1] + 200
    assert truth[1] < blind[1] + 20
    assert sure[0] < blind[0] + 20
    told, surely, blindly = labels
    number = told.removeprefix('ground truth\n').removesuffix(' objects')
    assert int(number) > 1
    assert blindly == f'blind\n0 of {number} found, 0 wrong'
    assert re.fullmatch(rf'sure\n0 of {number} found, [1-9]\d* wrong', surely)


def boxed(*images):
    """Images of 10 x 10 pixels, with labels and boxes, of a data set."""
    return [
        dict(
            height=10,
            width=10,
            instances=[dict(bbox_label=x, bbox=box) for x, box in objects],
        )
        for objects in images
    ]


def test_each_class_has_the_image_where_its_objects_are_largest():
    def box(width, height):
        return [1, 2, 1 + width, 2 + height]

    found = detections.largest(
        boxed(
            [(1, box(8, 8)), (1, box(1, 1))],  # 32.5 on average
            [(1, box(6, 6)), (0, box(5, 5))],  # best of two classes
            [(0, box(2, 9)), (0, box(2, 2))],
            [],
            [(2, box(1, 1))],
        )
    )
    assert found == [1, 4]
    assert detections.largest(boxed([(0, box(1, 1)), (1, box(1, 1))])) == [0]
    assert detections.largest(boxed([], [])) == [0]


def test_a_long_title_has_more_lines():
    title = 'student, backbone taught, recommended\n11.5 AP'
    assert (
        detections.wrapped(title)
        == 'student, backbone taught,\nrecommended\n11.5 AP'
    )


@pytest.mark.parametrize('scores', [None, [0.5]])
def test_a_box_is_where_the_object_is(scores):
    scale = detections.SIDE / 128
    instances = InstanceData(
        bboxes=torch.tensor([[10.0, 20.0, 60.0, 100.0]]),
        labels=torch.tensor([1]),
    )
    if scores:
        instances.scores = torch.tensor(scores)
    colour = (0, 0, 255)
    image = np.zeros((128, 64, 3), np.uint8)
    image[..., 0] = 90  # BGR
    drawn = detections.draw_boxes(
        image, {colour: instances}, {'classes': ('ring', 'star')}
    )
    assert drawn.shape == (detections.SIDE, detections.SIDE // 2, 3)
    assert (drawn[:, -5] == (0, 0, 90)).all()
    y, x = np.nonzero(drawn[..., 2] > 180)
    ends = [x.min(), y.min(), x.max() + 1, y.max() + 1]
    expected = [scale * z for z in (10, 20, 60, 100)]
    assert np.allclose(ends, expected, atol=2.5)
    inside = drawn[int(60 * scale), int(20 * scale) : int(50 * scale)]
    assert (inside == (0, 0, 90)).all()


def test_a_right_box_has_class_and_place_once():
    truth = InstanceData(
        bboxes=torch.tensor([[0.0, 0, 10, 10], [20, 20, 30, 30]]),
        labels=torch.tensor([1, 2]),
    )
    boxes = [[0, 0, 10, 9], [0, 0, 10, 10], [0, 0, 10, 10], [20, 20, 30, 24]]
    found = InstanceData(
        bboxes=torch.tensor(boxes).float(),
        labels=torch.tensor([1, 1, 2, 2]),
        scores=torch.tensor([0.9, 0.8, 0.7, 0.6]),
    )
    right = detections.are_right(found, truth)
    assert right.tolist() == [True, False, False, False]
    assert detections.are_right(found[:0], truth).tolist() == []
    assert not detections.are_right(found, truth[:0]).any()


@pytest.fixture(name='demo')
def fixture_demo():
    """The tool, as a module."""
    return load_tool('demo')


def test_the_table_lines_up(demo):
    text = demo.table(['', 'AP'], [['teacher', '1.0']])
    lines = text.splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[2].startswith('| teacher | 1.0 |')


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--seeds', '0'], '^--seeds: must be 1 or more, not 0$'),
        (['--task', 'single', '--seeds', '2'], '^--seeds: single has one .*2'),
    ],
)
def test_seeds_that_the_demo_has_not(demo, arguments, message, monkeypatch):
    monkeypatch.setattr('sys.argv', ['demo', *arguments])
    with pytest.raises(ConfigError, match=message):
        demo.main()


def test_the_demo_says_which_photographs_it_wants(demo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path, fix in (
        ('data/aquarium/', 'get_photographs aquarium data/aquarium'),
        ('data/mobilenet_v2_imagenet.pth', 'get_weights'),
        ('data/clothing/', 'get_photographs clothing data/clothing'),
        ('data/mobilenet_v2_imagenet_mmpretrain.pth', 'get_weights'),
    ):
        with pytest.raises(
            ConfigError, match=f'^data: {path} is not there; .* {fix} makes it'
        ):
            demo.check_photographs(demo.PHOTOGRAPHED)
        (tmp_path / path).mkdir(parents=True)
    demo.check_photographs(demo.PHOTOGRAPHED)
