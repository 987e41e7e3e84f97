"""Detections of several detectors side by side."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import mmcv
import numpy as np
from mmdet.apis import inference_detector, init_detector
from mmdet.registry import DATASETS
from mmdet.utils import register_all_modules
from mmengine.config import Config

SCORE = 0.4  # least score of a detection that is drawn
BOX = '#ffd400'
TRUTH = '#00e08a'


def draw_detections(
    models: Mapping[str, tuple[Config, Path]],
    num_images: int,
    out: Path,
) -> None:
    """Draw ground truth and detections, a row a detector.

    Args:
        models (dict): Title -> config of a plain detector and its
            checkpoint; the first one's test data set is drawn.
        num_images (int): How many images, the first ones of the data set.
        out (Path): The PNG file to write.
    """
    matplotlib.use('Agg')
    from matplotlib import pyplot as plt

    register_all_modules(init_default_scope=True)
    dataset = DATASETS.build(
        next(iter(models.values()))[0].test_dataloader.dataset
    )
    infos = [dataset.get_data_info(i) for i in range(num_images)]
    images = [mmcv.imread(info['img_path']) for info in infos]
    rows: dict[str, list[list[tuple[np.ndarray, str]]]] = {
        'ground truth': [
            [
                (
                    np.array(x['bbox']),
                    dataset.metainfo['classes'][x['bbox_label']],
                )
                for x in info['instances']
            ]
            for info in infos
        ]
    }
    for title, (cfg, checkpoint) in models.items():
        detector = init_detector(cfg, str(checkpoint), device='cpu')
        rows[title] = [_detect(detector, image) for image in images]
    figure, axes = plt.subplots(
        len(rows),
        num_images,
        figsize=(2.2 * num_images, 2.35 * len(rows)),
        squeeze=False,
        layout='constrained',
    )
    for line, (title, detections) in zip(axes, rows.items(), strict=True):
        line[0].set_ylabel(title, fontsize=11)
        colour = TRUTH if title == 'ground truth' else BOX
        for axis, image, boxes in zip(line, images, detections, strict=True):
            _draw(axis, image, boxes, colour)
    figure.savefig(out, dpi=90)
    plt.close(figure)


def _detect(detector: Any, image: np.ndarray) -> list[tuple[np.ndarray, str]]:
    found = inference_detector(detector, image).pred_instances
    found = found[found.scores > SCORE].cpu().numpy()
    classes = detector.dataset_meta['classes']
    return [
        (box, f'{classes[label]} {score:.2f}')
        for box, label, score in zip(
            found.bboxes, found.labels, found.scores, strict=True
        )
    ]


def _draw(
    axis: Any,
    image: np.ndarray,
    boxes: list[tuple[np.ndarray, str]],
    colour: str,
) -> None:
    from matplotlib.patches import Rectangle

    axis.imshow(image[..., ::-1], interpolation='nearest')
    axis.set(xticks=[], yticks=[])
    for (x1, y1, x2, y2), text in boxes:
        axis.add_patch(
            Rectangle(
                (x1 - 0.5, y1 - 0.5),
                x2 - x1,
                y2 - y1,
                fill=False,
                edgecolor=colour,
                linewidth=1.4,
            )
        )
        axis.text(
            x1,
            max(y1 - 2, 5),
            text,
            fontsize=6,
            color='black',
            bbox=dict(facecolor=colour, edgecolor='none', pad=0.6),
        )
