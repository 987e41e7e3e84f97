"""What models see in an image, and how to draw it."""

import textwrap
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
import torch
from matplotlib.figure import Figure
from mmdet.apis import inference_detector, init_detector
from mmdet.registry import DATASETS
from mmdet.structures import DetDataSample
from mmdet.utils import register_all_modules
from mmdet.visualization import DetLocalVisualizer
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.structures import InstanceData
from torchvision.ops import box_iou

from ..errors import ConfigError

SCORE = 0.4  # a detection that is shown has a greater one
SHOWN_CLASSES = 3  # of a classifier's scores for an image
SIDE = 256  # pixels of the longer side of a drawn image
DRAWN = 0.5  # in a picture of several detectors, where boxes lie close
RIGHT = (255, 255, 255)  # RGB, of a box with class and place of an object
WRONG = (255, 48, 32)
LINE = 28  # characters of a title
LEGEND = 0.6  # inches below the rows
DPI = 100
OVERLAP = 0.5  # IoU from which on it has the place


def draw_detections(
    models: Mapping[str, tuple[Config, Path]], out: Path
) -> None:
    """Draw ground truth and detections, a row a detector.

    A column is an image, see :func:`largest`. Counted are those of all images.

    Args:
        models (dict): Title -> config of a plain detector and its
            checkpoint. The test data set of the first one is drawn.
        out (Path): The PNG file to write.
    """
    register_all_modules(init_default_scope=True)
    first, _ = next(iter(models.values()))
    dataset = DATASETS.build(first.test_dataloader.dataset)
    infos = [dataset.get_data_info(i) for i in range(len(dataset))]
    shown = largest(infos)
    truths = [_instances(info) for info in infos]
    number = sum(map(len, truths))
    rows = {
        f'ground truth\n{number} objects': [
            draw_boxes(
                mmcv.imread(infos[i]['img_path']),
                {RIGHT: truths[i]},
                dataset.metainfo,
            )
            for i in shown
        ]
    }
    for title, (cfg, checkpoint) in models.items():
        detector = init_detector(cfg, str(checkpoint), device='cpu')
        pictures, right, wrong = _detect(detector, infos, truths, shown)
        found = f'{right} of {number} found, {wrong} wrong'
        rows[f'{wrapped(title)}\n{found}'] = pictures
    size = 2.2 * len(shown), 2.25 * len(rows) + LEGEND
    figure = Figure(size, layout='constrained')
    grid = figure.subplots(len(rows), len(shown), squeeze=False)
    for line, (title, pictures) in zip(grid, rows.items(), strict=True):
        line[0].set_ylabel(title, fontsize=10)
        for axes, image in zip(line, pictures, strict=True):
            axes.imshow(image)
            axes.set(xticks=[], yticks=[])
    figure.supxlabel(
        f'Of each class the test image in which its objects are largest; '
        f'numbers are of all {len(dataset)} test images.\nWhite boxes: class '
        f'and place of an object (IoU {OVERLAP:g} or more). Red boxes: '
        f'another class or place, or a duplicate. Scores above '
        f'{100 * DRAWN:g} %.',
        fontsize=11,
    )
    figure.savefig(out, dpi=DPI)


def _detect(
    detector: Any,
    infos: Sequence[Mapping[str, Any]],
    truths: Sequence[InstanceData],
    shown: Sequence[int],
) -> tuple[list[np.ndarray], int, int]:
    """Pictures of the shown images; how many boxes of all are right, wrong."""
    drawn, right, wrong = {}, 0, 0
    for i, (info, truth) in enumerate(zip(infos, truths, strict=True)):
        image = mmcv.imread(info['img_path'])
        boxes = inference_detector(detector, image).pred_instances
        boxes = boxes[boxes.scores > DRAWN]
        fits = are_right(boxes, truth)
        right += int(fits.sum())
        wrong += int((~fits).sum())
        if i in shown:
            del boxes.scores  # labels of several boxes lie close together
            parts = {WRONG: boxes[~fits], RIGHT: boxes[fits]}
            drawn[i] = draw_boxes(image, parts, detector.dataset_meta)
    return [drawn[i] for i in shown], right, wrong


def largest(infos: Sequence[Mapping[str, Any]]) -> list[int]:
    """Of each class the image in which its objects are largest, by mean area.

    Args:
        infos (Sequence[Mapping]): What a detection data set has of each
            image: ``height``, ``width``, ``instances``.

    Returns:
        list[int]: Indices, each once, in the order of the classes; that of
        the first image, if there are no objects.
    """
    areas: defaultdict[int, dict[int, list[float]]] = defaultdict(dict)
    for i, info in enumerate(infos):
        whole = info['height'] * info['width']
        for x in info['instances']:
            left, top, right, bottom = x['bbox']
            area = (right - left) * (bottom - top) / whole
            areas[x['bbox_label']].setdefault(i, []).append(area)
    found: dict[int, None] = {}
    for _, images in sorted(areas.items()):
        means = {i: float(np.mean(x)) for i, x in images.items()}
        found[max(means, key=lambda i: means[i])] = None
    return [*found] or [0]


def wrapped(title: str) -> str:
    """A title in lines that are no longer than a row is high."""
    lines = [textwrap.wrap(x, LINE) for x in title.splitlines()]
    return '\n'.join(x for line in lines for x in line)


def are_right(found: InstanceData, truth: InstanceData) -> torch.Tensor:
    """Which detections are objects; of several for one the surest.

    Returns:
        Tensor: bool, (N,).
    """
    near = box_iou(found.bboxes, truth.bboxes) >= OVERLAP
    near &= found.labels[:, None] == truth.labels
    right = torch.zeros(len(found), dtype=torch.bool)
    for fits in near.T[near.any(0)]:
        right[(found.scores * fits).argmax()] = True
    return right


def draw_boxes(
    image: np.ndarray,
    parts: Mapping[tuple[int, int, int], InstanceData],
    metainfo: Mapping[str, Any],
) -> np.ndarray:
    """Draw boxes with their classes and maybe scores, by colour, RGB.

    Takes an image BGR, (H, W, 3), with ``bboxes``, (N, 4), ``labels`` and
    maybe ``scores``, (N,); gives it RGB, its longer side of :data:`SIDE`
    pixels.
    """
    image, scale = mmcv.imrescale(
        image[..., ::-1], (SIDE, SIDE), return_scale=True
    )
    height, width = image.shape[:2]
    edges = torch.tensor([width, height, width, height]) - 1
    for colour, instances in parts.items():
        scaled = instances.cpu().clone()
        # The visualizer warns of what lies on the border.
        scaled.bboxes = torch.minimum(scaled.bboxes * scale, edges)
        visualizer = DetLocalVisualizer(bbox_color=colour, line_width=2)
        visualizer.dataset_meta = metainfo
        sample = DetDataSample(gt_instances=scaled)
        visualizer.add_datasample('detections', image, sample, draw_pred=False)
        image = visualizer.get_image()
    return image


def _instances(info: Mapping[str, Any]) -> InstanceData:
    """The annotated objects of an image."""
    objects = info['instances']
    boxes = torch.tensor([x['bbox'] for x in objects]).view(-1, 4)
    labels = torch.tensor([x['bbox_label'] for x in objects]).long()
    return InstanceData(bboxes=boxes, labels=labels)


@torch.no_grad()
def predict(model: Any, data: Any, classes: Sequence[str]) -> list[dict]:
    """What a detector or classifier sees in an item of its data set.

    Returns:
        list[dict]: Of detections ``label``, ``score`` and ``box``, (x1, y1,
        x2, y2) in pixels of the image file; of classes the best ones.
    """
    (sample,) = model.test_step(pseudo_collate([data]))
    if 'pred_instances' in sample:
        boxes = sample.pred_instances
        boxes = boxes[boxes.scores > SCORE]
        columns = dict(score=boxes.scores, box=boxes.bboxes)
        labels = boxes.labels
    else:
        best = min(SHOWN_CLASSES, len(classes))
        scores, labels = sample.pred_score.topk(best)
        columns = dict(score=scores)
    return [
        {
            'label': classes[label],
            **{key: column[row].tolist() for key, column in columns.items()},
        }
        for row, label in enumerate(labels.tolist())
    ]


def pick_images(dataset: Any, wanted: Sequence[str] | int) -> list[int]:
    """Indices of images, given as names of files or as how many, the first.

    Raises:
        ConfigError: If no image has such a name.
    """
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


def read_pixels(info: Mapping[str, Any]) -> np.ndarray:
    """Read an image of a data set, BGR, (H, W, 3)."""
    if 'img' in info:  # CIFAR's, RGB
        return np.ascontiguousarray(info['img'][..., ::-1])
    return mmcv.imread(info['img_path'], flag='color')


def truth_of(info: Mapping[str, Any], classes: Sequence[str]) -> list[dict]:
    """What is annotated: ``label``; of objects ``box``, (x1, y1, x2, y2)."""
    if 'instances' in info:
        return [
            dict(label=classes[x['bbox_label']], box=[*map(float, x['bbox'])])
            for x in info['instances']
        ]
    labels = np.atleast_1d(info['gt_label']).tolist()
    return [dict(label=classes[x]) for x in labels]
