"""The bias of hash functions, from the teacher's features.

Rows of RoI heads come from boxes drawn around the annotated objects, see
:func:`~lshfm_mm.distillers.roi_sampling.jittered_rois`: before training the
student's own boxes are noise, and these do not depend on its state. All stages
of a cascade get them. Locations of maps count where they lie inside their
image, and so that large levels have more weight than small ones.
"""

import copy
from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from mmdet.structures.bbox import get_box_tensor
from mmengine import dist
from mmengine.logging import print_log
from mmrazor.models.algorithms import BaseAlgorithm
from torch import Tensor
from tqdm import tqdm

from ..distillers.roi_sampling import jittered_rois
from ..distillers.sample_weights import inside_images
from ..errors import ConfigError
from ..losses.hashing import full_float32
from .sketches import MeanSketch, MedianSketch

CHUNK = 1024  # samples that are projected at a time
SKETCHES = {'mean': MeanSketch, 'median': MedianSketch}


def calibrate(
    algorithm: BaseAlgorithm,
    batches: Iterable[Any],
    total: int,
    num_rois: int = 256,
    seed: int = 0,
) -> None:
    """Set the bias of each LSH loss that asks for the teacher's features.

    Each rank sees its batches; all ranks get the same bias.

    Args:
        algorithm (BaseAlgorithm): A ``FeatureMimicDistill``.
        batches (Iterable): Batches of a dataloader.
        total (int): How many there are, for the progress.
        num_rois (int): Boxes that are drawn in an image of a two-stage
            detector. Defaults to 256.
        seed (int): Seed of that draw, beside the rank. Defaults to 0.

    Raises:
        ConfigError: If the data gives no sample, or no finite ones.
    """
    distiller = algorithm.distiller
    # A copy: those that resize batches have a state.
    preprocess = copy.deepcopy(algorithm.data_preprocessor)
    losses = distiller.uncalibrated()
    sketches = {
        name: SKETCHES[loss.bias_kind](len(loss.weight))
        for name, loss in losses.items()
    }
    rank, ranks = dist.get_dist_info()
    generator = torch.Generator('cpu').manual_seed(1_000_003 * seed + rank)
    levels: dict[str, list[int]] | None = None
    for batch in tqdm(batches, 'calibration', total, disable=rank > 0):
        data = preprocess(batch, True)
        inputs, samples = data['inputs'], data.get('data_samples')
        rois = None
        if distiller.records.on_rois:
            rois = _draw_rois(samples, num_rois, generator).to(inputs.device)
        algorithm.record_teacher(inputs, samples, rois)
        if levels is None:
            levels = _levels(algorithm, list(losses), inputs, samples)
        inside = partial(inside_images, samples, tuple(inputs.shape[2:]))
        for name, loss in losses.items():
            for rows in distiller.teacher_samples(
                name, levels[name], CHUNK, inside
            ):
                sketches[name].update(_project(rows, loss.weight))
        distiller.records.empty()
    for name, loss in losses.items():
        middle = _merged(sketches[name], len(loss.weight)).to(loss.bias)
        dist.broadcast(middle)
        if not middle.isfinite().all():
            raise ConfigError(
                f"{name}.bias: the teacher's features are not finite, or "
                f'there are none; look at teacher_ckpt and the images'
            )
        loss.set_bias(middle)
        print_log(
            f'calibration: {name} has {loss.bias_kind} bias from '
            f'{sketches[name].count} samples'
            + (' of this and other ranks' if ranks > 1 else '')
            + f', ranks off by at most {sketches[name].rank_error():.2%}',
            'current',
        )


def _levels(
    algorithm: BaseAlgorithm, losses: list[str], inputs: Tensor, samples: Any
) -> dict[str, list[int]]:
    """Which of the teacher's levels each loss compares with the student's."""
    distiller = algorithm.distiller
    counts = {
        x: len(distiller.records.features(distiller.tap_of(x), student=False))
        for x in losses
    }
    if max(counts.values()) > 1:
        algorithm.record_student(inputs, samples)
    return {
        x: distiller.teacher_levels(x) if count > 1 else [*range(count)]
        for x, count in counts.items()
    }


def _project(rows: Tensor, weight: Tensor) -> Tensor:
    """Projections without bias, (K, n)."""
    with torch.no_grad(), full_float32(rows.device):
        return weight @ rows.to(weight.dtype).T


def _draw_rois(
    samples: list[Any], num_rois: int, generator: torch.Generator
) -> Tensor:
    if not all('gt_instances' in x for x in samples):
        raise ConfigError(
            'train_dataloader: gives images without gt_instances, around '
            "which boxes are drawn for the bias; use bias='zero'"
        )
    boxes = [get_box_tensor(x.gt_instances.bboxes) for x in samples]
    sizes = [tuple(x.img_shape[:2]) for x in samples]
    return jittered_rois(boxes, sizes, num_rois, generator)


def _merged(sketch: MeanSketch | MedianSketch, num_hashes: int) -> Tensor:
    """The result over all ranks, on the first; else of no meaning."""
    rank, ranks = dist.get_dist_info()
    for source in range(1, ranks):  # one after another, for the memory
        parcel: list[Any] = [sketch if rank == source else None]
        dist.broadcast_object_list(parcel, source)
        if rank == 0:
            sketch.merge(parcel[0])
    if rank or not sketch.count:
        return torch.full((num_hashes,), torch.nan)
    return sketch.result()
