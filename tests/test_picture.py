"""The picture of detections, and the demo's table."""

import importlib.util
from pathlib import Path

import cv2
import numpy as np
from mmdet.registry import DATASETS

from lshfm_mm.export.student import student_config
from lshfm_mm.insight import detections as picture

REPO = Path(__file__).parent.parent


def test_a_row_for_the_truth_and_each_detector(
    make_config, teacher_checkpoint, teacher_config, tmp_path, monkeypatch
):
    cfg = make_config('faster_rcnn_teacher')
    cfg.merge_from_dict(
        {
            'model.backbone.base_channels': 8,
            'model.neck.in_channels': [8, 16, 32, 64],
        }
    )
    drawn = []
    draw = picture._draw
    monkeypatch.setattr(
        picture,
        '_draw',
        lambda axis, image, boxes, colour: (
            drawn.append((image, boxes, colour)),
            draw(axis, image, boxes, colour),
        ),
    )
    out = tmp_path / 'picture.png'
    models = {'one': (cfg, teacher_checkpoint)}
    models['two'] = (student_config(cfg), teacher_checkpoint)
    picture.draw_detections(models, 2, out)
    assert len(drawn) == 3 * 2
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    for index in range(2):
        info = dataset.get_data_info(index)
        image, boxes, colour = drawn[index]
        assert colour == picture.TRUTH
        assert np.array_equal(image, cv2.imread(info['img_path']))
        expected = [instance['bbox'] for instance in info['instances']]
        assert [box.tolist() for box, _ in boxes] == expected
    assert {colour for *_, colour in drawn[2:]} == {picture.BOX}
    height, width, _ = cv2.imread(str(out)).shape
    assert height > width  # three rows of two square images


def test_the_table_lines_up():
    spec = importlib.util.spec_from_file_location(
        'demo', REPO / 'tools/demo.py'
    )
    demo = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(demo)
    text = demo.table(['', 'AP'], [['teacher', '1.0']])
    lines = text.splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[2].startswith('| teacher | 1.0 |')
