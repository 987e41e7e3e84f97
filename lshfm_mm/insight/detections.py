"""What models see in an image, and how to draw it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import mmcv
import numpy as np
import torch
from mmdet.apis import inference_detector, init_detector
from mmdet.registry import DATASETS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.dataset import pseudo_collate

from ..errors import ConfigError

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


SHOWN_CLASSES = 3  # of a classifier's scores for an image


@torch.no_grad()
def predict(model: Any, data: Any, classes: Sequence[str]) -> list[dict]:
    """What a model sees in an image.

    Args:
        model (BaseModel): Detector or classifier.
        data (dict): An item of its validation data set.
        classes (list[str]): Names of the classes.

    Returns:
        list[dict]: Of detections ``label``, ``score`` and ``box``, (x1, y1,
        x2, y2) in pixels of the image file; of classes the best ones.
    """
    (found,) = model.test_step(pseudo_collate([data]))
    if 'pred_instances' not in found:
        scores, labels = found.pred_score.topk(
            min(SHOWN_CLASSES, len(classes))
        )
        return [
            {'label': classes[label], 'score': score}
            for label, score in zip(
                labels.tolist(), scores.tolist(), strict=True
            )
        ]
    found = found.pred_instances
    found = found[found.scores > SCORE]
    return [
        {'label': classes[label], 'score': score, 'box': box}
        for label, score, box in zip(
            found.labels.tolist(),
            found.scores.tolist(),
            found.bboxes.tolist(),
            strict=True,
        )
    ]


def _pick_images(dataset: Any, wanted: Sequence[str] | int) -> list[int]:
    """Indices of images to show."""
    if isinstance(wanted, int):
        return list(range(min(wanted, len(dataset))))
    names = {
        Path(dataset.get_data_info(i).get('img_path') or str(i)).name: i
        for i in range(len(dataset))
    }
    for name in wanted:
        if name not in names:
            raise ConfigError(
                f'images: {name} is none of the {len(names)} validation '
                f'images, such as {next(iter(names))}'
            )
    return [names[x] for x in wanted]


def _pixels(info: Mapping[str, Any]) -> np.ndarray:
    """An image, BGR, (H, W, 3)."""
    if 'img' in info:  # CIFAR's, RGB
        return np.ascontiguousarray(info['img'][..., ::-1])
    return mmcv.imread(info['img_path'], flag='color')


def _truth(info: Mapping[str, Any], classes: Sequence[str]) -> list[dict]:
    if 'instances' in info:
        return [
            {
                'label': classes[x['bbox_label']],
                'box': list(map(float, x['bbox'])),
            }
            for x in info['instances']
        ]
    labels = np.atleast_1d(info['gt_label']).tolist()
    return [{'label': classes[x]} for x in labels]
