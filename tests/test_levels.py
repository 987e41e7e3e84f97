"""A list of layers, one for each level, is one tap: RTMDet, YOLOX and kin."""

import copy
import random

import pytest
import torch
import torch.nn.functional as F
from mmdet.registry import MODELS as MMDET_MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import distance2bbox
from mmengine.structures import InstanceData
from mmrazor.registry import MODELS

from lshfm_mm.errors import ConfigError
from lshfm_mm.export import export_student
from lshfm_mm.losses.hashing import random_projection
from lshfm_mm.pairing.inspect import inspect_config

from .conftest import mmdet_config
from .test_connectors import yolov3
from .test_detectors import PLAIN_L2, distil, losses_of, record, retinanet
from .test_home import assert_same, distilled, left_behind, trained
from .test_pairing import write  # noqa: F401
from .test_silent import two_images

RTMDET = dict(cls='bbox_head.rtm_cls', reg='bbox_head.rtm_reg')
YOLOX = dict(
    cls='bbox_head.multi_level_conv_cls', reg='bbox_head.multi_level_conv_reg'
)
LOSSES = [
    dict(type='LSHLoss', num_hashes=20),
    PLAIN_L2,
    dict(type='RelativeL2Loss'),
]


def rtmdet(width=16, kernel=1):
    model = mmdet_config('rtmdet/rtmdet_tiny_8xb32-300e_coco.py').model
    model.data_preprocessor.pad_size_divisor = 32
    model.backbone.update(
        widen_factor=0.0625, init_cfg=None, norm_cfg=dict(type='BN')
    )
    model.neck.update(
        in_channels=[16, 32, 64], out_channels=16, norm_cfg=dict(type='BN')
    )
    model.bbox_head.update(
        in_channels=16,
        feat_channels=width,
        num_classes=6,
        pred_kernel_size=kernel,
        norm_cfg=dict(type='BN'),
    )
    return model


def yolox(width=8):
    model = mmdet_config('yolox/yolox_tiny_8xb8-300e_coco.py').model
    model.backbone.widen_factor = 0.0625
    model.neck.update(in_channels=[16, 32, 64], out_channels=8)
    model.bbox_head.update(in_channels=8, feat_channels=width, num_classes=6)
    model.data_preprocessor.pop('batch_augments')
    return model


PAIRS = {'rtmdet': (rtmdet, RTMDET), 'yolox': (yolox, YOLOX)}


def images_of(sizes, seed=0):
    """A raw batch of images of sizes, with two objects each."""
    generator = torch.Generator().manual_seed(seed)
    batch = dict(inputs=[], data_samples=[])
    for height, width in sizes:
        shape = torch.tensor([width, height] * 2)
        corners = torch.rand(2, 2, 2, generator=generator).sort(dim=1).values
        boxes = corners.flatten(1) * (shape - 9)
        boxes[:, 2:] += 8
        sample = DetDataSample(
            gt_instances=InstanceData(bboxes=boxes, labels=torch.arange(2))
        )
        sample.set_metainfo(
            dict(
                img_shape=(height, width),
                scale_factor=(1, 1),
                batch_input_shape=None,
            )
        )
        image = torch.randint(256, (3, height, width), generator=generator)
        batch['inputs'].append(image.to(torch.uint8))
        batch['data_samples'].append(sample)
    return batch


def layer(model, name):
    return model.get_submodule(name)


def features_at(model, tap):
    """Calls of each layer of a list, in both models."""
    return [
        [record(x) for x in layer(owner, tap)]
        for owner in (model.student, model.teacher)
    ]


def last_inputs(calls):
    return [x[-1][0][0] for x in calls]


def looped(students, teachers, masks, weight, window):
    """The losses of one set of samples, location by location, in float64."""
    total = dict(lsh=0.0, featurel2=0.0)
    scale = 0.0
    half = window // 2
    padded = [
        [F.pad(x.double(), [half] * 4) for x in y]
        for y in (students, teachers)
    ]
    images = len(students[0])
    counting = [sum(int(m[i].sum()) for m in masks) for i in range(images)]
    share = 1 / max(sum(x > 0 for x in counting), 1)
    for i in range(images):
        for s, t, mask in zip(*padded, masks, strict=True):
            for y, x in mask[i].nonzero().tolist():
                a, b = (
                    z[i, :, y : y + window, x : x + window].flatten()
                    for z in (s, t)
                )
                part = share / counting[i]
                sides = torch.where(weight @ b > 0, 1.0, -1.0)
                each = F.softplus(-sides * (weight @ a))
                total['lsh'] = total['lsh'] + part * each.mean()
                error = ((a - b) ** 2).mean()
                total['featurel2'] = total['featurel2'] + part * error
                scale += part * float((b**2).mean())
    return total | dict(relativel2=total['featurel2'] / (scale or 1.0))


def assert_is_loop(model, losses, name, calls, masks, window=1):
    """Values and gradients of the losses at a tap are those of the loop."""
    students, teachers = map(last_inputs, calls)
    doubles = [x.detach().double().requires_grad_() for x in students]
    lsh = model.distiller.distill_losses[f'loss_{name}_lsh']
    expected = looped(doubles, teachers, masks, lsh.weight.double(), window)
    for kind, value in expected.items():
        found = losses[f'distill.loss_{name}_{kind}']
        torch.testing.assert_close(
            found.double(), value.detach(), rtol=1e-5, atol=1e-9
        )
        ours = torch.autograd.grad(found, students, retain_graph=True)
        theirs = torch.autograd.grad(value, doubles, retain_graph=True)
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(
                one.double(), other, rtol=1e-4, atol=1e-8
            )


def inside(sizes, maps):
    """Locations of each image, padded to 32 px: what RTMDet trains."""
    masks = [torch.zeros(x[:, 0].shape, dtype=torch.bool) for x in maps]
    for level, mask in enumerate(masks):
        for one, size in zip(mask, sizes, strict=True):
            rows, columns = (-(-x // 32) * 4 >> level for x in size)
            one[:rows, :columns] = True
    return masks


@pytest.mark.parametrize(
    ('kind', 'kernel'), [('rtmdet', 1), ('rtmdet', 3), ('yolox', 1)]
)
def test_a_list_is_one_set_of_samples(kind, kernel):
    make, taps = PAIRS[kind]
    more = dict(kernel=kernel) if kind == 'rtmdet' else {}
    model = distil(
        make(**more), make(**more), taps, dict.fromkeys(taps, LOSSES)
    )
    for one in [*model.teacher.modules(), *model.student.modules()]:
        if isinstance(one, torch.nn.Conv2d):  # at their start: all but 0
            torch.nn.init.kaiming_normal_(one.weight)
    losses_of(model, images_of([(64, 64)] * 2))  # looks for what need not run
    calls = {name: features_at(model, at) for name, at in taps.items()}

    draw = random.Random(kernel)
    for seed in range(3):
        sizes = [
            (16 * draw.randint(2, 5), 16 * draw.randint(2, 5)) for _ in '12'
        ]
        losses = losses_of(model, images_of(sizes, seed))
        for name, both in calls.items():
            maps = last_inputs(both[0])
            masks = [x.new_ones(x[:, 0].shape).bool() for x in maps]
            if kind == 'rtmdet':
                masks = inside(sizes, maps)
            assert_is_loop(model, losses, name, both, masks, kernel)
