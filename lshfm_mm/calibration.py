"""The bias of hash functions, from the teacher's features.

Rows of RoI heads come from boxes drawn around the annotated objects, see
:func:`lshfm_mm.samples.jittered_rois`: before training the student's own
boxes are noise, and these are the same whatever the student and its state.
Locations of maps count where they lie inside their image.
"""

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from mmengine import dist
from mmengine.logging import print_log
from mmrazor.models.algorithms import BaseAlgorithm
from torch import Tensor
from tqdm import tqdm

from .errors import ConfigError
from .samples import in_boxes, jittered_rois
from .sketches import MeanSketch, MedianSketch

CHUNK = 1024  # samples that are projected at a time
SKETCHES = {'mean': MeanSketch, 'median': MedianSketch}


def calibrate(
    algorithm: BaseAlgorithm,
    batches: Iterable[Any],
    total: int,
    num_rois: int = 256,
    seed: int = 0,
) -> dict[str, int]:
    """Set the bias of each LSH loss that asks for the teacher's features.

    Each rank sees its batches; all ranks get the same bias.

    Args:
        algorithm (BaseAlgorithm): A ``FeatureMimicDistill``.
        batches (Iterable): Batches of a dataloader.
        total (int): How many there are, for the progress.
        num_rois (int): Boxes that are drawn in an image of a two-stage
            detector. Defaults to 256.
        seed (int): Seed of that draw, beside the rank. Defaults to 0.

    Returns:
        dict[str, int]: Name of a calibrated loss -> samples, of all ranks.

    Raises:
        ConfigError: If the data gives no sample, or no finite ones.
    """
    distiller = algorithm.distiller
    losses = distiller.uncalibrated()
    sketches = {
        name: SKETCHES[loss.bias_kind](len(loss.weight))
        for name, loss in losses.items()
    }
    rank, _ = dist.get_dist_info()
    generator = torch.Generator().manual_seed(1_000_003 * seed + rank)
    progress = tqdm(batches, 'calibration', total, disable=rank > 0)
    for batch in progress:
        data = algorithm.data_preprocessor(batch, True)
        inputs, samples = data['inputs'], data.get('data_samples')
        rois = None
        if hasattr(algorithm.teacher, 'roi_head'):
            rois = _draw_rois(samples, num_rois, generator).to(inputs.device)
        algorithm.record_teacher(inputs, samples, rois)
        inside = partial(_inside, samples, tuple(inputs.shape[2:]))
        for name, loss in losses.items():
            for rows in distiller.teacher_samples(name, CHUNK, inside):
                sketches[name].update(_project(rows, loss.weight))
        distiller.empty_recorders()
    for name, loss in losses.items():
        middle = _merged(sketches[name], len(loss.weight)).to(loss.bias)
        dist.broadcast(middle)
        if not middle.isfinite().all():
            raise ConfigError(
                f"{name}.bias: the teacher's features are not finite, or "
                f'there are none; look at teacher_ckpt and the images'
            )
        loss.set_bias(middle)
    counts = {name: _total(sketches[name].count) for name in losses}
    for name, count in counts.items():
        kind = losses[name].bias_kind
        print_log(
            f'calibration: {name} has {kind} bias from {count} samples',
            'current',
        )
    return counts


def _project(rows: Tensor, weight: Tensor) -> Tensor:
    """Projections without bias, (K, n)."""
    with torch.no_grad(), torch.autocast(rows.device.type, enabled=False):
        return weight @ rows.to(weight.dtype).T


def _draw_rois(
    samples: list[Any], num_rois: int, generator: torch.Generator
) -> Tensor:
    boxes = [x.gt_instances.bboxes for x in samples]
    boxes = [getattr(x, 'tensor', x) for x in boxes]
    sizes = [tuple(x.img_shape[:2]) for x in samples]
    return jittered_rois(boxes, sizes, num_rois, generator)


def _inside(
    samples: list[Any] | None, image: tuple[int, int], feature: Tensor
) -> Tensor | None:
    """Which locations of a map lie inside their image, (B, H, W)."""
    if feature.dim() == 2 or len(samples or ()) != len(feature):
        return None
    shapes = [x.metainfo.get('img_shape', image) for x in samples or ()]
    frames = [
        feature.new_tensor([[0, 0, width, height]])
        for height, width, *_ in shapes
    ]
    height, width = feature.shape[2:]
    inside = in_boxes(frames, (height, width), image)
    return inside.view(-1, height, width)


def _merged(sketch: MeanSketch | MedianSketch, num_hashes: int) -> Tensor:
    """The result over all ranks, on the first; else of no meaning."""
    sketches = dist.gather_object(sketch) or []
    for other in sketches[1:]:
        sketches[0].merge(other)
    if not sketches or not sketches[0].count:
        return torch.full((num_hashes,), torch.nan)
    return sketches[0].result()


def _total(count: int) -> int:
    total = torch.tensor(count)
    dist.all_reduce(total)
    return int(total)
