"""Beyond one Faster R-CNN: other detectors, unequal pairs, weighted samples.

Each test compares the losses of a batch with a loop over what hooks saw.
"""

import copy

import pytest
import torch
import torch.nn.functional as F
from mmdet.registry import MODELS as MMDET_MODELS
from mmrazor.registry import MODELS

from lshfm_mm.distillers.sample_weights import in_boxes
from lshfm_mm.errors import ConfigError
from lshfm_mm.losses import lsh_loss

from .conftest import mmdet_config

PLAIN_L2 = dict(type='FeatureL2Loss')
NECK = dict(layer='neck', record='output')


def shrink(path, base, num_classes=6, neck=16, **preprocessor):
    """A model of mmdet's configs with few channels."""
    model = mmdet_config(path).model
    model.backbone.update(
        depth=18, base_channels=base, init_cfg=None, frozen_stages=-1
    )
    model.neck.in_channels = [base * 2**i for i in range(4)]
    model.neck.out_channels = neck
    model.data_preprocessor.update(preprocessor)
    if 'rpn_head' in model:
        model.rpn_head.update(in_channels=neck, feat_channels=neck)
        model.rpn_head.anchor_generator.scales = [4]
        head = model.roi_head
        head.bbox_roi_extractor.out_channels = neck
        heads = head.bbox_head
        for one in heads if isinstance(heads, list) else [heads]:
            one.update(in_channels=neck, num_classes=num_classes)
            one.fc_out_channels = 24
    else:
        model.bbox_head.update(
            in_channels=neck, feat_channels=neck, num_classes=num_classes
        )
    return model


def retinanet(base, **kwargs):
    return shrink('retinanet/retinanet_r18_fpn_1x_coco.py', base, **kwargs)


def faster(base, **kwargs):
    return shrink('faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', base, **kwargs)


def cascade(base, **kwargs):
    return shrink(
        'cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py', base, **kwargs
    )


def distil(student, teacher, taps, losses, type='FeatureMimicDistill', **more):
    """The algorithm; the teacher's class layers get a teacher's std."""
    torch.manual_seed(0)
    teacher = MMDET_MODELS.build(teacher)
    teacher.init_weights()
    for name, layer in teacher.named_modules():
        if name.endswith(('fc_cls', 'retina_cls')):
            torch.nn.init.normal_(layer.weight, std=0.1)
    model = MODELS.build(
        dict(
            _scope_='mmrazor',
            type=type,
            architecture=student,
            teacher=teacher,
            distiller=dict(
                type='LSHFMDistiller',
                taps=taps,
                losses=losses,
                connectors=more.pop('connectors', None),
            ),
            **more,
        )
    )
    model.init_weights()
    return model.train()


def losses_of(model, batch):
    torch.manual_seed(5)
    data = model.data_preprocessor(copy.deepcopy(batch), training=True)
    return model(**data, mode='loss')


def record(module):
    """Calls of a module: (inputs, output), as they come."""
    calls = []
    module.register_forward_hook(
        lambda _, inputs, output: calls.append((inputs, output))
    )
    return calls


def inputs_of(calls):
    return [inputs[0] for inputs, _ in calls]


# Dense heads


@pytest.fixture
def dense():
    losses = [
        dict(type='LSHLoss', num_hashes=20),
        PLAIN_L2,
        dict(type='RelativeL2Loss'),
    ]

    def make(weights='uniform', **kwargs):
        return distil(
            retinanet(4),
            retinanet(8),
            dict(cls=dict(layer='bbox_head.retina_cls', weights=weights)),
            dict(cls=losses),
            **kwargs,
        )

    return make


def windows(features):
    """Levels of (N, C, H, W) -> (N, all locations, 9 C)."""
    levels = [F.unfold(x, 3, padding=1).transpose(1, 2) for x in features]
    return torch.cat(levels, 1).double()


def test_a_dense_head_equals_the_unfold_of_all_levels(dense, batch):
    """The paper's loss: windows, the ignore mask, images and then batch."""
    model = dense()
    # A wider gap between the thresholds, so that many anchors are ignored.
    model.student.bbox_head.assigner.neg_iou_thr = 0.02
    losses_of(model, batch)  # the first step looks for what need not run
    calls = [
        record(x.bbox_head.retina_cls) for x in (model.student, model.teacher)
    ]
    targets = record(model.student.bbox_head.loss_cls)
    losses = losses_of(model, batch)
    s, t = (windows(inputs_of(x)) for x in calls)
    counts = torch.cat(
        [x[0][2].view(2, -1, 9).bool().any(2) for x in targets], 1
    )
    assert 0.2 < counts.float().mean() < 0.99
    lsh = model.distiller.distill_losses['loss_cls_lsh']
    assert lsh.weight.shape == (20, 9 * 16)

    def mean(each):
        per_image = [x[c].mean() for x, c in zip(each, counts, strict=True)]
        return sum(per_image) / len(per_image)

    weight = lsh.weight.double()
    codes = (t @ weight.T > 0).double()
    each = F.binary_cross_entropy_with_logits(
        s @ weight.T, codes, reduction='none'
    )
    l2, scale = mean(((s - t) ** 2).mean(2)), mean((t**2).mean(2))
    for name, expected in (
        ('lsh', mean(each.mean(2))),
        ('featurel2', l2),
        ('relativel2', l2 / scale),
    ):
        value = losses[f'distill.loss_cls_{name}']
        torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=0)
    for name in ('lsh', 'featurel2', 'relativel2'):
        model.zero_grad()
        losses[f'distill.loss_cls_{name}'].backward(retain_graph=True)
        assert model.student.backbone.conv1.weight.grad.any()


def test_a_dense_head_whose_locations_are_all_ignored(dense, batch):
    model = dense()
    model.student.bbox_head.assigner.pos_iou_thr = 2.0
    model.student.bbox_head.assigner.min_pos_iou = 2.0
    model.student.bbox_head.assigner.neg_iou_thr = -1.0
    losses = losses_of(model, batch)
    mimic = [v for k, v in losses.items() if k.startswith('distill.')]
    assert len(mimic) == 3
    assert all(v == 0 for v in mimic)
    sum(mimic).backward()
    weight = model.student.backbone.conv1.weight
    assert weight.grad is not None
    assert not weight.grad.any()


def test_padding_is_no_sample_of_gfl(batch):
    """Its loss gets label weights by name."""
    path = 'gfl/gfl_r50_fpn_1x_coco.py'
    model = distil(
        shrink(path, 4, neck=32),
        shrink(path, 8, neck=32),
        dict(cls='bbox_head.gfl_cls'),
        dict(cls=[PLAIN_L2]),
    )
    batch['inputs'][1] = batch['inputs'][1][:, :, :32]
    batch['data_samples'][1].set_metainfo(dict(img_shape=(64, 32)))
    losses_of(model, batch)  # the first step looks for what need not run
    calls = [
        record(x.bbox_head.gfl_cls) for x in (model.student, model.teacher)
    ]
    losses = losses_of(model, batch)
    s, t = (inputs_of(x) for x in calls)
    assert s[0].shape[2:] == (8, 8)
    counts = [torch.ones(2, *x.shape[2:]).bool() for x in s]
    for mask in counts[:3]:
        mask[1, :, mask.shape[2] // 2 :] = False
    # The windows reach over the border of the image.
    square = ((windows(s) - windows(t)) ** 2).mean(2)
    mask = torch.cat([x.flatten(1) for x in counts], 1)
    expected = sum(x[c].mean() for x, c in zip(square, mask, strict=True)) / 2
    torch.testing.assert_close(
        losses['distill.loss_cls_featurel2'].double(),
        expected,
        rtol=1e-5,
        atol=0,
    )


def test_dense_weights_by_box_and_by_confidence(dense, batch):
    for kind in ('balanced', 'confidence'):
        model = dense(kind)
        losses_of(model, batch)  # the first step looks for what need not run
        calls = [
            record(x.bbox_head.retina_cls)
            for x in (model.student, model.teacher)
        ]
        targets = record(model.student.bbox_head.loss_cls)
        losses = losses_of(model, batch)
        s, t = (windows(inputs_of(x)) for x in calls)
        counts = torch.cat(
            [x[0][2].view(2, -1, 9).bool().any(2) for x in targets], 1
        )
        if kind == 'balanced':
            data = model.data_preprocessor(copy.deepcopy(batch), training=True)
            boxes = [x.gt_instances.bboxes for x in data['data_samples']]
            inside = torch.cat(
                [
                    in_boxes(boxes, tuple(x.shape[2:]), (64, 64))
                    for x in inputs_of(calls[0])
                ],
                1,
            )
            weights = 0
            for side in (inside & counts, ~inside & counts):
                assert side.any(1).all()
                weights = weights + side / side.sum(1, keepdim=True)
        else:
            scores = torch.cat(
                [x[1].sigmoid().amax(1).flatten(1) for x in calls[1]], 1
            )
            weights = scores * counts
        weights = weights / weights.sum(1, keepdim=True) / 2
        expected = (((s - t) ** 2).mean(2) * weights).sum()
        torch.testing.assert_close(
            losses['distill.loss_cls_featurel2'].double(),
            expected,
            rtol=1e-4,
            atol=0,
        )


@pytest.mark.usefixtures('_without_onednn')
def test_dense_lsh_trains_under_bfloat16(dense, batch):
    model = dense()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(3):
        with torch.autocast('cpu', dtype=torch.bfloat16):
            losses = losses_of(model, batch)
        lsh = losses['distill.loss_cls_lsh']
        assert lsh.dtype == torch.float32
        assert lsh.isfinite()
        optimizer.zero_grad()
        lsh.backward()
        optimizer.step()
    assert all(p.isfinite().all() for p in model.parameters())


# Necks


def test_levels_are_normalised_one_by_one(batch):
    """Against a loop over locations."""
    model = distil(
        retinanet(4),
        retinanet(8),
        dict(fpn=dict(NECK, normalize=True)),
        dict(fpn=[PLAIN_L2, dict(type='LSHLoss', feature_dim=16, std=0.25)]),
    )
    calls = [record(x.neck) for x in (model.student, model.teacher)]
    losses = losses_of(model, batch)
    lsh = model.distiller.distill_losses['loss_fpn_lsh']
    expected = [0.0, 0.0]
    for s, t in zip(calls[0][0][1], calls[1][0][1], strict=True):
        scale = t.square().mean().sqrt()
        n, _, h, w = s.shape
        for i in range(n):
            for y in range(h):
                for x in range(w):
                    a = s[i, :, y, x][None] / scale
                    b = t[i, :, y, x][None] / scale
                    count = n * h * w
                    expected[0] += ((a - b) ** 2).mean().item() / count
                    value = lsh_loss(a, b, lsh.weight, lsh.bias)
                    expected[1] += value.item() / count
    for name, value in zip(('featurel2', 'lsh'), expected, strict=True):
        found = losses[f'distill.loss_fpn_{name}'].item()
        assert found == pytest.approx(value, rel=1e-4)


def test_necks_are_matched_by_stride(batch):
    """Faster R-CNN has strides 4 to 64, RetinaNet 8 to 128."""
    model = distil(
        retinanet(4), faster(8), dict(fpn=NECK), dict(fpn=[PLAIN_L2])
    )
    calls = [record(x.neck) for x in (model.student, model.teacher)]
    losses = losses_of(model, batch)
    students, teachers = (x[0][1] for x in calls)
    pairs = list(zip(students[:4], teachers[1:], strict=True))
    assert [s.shape[-1] for s, _ in pairs] == [8, 4, 2, 1]
    expected = sum((s - t).square().mean() for s, t in pairs)
    torch.testing.assert_close(losses['distill.loss_fpn_featurel2'], expected)


def test_necks_without_a_common_stride_are_an_error(batch):
    teacher = faster(8)
    teacher.neck.update(num_outs=1, start_level=0, end_level=0)
    student = retinanet(4)
    model = distil(student, teacher, dict(fpn=NECK), dict(fpn=[PLAIN_L2]))
    with pytest.raises(ConfigError, match='taps.fpn: .* at the same strides'):
        losses_of(model, batch)


def test_a_balanced_neck_weighs_each_level_by_boxes(batch):
    model = distil(
        retinanet(4),
        retinanet(8),
        dict(fpn=dict(NECK, weights='balanced')),
        dict(fpn=[PLAIN_L2]),
    )
    calls = [record(x.neck) for x in (model.student, model.teacher)]
    losses = losses_of(model, batch)
    data = model.data_preprocessor(copy.deepcopy(batch), training=True)
    boxes = [x.gt_instances.bboxes for x in data['data_samples']]
    expected = 0
    for s, t in zip(calls[0][0][1], calls[1][0][1], strict=True):
        inside = in_boxes(boxes, tuple(s.shape[2:]), (64, 64)).view(
            s[:, 0].shape
        )
        square = (s - t).square().mean(1)
        for image, mask in zip(square, inside, strict=True):
            parts = [image[x] for x in (mask, ~mask) if x.any()]
            expected += sum(x.mean() for x in parts) / len(parts) / 2
    torch.testing.assert_close(losses['distill.loss_fpn_featurel2'], expected)


# RoIs


def roi_taps(stages):
    names = ['roi_head.bbox_head.fc_cls']
    if stages > 1:
        names = [f'roi_head.bbox_head.{i}.fc_cls' for i in range(stages)]
    return {f'roi{i}': name for i, name in enumerate(names)}


def test_each_stage_of_a_cascade_gets_its_own_rois(batch):
    taps = roi_taps(3)
    model = distil(
        cascade(4),
        cascade(8),
        taps,
        {name: [PLAIN_L2] for name in taps},
        'RoIMimicDistill',
    )
    sides = model.student.roi_head, model.teacher.roi_head
    pools = [[record(x) for x in y.bbox_roi_extractor] for y in sides]
    heads = [[record(x.fc_cls) for x in y.bbox_head] for y in sides]
    losses = losses_of(model, batch)
    rois = [x[0][0][1] for x in pools[0]]
    assert not torch.equal(rois[0][:, 1:].sum(), rois[1][:, 1:].sum())
    for i in range(3):
        assert len(pools[0][i]) == len(pools[1][i]) == 1
        assert torch.equal(rois[i], pools[1][i][0][0][1])
        s, t = (inputs_of(x[i])[0] for x in heads)
        torch.testing.assert_close(
            losses[f'distill.loss_roi{i}_featurel2'], (s - t).square().mean()
        )


def test_a_cascade_teaches_a_detector_of_one_stage(batch):
    tap = dict(
        student='roi_head.bbox_head.fc_cls',
        teacher='roi_head.bbox_head.2.fc_cls',
    )
    model = distil(
        faster(4),
        cascade(8),
        dict(roi=tap),
        dict(roi=[dict(type='LSHLoss')]),
        'RoIMimicDistill',
    )
    head = model.teacher.roi_head
    pools = [record(x) for x in head.bbox_roi_extractor]
    student = record(model.student.roi_head.bbox_roi_extractor)
    losses_of(model, batch)
    assert [len(x) for x in pools] == [0, 0, 1]
    assert torch.equal(student[0][0][1], pools[2][0][0][1])


def test_one_teacher_stage_for_two_of_the_student_is_an_error():
    taps = {
        f'roi{i}': dict(
            student=f'roi_head.bbox_head.{i}.fc_cls',
            teacher='roi_head.bbox_head.fc_cls',
        )
        for i in range(2)
    }
    with pytest.raises(ConfigError, match='two stages of the student'):
        distil(
            cascade(4),
            faster(8),
            taps,
            {name: [PLAIN_L2] for name in taps},
            'RoIMimicDistill',
        )


def test_a_cascade_without_boxes_is_zero_with_a_gradient(batch):
    taps = roi_taps(3)
    model = distil(
        cascade(4),
        cascade(8),
        taps,
        {name: [dict(type='LSHLoss')] for name in taps},
        'RoIMimicDistill',
    )
    for sampler in model.student.roi_head.bbox_sampler:
        sampler.num = 0
        sampler.add_gt_as_proposals = False
    losses = losses_of(model, batch)
    mimic = [v for k, v in losses.items() if k.startswith('distill.')]
    assert len(mimic) == 3
    assert all(v == 0 for v in mimic)
    sum(mimic).backward()


@pytest.mark.parametrize('max_rois', [3, 40, 10000])
def test_max_rois_takes_the_foreground_first(batch, max_rois):
    tap = roi_taps(1)
    model = distil(
        faster(4),
        faster(8),
        tap,
        dict(roi0=[PLAIN_L2, dict(type='L1Loss', loss_weight=2)]),
        'RoIMimicDistill',
        max_rois=max_rois,
    )
    student = record(model.student.roi_head.bbox_head.fc_cls)
    teacher = record(model.teacher.roi_head.bbox_head.fc_cls)
    boxes = [
        record(x.roi_head.bbox_roi_extractor)
        for x in (model.student, model.teacher)
    ]
    labels = record(model.student.roi_head.bbox_head.loss_cls)
    losses = losses_of(model, batch)
    ours, theirs = (x[0][0][1] for x in boxes)
    for image in range(2):
        rows = ours[:, 0] == image
        positives = ours[rows & (labels[0][0][1] < 6)]
        picked = theirs[theirs[:, 0] == image]
        assert len(picked) == min(max_rois, int(rows.sum()))
        found = {tuple(x) for x in picked.tolist()}
        positives = {tuple(x) for x in positives.tolist()}
        assert len(found & positives) == min(max_rois, len(positives)) > 0
    keys = [tuple(x) for x in ours.tolist()]
    rows = [keys.index(tuple(x)) for x in theirs.tolist()]
    s, t = inputs_of(student)[0][rows], inputs_of(teacher)[0]
    torch.testing.assert_close(
        losses['distill.loss_roi0_featurel2'], (s - t).square().mean()
    )


@pytest.mark.parametrize('weights', ['uniform', 'balanced', 'confidence'])
@pytest.mark.parametrize('max_rois', [None, 20])
def test_samplers_that_run_the_head_before(batch, weights, max_rois):
    """OHEM tries all boxes of each image; the last run is the student's."""
    student = faster(4)
    student.train_cfg.rcnn.sampler.update(type='OHEMSampler', num=32)
    layer = 'roi_head.bbox_head.fc_cls'
    model = distil(
        student,
        faster(8),
        dict(roi=dict(layer=layer, weights=weights)),
        dict(roi=[PLAIN_L2]),
        'RoIMimicDistill',
        max_rois=max_rois,
    )
    ours = record(model.student.roi_head.bbox_roi_extractor)
    theirs = record(model.teacher.roi_head.bbox_roi_extractor)
    loss = losses_of(model, batch)['distill.loss_roi_featurel2']
    assert len(ours) > 2  # both images, then the batch
    rois = {tuple(x) for x in ours[-1][0][1].tolist()}
    assert len(theirs) == 1
    assert {tuple(x) for x in theirs[0][0][1].tolist()} <= rois
    loss.backward()
    assert model.student.backbone.conv1.weight.grad.any()


@pytest.mark.parametrize('weights', ['uniform', 'balanced', 'confidence'])
def test_no_roi_at_all_is_zero_with_a_gradient(batch, weights):
    model = distil(
        faster(4),
        faster(8),
        dict(roi=dict(layer='roi_head.bbox_head.fc_cls', weights=weights)),
        dict(roi=[PLAIN_L2, dict(type='LSHLoss')]),
        'RoIMimicDistill',
        max_rois=8,
    )
    sampler = model.student.roi_head.bbox_sampler
    sampler.num = 0
    sampler.add_gt_as_proposals = False
    losses = losses_of(model, batch)
    mimic = [v for k, v in losses.items() if k.startswith('distill.')]
    assert all(v == 0 for v in mimic)
    sum(mimic).backward()


def test_roi_weights_by_label_and_by_confidence(batch):
    for kind in ('balanced', 'confidence'):
        model = distil(
            faster(4),
            faster(8),
            dict(roi=dict(layer='roi_head.bbox_head.fc_cls', weights=kind)),
            dict(roi=[PLAIN_L2]),
            'RoIMimicDistill',
        )
        student = record(model.student.roi_head.bbox_head.fc_cls)
        teacher = record(model.teacher.roi_head.bbox_head.fc_cls)
        labels = record(model.student.roi_head.bbox_head.loss_cls)
        losses = losses_of(model, batch)
        square = (
            (inputs_of(student)[0] - inputs_of(teacher)[0]).square().mean(1)
        )
        if kind == 'balanced':
            inside = labels[0][0][1] < 6
            assert inside.any()
            expected = (square[inside].mean() + square[~inside].mean()) / 2
        else:
            scores = teacher[0][1].softmax(1)[:, :6].amax(1)
            expected = (square * scores).sum() / scores.sum()
        torch.testing.assert_close(
            losses['distill.loss_roi_featurel2'], expected
        )


# Unequal pairs and mixtures


def test_a_teacher_with_other_classes_images_and_widths(batch):
    """80 classes, BGR without std, a wider neck: all that differs at once."""
    caffe = dict(
        mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0], bgr_to_rgb=False
    )
    wide = retinanet(8, num_classes=80, neck=32, **caffe)
    connector = dict(
        type='TorchNNConnector',
        module_name='Conv2d',
        module_args=dict(in_channels=16, out_channels=32, kernel_size=1),
    )
    model = distil(
        retinanet(4),
        wide,
        dict(cls='bbox_head.retina_cls'),
        dict(cls=[dict(type='LSHLoss', num_hashes=20), PLAIN_L2]),
        connectors=dict(cls=connector),
    )
    losses_of(model, batch)  # the first step looks for what need not run
    images = record(model.teacher.backbone)
    losses = losses_of(model, batch)
    own = model.teacher.data_preprocessor(copy.deepcopy(batch), training=True)
    torch.testing.assert_close(
        inputs_of(images)[0], own['inputs'], rtol=1e-5, atol=1e-3
    )
    mimic = [v for k, v in losses.items() if k.startswith('distill.')]
    sum(mimic).backward()
    assert model.student.backbone.conv1.weight.grad.any()
    assert model.distiller.connectors['cls'].func.weight.grad.any()


def test_rois_and_pkd_on_the_neck_and_kl_on_logits_in_one(batch):
    model = distil(
        faster(4),
        faster(8),
        dict(
            roi='roi_head.bbox_head.fc_cls',
            logits=dict(layer='roi_head.bbox_head.fc_cls', record='output'),
            fpn=NECK,
        ),
        dict(
            roi=[dict(type='LSHLoss'), PLAIN_L2],
            logits=[dict(type='KLDivergence', tau=4, loss_weight=0.5)],
            fpn=[dict(type='PKDLoss', loss_weight=6)],
        ),
        'RoIMimicDistill',
    )
    calls = [
        record(x.roi_head.bbox_head.fc_cls)
        for x in (model.student, model.teacher)
    ]
    losses = losses_of(model, batch)
    mimic = {k: v for k, v in losses.items() if k.startswith('distill.')}
    assert set(mimic) == {
        'distill.loss_roi_lsh',
        'distill.loss_roi_featurel2',
        'distill.loss_logits_kldivergence',
        'distill.loss_fpn_pkd',
    }
    assert all(v > 0 for v in mimic.values())
    s, t = (x[0][1] / 4 for x in calls)
    expected = F.kl_div(s.log_softmax(1), t.softmax(1), reduction='batchmean')
    torch.testing.assert_close(
        mimic['distill.loss_logits_kldivergence'], 0.5 * 16 * expected
    )


def test_inherit_takes_what_fits_of_a_dense_detector():
    model = distil(
        retinanet(4),
        retinanet(8, num_classes=80),
        dict(fpn=NECK),
        dict(fpn=[PLAIN_L2]),
        inherit=True,
    )
    own, other = model.student.state_dict(), model.teacher.state_dict()
    same = {k for k in own if k in other and torch.equal(own[k], other[k])}
    assert {
        'neck.fpn_convs.0.conv.weight',
        'bbox_head.retina_reg.weight',
    } <= same
    # Narrower lateral layers and other classes keep their own.
    assert (
        not {
            'neck.lateral_convs.0.conv.weight',
            'bbox_head.retina_cls.weight',
        }
        & same
    )
    assert not any(k.startswith('backbone') and own[k].dim() > 1 for k in same)


def test_guided_anchoring_teaches_a_batch(batch):
    """In mmdet's tests it skips pixels, by the mask of one image."""
    path = 'guided_anchoring/ga-retinanet_r50-caffe_fpn_1x_coco.py'
    model = distil(
        shrink(path, 8),
        shrink(path, 8),
        dict(head='bbox_head.retina_cls'),
        dict(head=[PLAIN_L2]),
    )
    head = model.teacher.bbox_head
    head.loc_filter_thr = 2.0  # a mask of no pixel
    calls = record(head.retina_cls)
    losses = losses_of(model, batch)
    assert len(batch['inputs']) == 2
    assert losses['distill.loss_head_featurel2'] > 0
    for (features, *_), scores in calls:
        equal = F.conv2d(
            features, head.retina_cls.weight, head.retina_cls.bias, padding=1
        )
        assert torch.equal(scores, equal)
