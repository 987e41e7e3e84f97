"""Batches as a dataloader gives them, and how long it takes for one."""

import statistics
from pathlib import Path
from typing import Any

import torch
from clock import Meter
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config
from mmengine.runner import Runner
from mmpretrain.structures import DataSample
from recipes import REPO

from lshfm_mm.datasets import shapes


def raw_batch(model: str, options: Any) -> dict[str, Any]:
    """Images with noise and boxes, or of class 0."""
    if model == 'resnet':
        number, shape = options.class_images, (3, *options.class_size)
        return dict(
            inputs=torch.randint(
                256, (number, *shape), dtype=torch.uint8, device=options.device
            ),
            data_samples=[DataSample().set_gt_label(0) for _ in range(number)],
        )
    return demo_mm_inputs(
        options.images,
        (3, *options.size),
        num_items=[8] * options.images,
        num_classes=80,
        device=options.device,
    )


def time_loading(options: Any, folder: Path) -> float:
    """Seconds for a batch of generated images, without workers."""
    data = folder / 'shapes'
    shapes.generate(data, options.images, 1, max(options.size), seed=0)
    config = Config.fromfile(REPO / 'configs/_base_/shapes.py')
    loader = config.train_dataloader
    loader.dataset.data_root = f'{data}/'
    loader.dataset.pipeline[2].update(
        scale=options.size[::-1], keep_ratio=False
    )
    loader.update(
        batch_size=options.images, num_workers=0, persistent_workers=False
    )
    batches, meter = Runner.build_dataloader(loader, seed=0), Meter('cpu')
    return statistics.median(
        meter.seconds(lambda: next(iter(batches)))
        for _ in range(options.rounds)
    )
