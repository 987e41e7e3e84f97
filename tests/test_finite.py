"""Features that no training should meet, and batches with nothing in them.

Losses, gradients and weights stay finite, in every precision.
"""

from itertools import cycle, product

import pytest
import torch
from torch import nn

from lshfm_mm.distillers.level_pairs import root_mean_square
from lshfm_mm.losses import FeatureL2Loss, LSHLoss, RelativeL2Loss, l2_loss

from .test_classification import classifier, images
from .test_classification import distil as distil_classifier
from .test_detectors import NECK, distil, faster, losses_of, retinanet

D, HASHES = 16, 64
SHAPES = {'rows': (8, D), 'maps': (2, D, 3, 4)}
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
MAGNITUDES = (1e-8, 3e-6, 1e-4, 1.0, 1e4)
CASES = (
    *((s, t) for s in MAGNITUDES for t in MAGNITUDES),
    *('zeros', 'student zero', 'teacher zero', 'duplicates', 'one hot'),
    *('batch of one', 'no sample', 'all weights zero', 'some weights zero'),
)


def lsh(mode, window=1):
    return LSHLoss(D * window**2, HASHES, std=0.3, mode=mode, loss_weight=7)


LOSSES = {
    **{f'lsh {x}': lambda w, x=x: lsh(x, w) for x in ('bce', 'l1', 'l2')},
    'l2': lambda window: FeatureL2Loss(7, window),
    'relative l2': lambda window: RelativeL2Loss(1, window),
}


def adversary(case, shape, generator):
    """Inputs of the student's layer, teacher's features, sample weights."""

    def draw(size):
        return size * (2 * torch.rand(shape, generator=generator) - 1)

    s, t, weight = draw(1.0), draw(1.0), None
    samples = shape[:1] + shape[2:]
    if isinstance(case, tuple):
        s, t = (x * size for x, size in zip((s, t), case, strict=True))
    elif case == 'zeros':
        s, t = 0 * s, 0 * t
    elif case == 'student zero':
        s = 0 * s
    elif case == 'teacher zero':
        t = 0 * t
    elif case == 'duplicates':
        s, t = s[:1].expand(shape), s[:1].expand(shape)
    elif case == 'one hot':
        t = torch.zeros(shape)
        t[0, 0] = 1e4
    elif case == 'batch of one':
        s, t = s[:1], t[:1]
    elif case == 'no sample':
        s, t = s[:0], t[:0]
    elif case == 'all weights zero':
        weight = torch.zeros(samples)
    else:
        weight = (torch.rand(samples, generator=generator) > 0.5).float()
    return s, t, weight


def optimise(loss, kind, dtype, steps, optimizer, seed):
    """Train a layer under autocast; returns how many steps fp16 skipped."""
    generator = torch.Generator().manual_seed(seed)
    layer = nn.Conv2d(D, D, 1) if kind == 'maps' else nn.Linear(D, D)
    with torch.no_grad():
        layer.weight.copy_(torch.eye(D).view(layer.weight.shape))
        layer.bias.zero_()
    optimizer = optimizer(layer.parameters())
    scaler = torch.amp.GradScaler(
        'cpu', enabled=dtype == torch.float16, growth_interval=50
    )
    skipped = 0
    for step, case in zip(range(steps), cycle(CASES), strict=False):
        s, t, weight = adversary(case, SHAPES[kind], generator)
        with torch.autocast('cpu', dtype, enabled=dtype != torch.float32):
            feature = layer(s)
            assert feature.dtype == dtype
            assert feature.isfinite().all(), (step, case)
            value = loss(feature, t.to(dtype), weight)
        assert value.dtype == torch.float32
        assert value.isfinite(), (step, case)
        optimizer.zero_grad()
        scaler.scale(value).backward()
        scaler.unscale_(optimizer)
        finite = all(x.grad.isfinite().all() for x in layer.parameters())
        assert finite or dtype == torch.float16, (step, case)
        skipped += not finite
        nn.utils.clip_grad_norm_(layer.parameters(), 35)
        scaler.step(optimizer)
        scaler.update()
        assert all(x.isfinite().all() for x in layer.parameters())
    return skipped


@pytest.mark.parametrize('dtype', DTYPES, ids=str)
@pytest.mark.parametrize('name', LOSSES)
def test_ten_thousand_steps_stay_finite(name, dtype):
    """224 steps for each loss, precision and kind of feature: 10,080."""
    torch.manual_seed(0)
    kinds = (('rows', 1), ('maps', 1), ('maps', 3))
    for seed, (kind, window) in enumerate(kinds):
        sgd = (seed + DTYPES.index(dtype)) % 2
        skipped = optimise(
            LOSSES[name](window),
            kind,
            dtype,
            224,
            lambda x, sgd=sgd: (
                torch.optim.SGD(x, 1e-3, momentum=0.9)
                if sgd
                else torch.optim.AdamW(x, 1e-3)
            ),
            seed,
        )
        # The scale starts at 65536, and tries twice of itself at times.
        assert skipped < 224 / 4
        assert skipped == 0 or dtype == torch.float16


@pytest.mark.parametrize('dtype', DTYPES[1:], ids=str)
@pytest.mark.parametrize('relative', [False, True])
def test_l2_of_half_precision_is_computed_in_float32(dtype, relative):
    """Squares of 1000 are no float16, and no bfloat16 tells 1 from 1.001."""
    generator = torch.Generator().manual_seed(0)
    s, t = (1000 * torch.randn(2, 8, D, generator=generator)).to(dtype)
    loss = (RelativeL2Loss if relative else FeatureL2Loss)()
    expected = (s.double() - t.double()).square().mean()
    if relative:
        expected = expected / t.double().square().mean()
    with torch.autocast('cpu', dtype=dtype):
        for value in (loss(s, t), l2_loss(s, t, relative=relative)):
            assert value.dtype == torch.float32
            assert value.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize('size', [0.0, 1e-30, 1e-8, 0.9e-6])
def test_a_teacher_without_a_scale_is_compared_as_it_is(size):
    s = torch.ones(3, D, requires_grad=True)
    t = torch.full((3, D), size)
    value = l2_loss(s, t, relative=True)
    (grad,) = torch.autograd.grad(value, s)
    assert value.item() == pytest.approx((1 - size) ** 2)
    torch.testing.assert_close(grad, 2 * (s.detach() - t) / s.numel())
    assert root_mean_square(t) == 1


def test_a_small_teacher_has_a_scale():
    s, t = torch.zeros(3, D), torch.full((3, D), 1.1e-6)
    assert l2_loss(s, t, relative=True).item() == pytest.approx(1)
    assert root_mean_square(t).item() == pytest.approx(1.1e-6)


# Real models on batches with little in them

FEATURES = [
    dict(type='LSHLoss', num_hashes=32),
    dict(type='FeatureL2Loss'),
    dict(type='RelativeL2Loss'),
]
AUTOCAST = [None, torch.bfloat16, torch.float16]
WEIGHTS = ['uniform', 'balanced', 'confidence']


def of_objects(batch, number):
    """Keep so many objects of the first image, and none of the others."""
    for index, sample in enumerate(batch['data_samples']):
        kept = number if index == 0 else 0
        sample.gt_instances = sample.gt_instances[:kept]
    return batch


def of_one(batch):
    """Keep one image."""
    return {k: v[:1] for k, v in batch.items()}


BATCHES = {
    'no object': lambda x: of_objects(x, 0),
    'one object in two images': lambda x: of_objects(x, 1),
    'one image': of_one,
    'one image without objects': lambda x: of_one(of_objects(x, 0)),
}


def check_finite(model, losses):
    """All losses and gradients; returns the mimicking losses."""
    mimic = {k: v for k, v in losses.items() if k.startswith('distill.')}
    assert mimic
    for name, value in mimic.items():
        assert value.dtype == torch.float32, name
        assert value.isfinite(), name
    model.zero_grad()
    sum(mimic.values()).backward(retain_graph=True)
    grads = {k: p.grad for k, p in model.student.named_parameters()}
    assert grads['backbone.conv1.weight'] is not None
    total, _ = model.parse_losses(losses)
    assert total.isfinite()
    total.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all(), name
    return mimic


def combined(firsts, seconds, fast):
    """All pairs; those that are not fast are marked so."""
    return [
        pytest.param(*x, marks=[] if x in fast else [pytest.mark.slow])
        for x in product(firsts, seconds)
    ]


@pytest.mark.parametrize('name', BATCHES)
@pytest.mark.parametrize(
    ('weights', 'dtype'),
    combined(WEIGHTS, AUTOCAST, [*zip(WEIGHTS, AUTOCAST, strict=True)]),
)
@pytest.mark.usefixtures('_without_onednn')
def test_dense_detectors_of_little(batch, weights, name, dtype):
    taps = dict(cls=dict(layer='bbox_head.retina_cls', weights=weights))
    losses = dict(cls=FEATURES)
    if weights != 'confidence':
        taps['fpn'] = dict(NECK, normalize=True, weights=weights)
        losses['fpn'] = [
            dict(type='LSHLoss', num_hashes=8, feature_dim=16, std=0.3),
            *FEATURES[1:],
        ]
    model = distil(retinanet(4), retinanet(8), taps, losses)
    with torch.autocast('cpu', dtype, enabled=dtype is not None):
        found = losses_of(model, BATCHES[name](batch))
    mimic = check_finite(model, found)
    assert all(x > 0 for x in mimic.values())


@pytest.mark.parametrize('dtype', AUTOCAST[1:], ids=str)
@pytest.mark.usefixtures('_without_onednn')
def test_a_dense_detector_of_ignored_locations_in_half(batch, dtype):
    model = distil(
        retinanet(4),
        retinanet(8),
        dict(cls='bbox_head.retina_cls'),
        dict(cls=FEATURES),
    )
    assigner = model.student.bbox_head.assigner
    assigner.pos_iou_thr = assigner.min_pos_iou = 2.0
    assigner.neg_iou_thr = -1.0
    with torch.autocast('cpu', dtype):
        losses = losses_of(model, batch)
    mimic = check_finite(model, losses)
    assert all(x == 0 for x in mimic.values())


@pytest.mark.parametrize(
    ('weights', 'name'),
    combined(WEIGHTS, BATCHES, [(x, 'no object') for x in WEIGHTS]),
)
def test_rois_of_little(batch, weights, name):
    """Without objects the RPN's proposals are all background."""
    model = distil(
        faster(4),
        faster(8),
        dict(roi=dict(layer='roi_head.bbox_head.fc_cls', weights=weights)),
        dict(roi=FEATURES),
        'RoIMimicDistill',
        max_rois=16,
    )
    losses = losses_of(model, BATCHES[name](batch))
    mimic = check_finite(model, losses)
    assert all(x > 0 for x in mimic.values())


@pytest.mark.parametrize('dtype', AUTOCAST, ids=str)
@pytest.mark.parametrize('number', [1, 3])
@pytest.mark.parametrize(
    'kind', ['single', 'correct', 'none correct', 'multi']
)
def test_classifiers_of_little(kind, number, dtype):
    head = 'MultiLabelLinearClsHead' if kind == 'multi' else 'LinearClsHead'
    tap = 'head.fc'
    if 'correct' in kind:
        tap = dict(layer=tap, weights='correct')
    model = distil_classifier(
        classifier(4, head), classifier(4, head), tap, FEATURES
    )
    batch = images(number, label=False)
    # Batch norm of one image needs more than one location.
    batch['inputs'] = batch['inputs'].repeat(1, 1, 2, 2)
    data = model.data_preprocessor(batch, training=False)
    with torch.no_grad():
        best = model.teacher(data['inputs'], mode='tensor').argmax(1)
    for sample, label in zip(batch['data_samples'], best, strict=True):
        if kind == 'multi':
            sample.set_gt_label([])  # none of the classes is in the image
        else:
            sample.set_gt_label((int(label) + (kind == 'none correct')) % 5)
    data = model.data_preprocessor(batch, training=True)
    with torch.autocast('cpu', dtype, enabled=dtype is not None):
        losses = model(**data, mode='loss')
    mimic = check_finite(model, losses)
    if kind == 'none correct':
        assert all(x == 0 for x in mimic.values())
    else:
        assert all(x > 0 for x in mimic.values())
