"""What holds for any shapes, weights, orders and sizes."""

import math
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.config import ConfigDict
from mmpretrain.registry import MODELS as MMPRETRAIN
from mmrazor.registry import MODELS
from torch import nn

from lshfm_mm.calibration.sketches import MeanSketch, MedianSketch
from lshfm_mm.errors import ConfigError
from lshfm_mm.export.folding import fold_embedding
from lshfm_mm.losses import l2_loss, lsh_loss
from lshfm_mm.losses.functional import MODES

from .test_classification import classifier, embedded
from .test_sketches import rank_error

KINDS = (*MODES, 'plain', 'relative')


def examples(number):
    return settings(
        max_examples=number, deadline=None, derandomize=True, database=None
    )


# Losses


@st.composite
def problems(draw, kinds=KINDS, most=5):
    """A loss with its float64 inputs: features, hash functions, weights."""
    size = st.integers(1, most)
    window = draw(st.sampled_from([None, 1, 3]))  # None: rows, else maps
    channels, hashes = draw(size), draw(size)
    shape = [draw(size), channels]
    shape += [] if window is None else [draw(size), draw(size)]
    generator = torch.Generator().manual_seed(draw(st.integers(0, 9999)))

    def normal(*sizes):
        return torch.randn(sizes, generator=generator, dtype=torch.float64)

    samples = shape[:1] + shape[2:]
    weights = None
    if draw(st.booleans()):
        weights = torch.rand(samples, generator=generator).double() + 0.1
        weights[torch.rand(samples, generator=generator) < 0.4] = 0
    return dict(
        kind=draw(st.sampled_from(kinds)),
        window=window or 1,
        s=normal(*shape),
        t=normal(*shape),
        weight=normal(hashes, channels * (window or 1) ** 2),
        bias=normal(hashes),
        sample_weight=weights,
    )


def value_of(x, **changes):
    x = {**x, **changes}
    if x['kind'] in MODES:
        return lsh_loss(
            *(x[k] for k in ('s', 't', 'weight', 'bias', 'kind')),
            x['sample_weight'],
        )
    relative = x['kind'] == 'relative'
    return l2_loss(x['s'], x['t'], x['sample_weight'], x['window'], relative)


def gradient_of(x, **changes):
    s = changes.pop('s', x['s']).clone().requires_grad_()
    (gradient,) = torch.autograd.grad(value_of(x, s=s, **changes), s)
    return gradient


def samples_of(feature, window):
    """Each sample as a row of a list, location by location."""
    if feature.dim() == 2:
        return feature.tolist()
    half = window // 2
    padded = np.pad(feature.numpy(), [(0, 0)] * 2 + [(half, half)] * 2)
    n, _, height, width = feature.shape
    return [
        padded[i, :, y : y + window, x : x + window].flatten().tolist()
        for i, y, x in product(range(n), range(height), range(width))
    ]


def loop(x):
    """The definition, sample by sample, in Python's own floats."""
    ours, theirs = (samples_of(x[k], x['window']) for k in 'st')
    shares = [1.0] * len(ours)
    if x['sample_weight'] is not None:
        shares = x['sample_weight'].flatten().tolist()
    total = sum(shares) or 1.0
    loss = scale = 0.0
    for share, a, b in zip(shares, ours, theirs, strict=True):
        if x['kind'] not in MODES:
            each = [(p - q) ** 2 for p, q in zip(a, b, strict=True)]
            scale += share / total * sum(q * q for q in b) / len(b)
        else:
            each = []
            for w, c in zip(
                x['weight'].tolist(), x['bias'].tolist(), strict=True
            ):
                p, q = (
                    c + sum(u * v for u, v in zip(w, f, strict=True))
                    for f in (a, b)
                )
                if x['kind'] == 'bce':
                    sign = 1 if q > 0 else -1
                    each.append(math.log1p(math.exp(-sign * p)))
                else:
                    each.append(abs(p - q) ** (1 + (x['kind'] == 'l2')))
        loss += share / total * sum(each) / len(each)
    return loss / (scale or 1.0) if x['kind'] == 'relative' else loss


@given(problems())
@examples(150)
def test_a_loss_is_its_definition(x):
    assert value_of(x).item() == pytest.approx(loop(x), rel=1e-9, abs=1e-12)


@given(problems(most=3))
@examples(60)
def test_a_gradient_is_the_slope_of_the_definition(x):
    """Against differences of the loop, at one place."""
    gradient = gradient_of(x)
    place = int(gradient.abs().argmax())
    step = torch.zeros_like(x['s'])
    step.view(-1)[place] = 1e-6
    ends = [loop({**x, 's': x['s'] + sign * step}) for sign in (1, -1)]
    slope = (ends[0] - ends[1]) / 2e-6
    found = gradient.view(-1)[place].item()
    assert found == pytest.approx(slope, rel=1e-5, abs=1e-7)


@given(problems(), st.integers(0, 99))
@examples(60)
def test_the_order_of_samples_does_not_count(x, seed):
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(x['s']), generator=generator)
    weights = x['sample_weight']
    other = dict(
        s=x['s'][order],
        t=x['t'][order],
        sample_weight=None if weights is None else weights[order],
    )
    close = dict(rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(value_of(x, **other), value_of(x), **close)
    torch.testing.assert_close(
        gradient_of(x, **other), gradient_of(x)[order], **close
    )


@given(problems(), st.integers(-9, 9))
@examples(60)
def test_how_a_loss_grows_with_its_features(x, power):
    """Powers of two: each number is the same but for its exponent."""
    c, none = 2.0**power, torch.zeros_like(x['bias'])
    base = value_of(x, bias=none)
    both = value_of(x, bias=none, s=c * x['s'], t=c * x['t'])
    if x['kind'] == 'bce':
        assert torch.equal(value_of(x, bias=none, t=c * x['t']), base)
    elif x['kind'] == 'relative':
        assert torch.equal(both, base)
    else:
        assert torch.equal(both, base * c ** (1 + (x['kind'] != 'l1')))


@given(problems(), st.floats(1e-3, 1e3))
@examples(60)
def test_the_scale_of_sample_weights_does_not_count(x, c):
    weights = x['sample_weight']
    if weights is None:  # all alike
        weights = torch.ones(x['s'][:, 0].shape, dtype=torch.float64)
    torch.testing.assert_close(
        value_of(x, sample_weight=c * weights),
        value_of(x),
        rtol=1e-9,
        atol=1e-12,
    )


@given(problems(), st.floats(-1e4, 1e4))
@examples(60)
def test_a_sample_without_weight_does_not_count(x, other):
    """Nor do its features, of either model; windows see their neighbours."""
    weights = x['sample_weight']
    if weights is None or x['window'] > 1:
        return
    off = (weights == 0)[:, None].expand_as(x['s'])
    changed = {k: x[k].masked_fill(off, other) for k in 'st'}
    assert torch.equal(value_of(x, **changed), value_of(x))
    gradient = gradient_of(x, **changed)
    assert torch.equal(gradient, gradient_of(x))
    assert not gradient[off].any()


# Sketches


@given(
    st.lists(st.integers(-50, 50), min_size=1, max_size=400),
    st.sampled_from([2, 4, 10, 64]),
    st.integers(1, 6),
    st.randoms(use_true_random=False),
)
@examples(80)
def test_sketches_of_any_parts_in_any_order(numbers, size, parts, random):
    random.shuffle(numbers)
    medians = [MedianSketch(1, size) for _ in range(parts)]
    means = [MeanSketch(1) for _ in range(parts)]
    left = list(numbers)
    while left:
        cut, part = random.randint(1, 70), random.randrange(parts)
        values, left = torch.tensor([left[:cut]]).float(), left[cut:]
        medians[part].update(values)
        means[part].update(values)
    for sketches in (medians, means):
        while len(sketches) > 1:  # a tree of merges, any tree
            random.shuffle(sketches)
            other = sketches.pop()
            sketches[random.randrange(len(sketches))].merge(other)
    values = torch.tensor([numbers])
    assert medians[0].count == means[0].count == len(numbers)
    bound = medians[0].rank_error() + 0.5 / len(numbers) + 1e-9
    assert rank_error(values, medians[0].result()) <= bound
    assert medians[0].result().item() in numbers
    mean = math.fsum(numbers) / len(numbers)
    assert means[0].result().item() == pytest.approx(mean, abs=1e-12)


# Folding


@given(
    base=st.integers(1, 6),
    width=st.integers(1, 40),
    classes=st.integers(1, 9),
    head=st.sampled_from(['LinearClsHead', 'MultiLabelLinearClsHead']),
    pool=st.sampled_from([None, 'GlobalMaxPooling']),
    size=st.sampled_from([1e-3, 1.0, 1e2]),
    seed=st.integers(0, 99),
)
@examples(12)
def test_a_folded_student_is_the_student(
    base, width, classes, head, pool, size, seed
):
    cfg = embedded(base, width, head=head, num_classes=classes)
    if pool is not None:
        neck = dict(type=pool, in_channels=8 * base, out_channels=width)
        cfg = classifier(base, head, neck, classes)
    torch.manual_seed(seed)
    student = MMPRETRAIN.build(cfg)
    for layer in (student.neck.fc, student.head.fc):
        nn.init.normal_(layer.weight, std=size)
        nn.init.normal_(layer.bias, std=size)
    folded = fold_embedding(ConfigDict(cfg), student.state_dict())
    plain = MMPRETRAIN.build(folded.model)
    plain.load_state_dict(folded.state)
    assert plain.head.fc.weight.shape == (classes, 8 * base)
    pixels = torch.randn(2, 3, 40, 24)
    with torch.no_grad():
        found, expected = (x.eval()(pixels) for x in (plain, student))
    largest = float(expected.abs().max())
    assert (found - expected).abs().max() <= 1e-4 * largest


# Connectors


class Head(nn.Module):
    """A model whose class layer is all there is."""

    def __init__(self, width, maps, window):
        super().__init__()
        self.cls = (
            nn.Conv2d(width, 3, window, padding=window // 2)
            if maps
            else nn.Linear(width, 3)
        )

    def forward(self, x):
        return self.cls(x)


def distiller_of(student, teacher, connector=None):
    losses = [
        dict(type='LSHLoss', num_hashes=7),
        dict(type='FeatureL2Loss'),
        dict(type='RelativeL2Loss'),
    ]
    connectors = None if connector is None else dict(cls=connector)
    distiller = MODELS.build(
        dict(
            _scope_='mmrazor',
            type='LSHFMDistiller',
            taps=dict(cls='cls'),
            losses=dict(cls=losses),
            connectors=connectors,
        )
    )
    distiller.prepare_from_student(student)
    distiller.prepare_from_teacher(teacher)
    return distiller


@given(
    ours=st.integers(1, 9),
    theirs=st.integers(1, 9),
    maps=st.booleans(),
    window=st.sampled_from([1, 3]),
    seed=st.integers(0, 99),
)
@examples(40)
def test_a_connector_at_a_tap_is_applied_before_the_losses(
    ours, theirs, maps, window, seed
):
    torch.manual_seed(seed)
    student, teacher = (Head(x, maps, window) for x in (ours, theirs))
    kind, more = 'Linear', {}
    if maps:
        kind, more = 'Conv2d', dict(kernel_size=1)
    names = ('in_channels', 'out_channels')
    if not maps:
        names = ('in_features', 'out_features')
    arguments = dict(zip(names, (ours, theirs), strict=True), **more)
    if ours != theirs:
        with pytest.raises(ConfigError, match=f'is {ours} wide and the teac'):
            distiller_of(student, teacher)
    distiller = distiller_of(
        student,
        teacher,
        dict(type='TorchNNConnector', module_name=kind, module_args=arguments),
    )
    size = (4, 5) if maps else ()
    s, t = (torch.randn(6, x, *size) for x in (ours, theirs))
    with distiller.student_recorders, distiller.teacher_recorders:
        student(s)
        teacher(t)
    found = distiller.compute_distill_losses()
    # By hand: a 1 x 1 convolution is a matrix, too.
    layer = distiller.connectors['cls'].func
    matrix = layer.weight.view(theirs, ours)
    mapped = torch.einsum('oi,ni...->no...', matrix, s)
    mapped = mapped + layer.bias.view(-1, *[1] * len(size))
    side = window if maps else 1
    lsh = distiller.distill_losses['loss_cls_lsh']
    assert lsh.weight.shape == (7, theirs * side**2)
    close = dict(rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(
        found['loss_cls_lsh'],
        lsh_loss(mapped, t, lsh.weight, lsh.bias),
        **close,
    )
    for name, relative in (('featurel2', False), ('relativel2', True)):
        torch.testing.assert_close(
            found[f'loss_cls_{name}'],
            l2_loss(mapped, t, None, side, relative),
            **close,
        )
    sum(found.values()).backward()
    assert layer.weight.grad.isfinite().all() and layer.weight.grad.any()
