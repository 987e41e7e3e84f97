"""The bias and std of hash functions, from the teacher's features.

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
from ..losses.lsh import LSHLoss
from .sketches import MeanSketch, MedianSketch, SpreadSketch

CHUNK = 1024  # samples that are projected at a time
# Spread of features, in their size, that is no information: a teacher in
# bfloat16 rounds to 0.002 of it.
ALIKE = 5e-3
SKETCHES = {'mean': MeanSketch, 'median': MedianSketch}


def calibrate(
    algorithm: BaseAlgorithm,
    batches: Iterable[Any],
    total: int,
    num_rois: int = 256,
    seed: int = 0,
) -> None:
    """Set bias and std of each LSH loss that asks for the teacher's features.

    Each rank sees its batches; all ranks get the same.

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
    for name in losses:
        source = distiller.taps[distiller.tap_of(name)].teacher
        if 'mask_head' in source.split('.'):
            raise ConfigError(
                f'{name}: cannot be calibrated at a mask head, which sees '
                f"objects alone; take bias='zero' and a std other than "
                f"'features'"
            )
    sketches = {name: Sketches(loss) for name, loss in losses.items()}
    rank = dist.get_rank()
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
            on_rois = distiller.tap_of(name) in distiller.records.on_rois
            for rows in distiller.teacher_samples(
                name, levels[name], CHUNK, _all if on_rois else inside
            ):
                projections = _project(rows, loss.weight)
                for sketch in sketches[name].all:
                    sketch.update(projections)
        distiller.records.empty()
    for name, loss in losses.items():
        _settle(name, loss, sketches[name])


def _all(feature: Tensor) -> None:
    """Which features of RoIs count: all."""


def _settle(name: str, loss: LSHLoss, sketches: 'Sketches') -> None:
    """Set what a loss, by its name, takes from what all ranks have seen."""
    middle, spread = _merged(sketches, loss)
    if not (middle.isfinite().all() and spread.isfinite()):
        raise ConfigError(
            f"{name}: the teacher's features are not finite, or there "
            f"are none; look at the teacher's weights and the images"
        )
    size = middle.square().mean().sqrt()
    if loss.std == 'features' and spread <= ALIKE * size:
        raise ConfigError(
            f"{name}.std: the teacher's features differ by only "
            f'{spread.item():.1g} where they are {size.item():.1g}, so that '
            f"nothing of the images is in them; look at the teacher's "
            f'weights and the tap'
        )
    loss.calibrate(middle, spread)
    print_log(sketches.describe(name, loss), 'current')


class Sketches:
    """What a loss wants to know of its projections."""

    def __init__(self, loss: LSHLoss) -> None:
        self.middle: Any = None
        self.spread: SpreadSketch | None = None
        if loss.bias_kind != 'zero':
            self.middle = SKETCHES[loss.bias_kind](len(loss.weight))
        if loss.std == 'features':
            self.spread = SpreadSketch(len(loss.weight))
        both = self.middle, self.spread
        self.all: list[Any] = [x for x in both if x is not None]

    def describe(self, name: str, loss: LSHLoss) -> str:
        """What a loss, by its name, has got, in a line."""
        ranks = dist.get_world_size()
        has = [f'{loss.bias_kind} bias'] if self.middle else []
        if self.spread:
            has.append(f'std {loss.weight.std().item():.3g}')
        return (
            f'calibration: {name} has {" and ".join(has)} from '
            f'{self.all[0].count} samples'
            + (' of this and other ranks' if ranks > 1 else '')
            + f', ranks off by at most {self.all[0].rank_error():.2%}'
        )


def _levels(
    algorithm: BaseAlgorithm, losses: list[str], inputs: Tensor, samples: Any
) -> dict[str, list[int]]:
    """Which of the teacher's levels each loss compares with the student's."""
    distiller = algorithm.distiller
    counts = {
        x: len(distiller.connected.of_teacher(distiller.tap_of(x)))
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
            "which the calibration draws boxes; use bias='zero', and a std "
            "other than 'features'"
        )
    boxes = [get_box_tensor(x.gt_instances.bboxes) for x in samples]
    sizes = [tuple(x.img_shape[:2]) for x in samples]
    return jittered_rois(boxes, sizes, num_rois, generator)


def _merged(sketches: Sketches, loss: LSHLoss) -> tuple[Tensor, Tensor]:
    """Middle, (K,), and spread, (), of a loss's projections on all ranks.

    They are NaN where no rank has seen a sample.
    """
    rank, ranks = dist.get_dist_info()
    for source in range(1, ranks):  # one after another, for the memory
        parcel: list[Any] = [sketches.all if rank == source else None]
        dist.broadcast_object_list(parcel, source)
        if rank == 0:
            for sketch, other in zip(sketches.all, parcel[0], strict=True):
                sketch.merge(other)
    middle = torch.zeros_like(loss.bias)
    spread = middle.new_ones(())
    if rank == 0:
        if not sketches.all[0].count:
            spread.fill_(torch.nan)
        else:
            if sketches.middle:
                middle.copy_(sketches.middle.result())
            if sketches.spread:
                spread.copy_(sketches.spread.spread(middle.cpu()))
    dist.broadcast(middle)
    dist.broadcast(spread)
    return middle, spread
