"""Mask heads on the student's positive RoIs, and TridentNet's branches."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmdet.models.backbones.trident_resnet import TridentConv
from mmdet.structures.mask import BitmapMasks

from lshfm_mm.calibration.calibrate import calibrate
from lshfm_mm.errors import ConfigError

from .conftest import mmdet_config
from .test_detectors import (
    PLAIN_L2,
    distil,
    faster,
    inputs_of,
    losses_of,
    record,
    shrink,
)
from .test_pairing import write  # noqa: F401

LOGITS = 'roi_head.mask_head.conv_logits'


def with_masks(path, base):
    """A model of mmdet's configs, its mask heads with few channels."""
    model = shrink(path, base)
    head = model.roi_head
    pools, heads = head.mask_roi_extractor, head.mask_head
    pools.out_channels = 16
    for one in heads if isinstance(heads, list) else [heads]:
        one.update(
            num_convs=2, in_channels=16, conv_out_channels=16, num_classes=6
        )
    return model


def mask_rcnn(base):
    return with_masks('mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py', base)


def cascade_mask_rcnn(base):
    path = 'cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py'
    return with_masks(path, base)


def htc(base):
    path = 'htc/htc-without-semantic_r50_fpn_1x_coco.py'
    return with_masks(path, base)


def point_rend(base):
    model = shrink('point_rend/point-rend_r50-caffe_fpn_ms-1x_coco.py', base)
    head = model.roi_head
    head.mask_roi_extractor.out_channels = 16
    head.mask_head.update(
        in_channels=16, conv_out_channels=16, fc_out_channels=24, num_classes=6
    )
    head.point_head.update(in_channels=16, fc_channels=16, num_classes=6)
    return model


@pytest.fixture
def masked(batch):
    """The batch, with the boxes as masks."""
    for sample in batch['data_samples']:
        height, width = sample.img_shape
        boxes = sample.gt_instances.bboxes
        masks = np.zeros((len(boxes), height, width), np.uint8)
        for mask, box in zip(masks, boxes.tensor.int().tolist(), strict=True):
            mask[box[1] : box[3] + 1, box[0] : box[2] + 1] = 1
        sample.gt_instances.masks = BitmapMasks(masks, height, width)
    return batch


def heads_of(model, kind='mask'):
    """Of both models the calls of each RoI extractor of a kind."""
    found = []
    for owner in (model.student, model.teacher):
        pools = getattr(owner.roi_head, f'{kind}_roi_extractor')
        pools = pools if isinstance(pools, torch.nn.ModuleList) else [pools]
        found.append([record(x) for x in pools])
    return found


def test_the_mask_head_mimics_on_positive_rois(masked):
    """Value and gradient of each location of each RoI, in float64."""
    model = distil(
        mask_rcnn(4),
        mask_rcnn(8),
        dict(mask=LOGITS),
        dict(mask=[dict(type='LSHLoss', num_hashes=20, std=0.5), PLAIN_L2]),
        'RoIMimicDistill',
    )
    (ours,), (theirs,) = heads_of(model)
    boxes = heads_of(model, 'bbox')
    calls = [
        record(x.roi_head.mask_head.conv_logits)
        for x in (model.student, model.teacher)
    ]
    labels = record(model.student.roi_head.bbox_head.loss_cls)
    losses = losses_of(model, masked)
    rois = ours[0][0][1]
    assert torch.equal(rois, theirs[0][0][1])
    assert not boxes[1][0]  # the teacher's box head is not tapped
    positive = boxes[0][0][0][0][1][labels[0][0][1] < 6]
    assert 0 < len(rois) == len(positive)
    assert torch.equal(rois, positive)
    s, t = (inputs_of(x)[0] for x in calls)
    lsh = model.distiller.distill_losses['loss_mask_lsh']
    double = s.detach().double().requires_grad_()
    pixels = [x.movedim(1, -1).flatten(0, 2) for x in (double, t.double())]
    ours, theirs = (x @ lsh.weight.double().T for x in pixels)
    signs = torch.where(theirs > 0, 1, -1)
    expected = dict(
        lsh=F.softplus(-signs * ours).mean(),
        featurel2=(pixels[0] - pixels[1]).square().mean(),
    )
    for name, value in expected.items():
        found = losses[f'distill.loss_mask_{name}']
        torch.testing.assert_close(found.double(), value, rtol=1e-5, atol=0)
        (one,) = torch.autograd.grad(found, s, retain_graph=True)
        (other,) = torch.autograd.grad(value, double, retain_graph=True)
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=1e-9)


def test_boxes_and_masks_beside_each_other(masked):
    taps = dict(roi='roi_head.bbox_head.fc_cls', mask=LOGITS)
    model = distil(
        mask_rcnn(4),
        mask_rcnn(8),
        taps,
        dict.fromkeys(taps, [PLAIN_L2]),
        'RoIMimicDistill',
        max_rois=3,
    )
    masks, boxes = heads_of(model), heads_of(model, 'bbox')
    calls = [
        record(x.get_submodule(y))
        for y in taps.values()
        for x in (model.student, model.teacher)
    ]
    losses = losses_of(model, masked)
    for name, (ours, theirs), pair in zip(
        taps, (boxes, masks), (calls[:2], calls[2:]), strict=True
    ):
        rois = [x[0][0][0][1] for x in (ours, theirs)]
        assert rois[1][:, 0].long().bincount().tolist() == [3, 3]
        keys = [tuple(x) for x in rois[0].tolist()]
        rows = [keys.index(tuple(x)) for x in rois[1].tolist()]
        s, t = (inputs_of(x)[0] for x in pair)
        torch.testing.assert_close(
            losses[f'distill.loss_{name}_featurel2'],
            (s[rows] - t).square().mean(),
        )


def test_without_positive_rois_it_is_zero_with_a_gradient(masked):
    model = distil(
        mask_rcnn(4),
        mask_rcnn(8),
        dict(mask=LOGITS),
        dict(mask=[PLAIN_L2, dict(type='LSHLoss')]),
        'RoIMimicDistill',
        max_rois=8,
    )
    sampler = model.student.roi_head.bbox_sampler
    sampler.pos_fraction = 0.0
    sampler.add_gt_as_proposals = False
    losses = losses_of(model, masked)
    mimic = [v for k, v in losses.items() if k.startswith('distill.')]
    assert len(mimic) == 2 and all(v == 0 for v in mimic)
    sum(mimic).backward()


@pytest.mark.parametrize('make', [cascade_mask_rcnn, htc])
def test_each_stage_of_a_cascade_has_a_mask_head(masked, make):
    taps = {f'mask{i}': f'roi_head.mask_head.{i}.conv_logits' for i in (0, 2)}
    model = distil(
        make(4),
        make(8),
        taps,
        dict.fromkeys(taps, [PLAIN_L2]),
        'RoIMimicDistill',
    )
    ours, theirs = heads_of(model)
    calls = {
        name: [
            record(x.get_submodule(y)) for x in (model.student, model.teacher)
        ]
        for name, y in taps.items()
    }
    losses = losses_of(model, masked)
    assert [len(x) for x in theirs] == [1, 0, 1]
    for index, (name, pair) in zip((0, 2), calls.items(), strict=True):
        assert torch.equal(ours[index][0][0][1], theirs[index][0][0][1])
        s, t = (inputs_of(x)[0] for x in pair)
        torch.testing.assert_close(
            losses[f'distill.loss_{name}_featurel2'], (s - t).square().mean()
        )


def test_the_coarse_head_of_point_rend(masked):
    layer = 'roi_head.mask_head.fc_logits'
    model = distil(
        point_rend(4),
        point_rend(8),
        dict(mask=layer),
        dict(mask=[PLAIN_L2, dict(type='LSHLoss', std=1.0)]),
        'RoIMimicDistill',
    )
    calls = [
        record(x.get_submodule(layer)) for x in (model.student, model.teacher)
    ]
    losses = losses_of(model, masked)
    s, t = (inputs_of(x)[0] for x in calls)
    torch.testing.assert_close(
        losses['distill.loss_mask_featurel2'], (s - t).square().mean()
    )


def refused(student, teacher, layer, type='RoIMimicDistill'):
    with pytest.raises(ConfigError) as error:
        distil(student, teacher, dict(mask=layer), dict(mask=[PLAIN_L2]), type)
    return str(error.value)


def test_mask_heads_without_rois_of_their_own():
    shared = mask_rcnn(4)
    shared.roi_head.mask_roi_extractor = None
    assert refused(shared, mask_rcnn(8), LOGITS) == (
        'taps.mask: the mask head of the student, in a StandardRoIHead, pools '
        'no RoIs of its own; tap roi_head.bbox_head'
    )
    layer = 'roi_head.mask_head.0.convs.1.conv'
    assert refused(htc(4), htc(8), layer) == (
        f'taps.mask: the student runs {layer!r} again for later stages; tap '
        f'conv_logits of this mask head'
    )
    layers = [f'roi_head.{x}_roi_extractor' for x in ('bbox', 'mask')]
    tap = dict(student=layers[0], teacher=layers[1], record='output')
    assert refused(faster(4), mask_rcnn(8), tap).startswith(
        f"taps: the teacher does not run {layers[1]!r} on the student's RoIs "
        f'of {layers[0]!r}; tap its backbone'
    )


# TridentNet


def test_hash_functions_of_mask_heads_are_not_calibrated(masked):
    """Boxes around objects are no positive RoIs."""
    loss = dict(type='LSHLoss', num_hashes=16, bias='mean')
    model = distil(
        mask_rcnn(4),
        mask_rcnn(8),
        dict(mask=LOGITS),
        dict(mask=[loss]),
        type='RoIMimicDistill',
        connectors=dict(mask=dict(type='ConvConnector')),
    )
    with pytest.raises(ConfigError, match='loss_mask_lsh: cannot be calibrat'):
        calibrate(model, [masked], 1)


def trident(base, **more):
    model = mmdet_config('tridentnet/tridentnet_r50-caffe_1x_coco.py').model
    model.backbone.update(
        base_channels=base,
        init_cfg=None,
        frozen_stages=-1,
        norm_eval=False,
        norm_cfg=dict(type='BN'),
    )
    model.train_cfg.rcnn.sampler.add_gt_as_proposals = True
    model.rpn_head.update(in_channels=16 * base, feat_channels=16)
    model.rpn_head.anchor_generator.scales = [1]
    head = model.roi_head
    head.pop('shared_head')
    head.bbox_roi_extractor.out_channels = 16 * base
    head.bbox_roi_extractor.roi_layer.output_size = 7
    head.bbox_head.update(in_channels=16 * base, num_classes=6)
    for part in (model.backbone, head):
        part.update(more)
    return model


@pytest.mark.parametrize('branch', [1, -1])
def test_tridents_branches_mimic_what_the_teacher_runs(batch, branch):
    """One branch teaches all three, or each its own."""
    teacher = trident(4, test_branch_idx=branch)
    model = distil(
        trident(4),
        teacher,
        dict(roi='roi_head.bbox_head.fc_cls'),
        dict(roi=[PLAIN_L2]),
        'RoIMimicDistill',
    )
    for layer in [*model.student.modules(), *model.teacher.modules()]:
        if isinstance(layer, TridentConv):  # mmdet leaves it as memory was
            torch.nn.init.kaiming_normal_(layer.weight)
    (ours,), (theirs,) = heads_of(model, 'bbox')
    calls = [
        record(x.roi_head.bbox_head.fc_cls)
        for x in (model.student, model.teacher)
    ]
    losses = losses_of(model, batch)
    rois = [x[0][0][1] for x in (ours, theirs)]
    assert rois[0][:, 0].unique().tolist() == [0, 1, 2, 3, 4, 5]
    images = 2 if branch == 1 else 6
    assert len(theirs[0][0][0][0]) == images
    assert torch.equal(rois[0][:, 0] % images, rois[1][:, 0])
    assert torch.equal(rois[0][:, 1:], rois[1][:, 1:])
    s, t = (inputs_of(x)[0] for x in calls)
    torch.testing.assert_close(
        losses['distill.loss_roi_featurel2'], (s - t).square().mean()
    )
    losses['distill.loss_roi_featurel2'].backward()


def test_make_config_pairs_tridents(write):  # noqa: F811
    cfg = write(trident(4), trident(4))
    assert cfg.model.type == 'RoIMimicDistill'
    assert cfg.model.distiller.taps == dict(roi='roi_head.bbox_head.fc_cls')
