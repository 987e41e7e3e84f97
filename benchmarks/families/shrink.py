"""A config of mmdet or mmpretrain, whole, for two epochs of a few images.

Only data, sizes, channels, batches and epochs shrink: pipelines, hooks,
optimizer and its constructor, schedules, loops and test settings stay.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmengine.config import Config, ConfigDict
from pycocotools.coco import COCO

from lshfm_mm.datasets import shapes

NARROWER = 4
BASE_CHANNELS = 64  # of ResNet
LONGEST = 128  # side of an image in pixels, where a network takes any
FIXED = {'ssd': 300, 'ddod': 512}  # sides that a network is made for
OBJECTS = 40  # queries of a transformer, or proposals, at most
EPOCHS = 2
EPOCH = 4  # iterations
# What stands in pixels in a pipeline or a data preprocessor.
SIZES = re.compile(
    'scales?|img_scale|crop_size|size|image_size|img_size|border|pad_to_size|'
    'random_size_range|max_size'
)
# When a hook begins or ends, in epochs.
MOMENTS = re.compile('.*epoch.*|interval|begin|start|burn_in')
LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
# What a data set of another format keeps as one of COCO's.
KEPT = {'filter_cfg', 'metainfo', 'pipeline', 'return_classes', 'test_mode'}
Change = Callable[[dict[str, Any]], None]


def walk(node: Any, change: Change) -> None:
    """Apply a change to all dicts in a config, the inner ones last."""
    if isinstance(node, dict):
        change(node)
        for value in list(node.values()):
            walk(value, change)
    elif isinstance(node, list | tuple):
        for value in node:
            walk(value, change)


def without_downloads(node: dict[str, Any]) -> None:
    """Take out the weights that a model would fetch.

    And mmcv's SyncBN, which cannot be built in one process; torch's can.
    """
    if node.get('type') == 'MMSyncBN':
        node['type'] = 'SyncBN'
    init = node.get('init_cfg')
    if isinstance(init, dict) and 'checkpoint' in init:
        node['init_cfg'] = None
    for key in ('pretrained', 'teacher_ckpt'):
        if isinstance(node.get(key), str):
            node[key] = None
    if node.get('pretrained') is True:  # of timm
        node['pretrained'] = False


def six_classes(node: dict[str, Any]) -> None:
    """Set the number of classes of objects."""
    background = 'Semantic' in str(node.get('type'))
    if isinstance(node.get('num_classes'), int | list) and not background:
        node['num_classes'] = len(shapes.CLASSES)
    if isinstance(node.get('topk'), tuple | list):
        node['topk'] = (1,)


def one_class(node: dict[str, Any]) -> None:
    """Keep the first class alone."""
    if 'num_classes' in node:
        node['num_classes'] = 1
    if 'metainfo' in node:
        node['metainfo'] = dict(classes=shapes.CLASSES[:1])


def few_objects(node: dict[str, Any]) -> None:
    """Ask for no more objects than a small image has locations."""
    for key in ('num_queries', 'max_per_img', 'num'):
        if isinstance(node.get(key), int):
            node[key] = min(node[key], OBJECTS)


def narrow(model: ConfigDict) -> None:
    """Give a plain ResNet fewer channels, and the neck what it asks for."""
    backbone, neck = model.backbone, model.get('neck')
    widths = isinstance(neck, dict) and neck.get('in_channels')
    grouped = (backbone.get('norm_cfg') or {}).get('type') == 'GN'
    if backbone.type == 'ResNet' and isinstance(widths, list) and not grouped:
        if backbone.get('base_channels', BASE_CHANNELS) == BASE_CHANNELS:
            backbone.base_channels = BASE_CHANNELS // NARROWER
            neck.in_channels = [x // NARROWER for x in widths]


def shrink(cfg: Config, data: Path, classifier: bool) -> Config:
    """Shrink a config in place.

    Args:
        cfg (Config): A whole config of mmdet or mmpretrain.
        data (Path): Folder of shapes, with :func:`add_maps`.
        classifier (bool): Whether it is one of mmpretrain.

    Returns:
        Config: The same.
    """
    walk(cfg.model, without_downloads)
    # An RPN keeps its one class.
    walk({k: v for k, v in cfg.model.items() if k != 'rpn_head'}, six_classes)
    preprocessor = cfg.get('data_preprocessor') or {}
    walk(preprocessor, six_classes)
    for split in ('train', 'val', 'test'):
        loader = cfg[f'{split}_dataloader']
        loader.update(batch_size=2, num_workers=0, persistent_workers=False)
        loader.pop('pin_memory', None)
        part = 'train' if split == 'train' else 'val'
        change = _crops(data) if classifier else _objects(data, part)
        walk(loader.dataset, change)
        if split != 'train':
            cfg[f'{split}_evaluator'] = _evaluator(cfg, split, data)
    if not classifier:
        narrow(cfg.model)
        walk(cfg.model, few_objects)
        walk(cfg.model.get('test_cfg'), _without_threshold)
        whole = cfg.model.get('data_preprocessor') or {}
        resize = _resized(cfg, FIXED.get(data.name, LONGEST))
        for node in [whole, *(cfg[x] for x in LOADERS)]:
            walk(node, resize)
    if cfg.model.type == 'CrowdDet':  # it can tell objects of one class apart
        for node in [cfg[x] for x in ('model', *LOADERS)]:
            walk(node, one_class)
    _shorten(cfg)
    if cfg.get('auto_scale_lr'):  # by the batch, which is smaller
        cfg.auto_scale_lr.enable = True
    cfg.load_from = None
    cfg.default_hooks.checkpoint = dict(type='CheckpointHook', interval=1)
    if 'max_iters' in cfg.train_cfg:
        cfg.default_hooks.checkpoint.update(by_epoch=False, interval=EPOCH)
    cfg.default_hooks.logger.interval = 1
    if cfg.optim_wrapper.get('type') == 'AmpOptimWrapper':  # of a GPU alone
        cfg.optim_wrapper.type = 'OptimWrapper'
        for key in ('loss_scale', 'dtype', 'use_fp64'):
            cfg.optim_wrapper.pop(key, None)
    if cfg.get('auto_scale_lr'):  # as --auto-scale-lr: batches are small
        cfg.auto_scale_lr.enable = True
    cfg.randomness = dict(seed=0)
    return cfg


def _without_threshold(node: dict[str, Any]) -> None:
    """A detector of two epochs is sure of nothing."""
    for key in ('score_thr', 'mask_thr', 'filter_thr', 'update_thr'):
        if key in node:
            node[key] = -1.0  # some give scores of 0, and want more than this


def _objects(data: Path, split: str) -> Change:
    """Detection data sets become shapes in COCO's format."""

    def change(node: dict[str, Any]) -> None:
        if 'times' in node:  # RepeatDataset
            node['times'] = 1
        if 'poly2mask' in node:  # shapes have no polygons
            node['poly2mask'] = True
        if 'ann_file' not in node and 'data_prefix' not in node:
            return
        prefix = dict(img=f'{split}/')
        if 'seg' in (node.get('data_prefix') or {}):
            prefix['seg'] = f'maps/{split}/'
        for key in {*node} - KEPT:
            node.pop(key)
        node.update(
            type='CocoDataset',
            data_root=f'{data}/',
            ann_file=f'annotations/{split}.json',
            data_prefix=prefix,
            metainfo=dict(classes=shapes.CLASSES),
        )
        if isinstance(node.get('filter_cfg'), dict):
            node['filter_cfg'].pop('min_size', None)

    return change


def _crops(data: Path) -> Change:
    """Data sets of one label become the crops of shapes."""

    def change(node: dict[str, Any]) -> None:
        if 'data_root' not in node or 'pipeline' not in node:
            return
        split = 'train' if node.get('split', 'train') == 'train' else 'val'
        pipeline = node['pipeline']
        node.clear()
        node.update(
            type='BaseDataset',
            data_root=f'{data}/',
            ann_file=f'annotations/{split}_crops.json',
            data_prefix=f'crops/{split}/',
            indices=8 if split == 'train' else 4,
            pipeline=pipeline,
        )

    return change


def _evaluator(cfg: Config, split: str, data: Path) -> Any:
    """The evaluator, for shapes; one of another format becomes COCO's."""
    given = cfg[f'{split}_evaluator']
    if isinstance(given, list):
        given = given[0]
    if cfg.get('default_scope') == 'mmpretrain':
        walk(given, six_classes)
        return given
    metric = given.get('metric', 'bbox')
    known = {'bbox', 'segm', 'proposal', 'proposal_fast'}
    names = [metric] if isinstance(metric, str) else metric
    return dict(
        type='CocoMetric',
        ann_file=f'{data}/annotations/val.json',
        metric=[x for x in names if x in known] or 'bbox',
    )


def _resized(cfg: Config, longest: int) -> Change:
    """Sizes in pixels shrink by one factor, to multiples of 32."""
    found: list[int] = []

    def numbers(node: Any) -> list[int]:
        if isinstance(node, list | tuple):
            return [x for part in node for x in numbers(part)]
        return [node] if isinstance(node, int) and abs(node) > 32 else []

    def collect(node: dict[str, Any]) -> None:
        for key, value in node.items():
            if SIZES.fullmatch(str(key)):
                found.extend(map(abs, numbers(value)))

    walk(cfg.train_dataloader.dataset, collect)
    walk(cfg.test_dataloader.dataset, collect)
    factor = longest / max(found, default=longest)

    def small(node: Any) -> Any:
        if isinstance(node, list | tuple):
            return type(node)(map(small, node))
        if not numbers(node):
            return node
        size = max(64, round(abs(node) * factor / 32) * 32)
        return size if node > 0 else -size

    def change(node: dict[str, Any]) -> None:
        for key, value in node.items():
            if SIZES.fullmatch(str(key)) and numbers(value):
                node[key] = small(value)

    return change


def _shorten(cfg: Config) -> None:
    """Two epochs; whatever happens at a moment happens in them."""
    train = cfg.train_cfg
    by_epoch = 'max_iters' not in train
    unit = 'max_epochs' if by_epoch else 'max_iters'
    before, after = train[unit], EPOCHS if by_epoch else EPOCHS * EPOCH
    train[unit], train.val_interval = after, after // EPOCHS
    train.pop('dynamic_intervals', None)
    train.pop('val_begin', None)

    def moment(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return sorted({moment(x) for x in value})
        return min(max(1, round(value * after / before)), after)

    schedulers = cfg.get('param_scheduler') or []
    if isinstance(schedulers, dict):
        schedulers = [schedulers]
    for scheduler in schedulers:
        same_unit = scheduler.get('by_epoch', True) == by_epoch
        for key in ('T_max', 'milestones', 'total_iters', 'periods', 'step'):
            if key in scheduler and same_unit:
                scheduler[key] = moment(scheduler[key])
        if scheduler.get('begin'):
            begin = moment(scheduler.begin) if same_unit else EPOCH
            scheduler.begin = min(begin, after - 1)
        end = scheduler.get('end')
        if isinstance(end, int):
            end = moment(end) if same_unit else min(end, EPOCH * EPOCHS)
            scheduler.end = max(end, scheduler.get('begin', 0) + 1)
    for hook in cfg.get('custom_hooks') or []:
        for key, value in hook.items():
            if MOMENTS.fullmatch(key) and isinstance(value, int) and value > 1:
                hook[key] = 1


def add_maps(data: Path) -> None:
    """Maps of classes, one an image, for heads that segment the background.

    A pixel of an object has its label, from 0; all others have 182, the last
    of the 183 classes of COCO-Stuff.
    """
    for split in ('train', 'val'):
        coco = COCO(str(data / f'annotations/{split}.json'))
        folder = data / 'maps' / split
        folder.mkdir(parents=True, exist_ok=True)
        for image in coco.imgs.values():
            shape = image['height'], image['width']
            labels = np.full(shape, 182, np.uint8)
            for item in coco.imgToAnns[image['id']]:
                labels[coco.annToMask(item) > 0] = item['category_id'] - 1
            path = folder / Path(image['file_name']).with_suffix('.png')
            cv2.imwrite(str(path), labels)
