"""Maps of other strides and tokens, against explicit loops in float64."""

import math
from itertools import combinations, product
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mmdet.registry import MODELS as MMDET_MODELS
from mmrazor.registry import MODELS
from torch import nn

from lshfm_mm.connectors import ResampleConnector, TokensToMap
from lshfm_mm.distillers.connected import pair_by_size
from lshfm_mm.errors import ConfigError

from .test_detectors import PLAIN_L2, losses_of, retinanet
from .test_properties import examples

SIDE = st.integers(1, 9)
OUT = dict(record='output')
RESAMPLE = dict(type='ResampleConnector')
TOKENS = dict(type='TokensToMap')


def axis(old, new, mode):
    """Weights of the old locations in each new one, row by row."""
    rows = []
    for i in range(new):
        if mode == 'area':
            first, last = i * old // new, -(-(i + 1) * old // new)
            row = [float(first <= j < last) for j in range(old)]
        else:  # a triangle as wide as the coarser of the two grids
            centre, reach = (i + 0.5) * old / new, max(old / new, 1.0)
            row = [
                max(0.0, 1 - abs(j + 0.5 - centre) / reach) for j in range(old)
            ]
        rows.append([x / sum(row) for x in row])
    return rows


def resampled(maps, size, mode):
    """Location by location, in Python's own floats; (B, C, *size)."""
    if tuple(maps.shape[2:]) == tuple(size):
        return maps
    height, width = (
        axis(old, new, mode)
        for old, new in zip(maps.shape[2:], size, strict=True)
    )
    out = []
    for y, x in product(range(size[0]), range(size[1])):
        terms = [
            maps[:, :, j, i] * (height[y][j] * width[x][i])
            for j, i in product(range(maps.shape[2]), range(maps.shape[3]))
            if height[y][j] * width[x][i]
        ]
        out.append(sum(terms))
    return torch.stack(out, dim=2).unflatten(2, tuple(size))


@given(SIDE, SIDE, SIDE, SIDE, st.sampled_from(['bilinear', 'area']))
@examples(60)
def test_a_resampled_map_is_its_definition(h, w, height, width, mode):
    x = torch.randn(2, 3, h, w, dtype=torch.float64, requires_grad=True)
    found = ResampleConnector(mode).resample(x, (height, width))
    expected = resampled(x, (height, width), mode)
    close = dict(rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found, expected, **close)
    way = torch.randn_like(found)
    gradients = [
        torch.autograd.grad((y * way).sum(), x, retain_graph=True)[0]
        for y in (found, expected)
    ]
    torch.testing.assert_close(*gradients, **close)


@given(
    st.lists(st.integers(2, 40), min_size=1, max_size=5, unique=True),
    st.lists(st.integers(2, 40), min_size=1, max_size=5, unique=True),
)
@examples(60)
def test_pairs_are_in_order_and_each_level_has_one_at_most(ours, theirs):
    ours, theirs = (sorted(x, reverse=True) for x in (ours, theirs))
    pairs = pair_by_size(*([(x, x + 1) for x in y] for y in (ours, theirs)))
    assert len(pairs) == min(len(ours), len(theirs))
    for column in zip(*pairs, strict=True):
        assert [*column] == sorted({*column})

    def apart(s, t):
        areas = [x * (x + 1) for x in (ours[s], theirs[t])]
        return abs(math.log(areas[0]) - math.log(areas[1]))

    ways = product(
        *(combinations(range(len(x)), len(pairs)) for x in (ours, theirs))
    )
    least = min(sum(map(apart, *way)) for way in ways)
    assert sum(apart(*x) for x in pairs) == pytest.approx(least, abs=1e-12)


def test_a_stride_of_14_meets_that_of_16():
    image = (800, 1344)
    levels = [tuple(-(-x // s) for x in image) for s in (8, 16, 32, 64)]
    patches = [tuple(x // 14 for x in image)]
    assert pair_by_size(levels, patches) == [(1, 0)]
    assert pair_by_size(patches, levels) == [(0, 1)]
    assert pair_by_size(levels, levels[1:]) == [(1, 0), (2, 1), (3, 2)]


class Neck(nn.Module):
    """Gives the maps that it gets."""

    def __init__(self):
        super().__init__()
        self.neck = nn.Identity()

    def forward(self, maps):
        return self.neck(maps)


class Pyramid(nn.Module):
    """Gives maps, and their locations one after another."""

    def __init__(self):
        super().__init__()
        self.maps, self.rows = nn.Identity(), nn.Identity()

    def forward(self, maps):
        rows = [x.flatten(2).transpose(1, 2) for x in self.maps(maps)]
        return self.rows(torch.cat(rows, dim=1))


class Patches(nn.Module):
    """A ViT without layers: patches, behind some tokens of no place."""

    def __init__(self, patch, width, extra):
        super().__init__()
        self.extra = extra
        self.projection = nn.Conv2d(3, width, patch, patch)
        self.norm = nn.Identity()

    def forward(self, image):
        tokens = self.projection(image).flatten(2).transpose(1, 2)
        front = tokens.mean(dim=1, keepdim=True).expand(-1, self.extra, -1)
        return self.norm(torch.cat([front, tokens], dim=1))


def distiller_of(student, teacher, tap, losses=(PLAIN_L2,), **more):
    distiller = MODELS.build(
        dict(
            _scope_='mmrazor',
            type='LSHFMDistiller',
            taps=dict(fpn=dict(tap, **OUT)),
            losses=dict(fpn=[*losses]),
            **{k: v and dict(fpn=v) for k, v in more.items()},
        )
    ).double()
    distiller.prepare_from_student(student)
    distiller.prepare_from_teacher(teacher)
    return distiller


def annotated(shapes):
    return [
        SimpleNamespace(metainfo=dict(img_shape=x), img_shape=x)
        for x in shapes
    ]


def run(distiller, student, teacher, image, shapes):
    with distiller.student_recorders, distiller.teacher_recorders:
        student[0](*student[1:])
        teacher[0](*teacher[1:])
    return distiller.compute_distill_losses(annotated(shapes), image)


def loop(pairs, image, shapes, inside):
    """L2 of pairs of maps, location by location."""
    total = 0.0
    for ours, theirs in pairs:
        images, _, height, width = ours.shape
        means = []
        for i in range(images):
            places = [
                (y, x)
                for y, x in product(range(height), range(width))
                if not inside
                or (
                    (y + 0.5) * image[0] / height < shapes[i][0]
                    and (x + 0.5) * image[1] / width < shapes[i][1]
                )
            ]
            if places:
                each = [
                    (ours[i, :, y, x] - theirs[i, :, y, x]).square().mean()
                    for y, x in places
                ]
                means.append(sum(each) / len(each))
        total = total + sum(means) / max(len(means), 1)
    return total


@st.composite
def batches(draw):
    """An image, what of it each of two images fills, and seeded numbers."""
    image = draw(st.sampled_from([(28, 28), (56, 42), (14, 70)]))
    shapes = [
        (draw(st.integers(1, image[0])), draw(st.integers(1, image[1])))
        for _ in range(2)
    ]
    torch.manual_seed(draw(st.integers(0, 999)))
    return image, shapes


@given(
    batches(),
    st.integers(0, 5),
    st.sampled_from(['student', 'teacher']),
    st.sampled_from(['bilinear', 'area']),
    st.booleans(),
)
@examples(40)
def test_tokens_of_a_vit_beside_a_pyramid(batch, extra, moved, mode, inside):
    """Values and gradients; padding counts unless it must not."""
    image, shapes = batch
    maps = [
        torch.randn(2, 5, -(-image[0] // s), -(-image[1] // s)).double()
        for s in (7, 20)
    ]
    maps = [x.requires_grad_() for x in maps]
    student, teacher = Neck(), Patches(14, 5, extra).double()
    resampler = dict(RESAMPLE, mode=mode)
    distiller = distiller_of(
        student,
        teacher,
        dict(
            student='neck',
            teacher='norm',
            weights='inside' if inside else 'uniform',
        ),
        connectors=resampler if moved == 'student' else None,
        teacher_connectors=[TOKENS]
        + ([resampler] if moved == 'teacher' else []),
    )
    pixels = torch.randn(2, 3, *image).double()
    found = run(distiller, (student, maps), (teacher, pixels), image, shapes)
    (found,) = found.values()
    grid = teacher.projection(pixels).detach()
    place = 0  # of the level with the nearest size
    places = [math.prod(x.shape[2:]) for x in (*maps, grid)]
    if abs(math.log(places[1] / places[2])) < abs(
        math.log(places[0] / places[2])
    ):
        place = 1
    if moved == 'student':
        pair = resampled(maps[place], grid.shape[2:], mode), grid
    else:
        pair = maps[place], resampled(grid, maps[place].shape[2:], mode)
    expected = loop([pair], image, shapes, inside)
    if not isinstance(expected, torch.Tensor):  # no centre lies inside
        assert found == 0
        return
    close = dict(rtol=1e-6, atol=1e-9)  # weights are float32
    torch.testing.assert_close(found, expected, **close)
    gradients = [
        torch.autograd.grad(x, maps, retain_graph=True, allow_unused=True)
        for x in (found, expected)
    ]
    for ours, theirs in zip(*gradients, strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            torch.testing.assert_close(ours, theirs, **close)


@given(batches(), st.integers(1, 6), st.integers(1, 6), st.booleans())
@examples(25)
def test_connectors_one_after_another(batch, ours, theirs, first):
    """A convolution before or behind, and a linear layer before tokens."""
    image, shapes = batch
    maps = [torch.randn(2, ours, 4, 3).double().requires_grad_()]
    teacher = Patches(14, theirs, 2).double()
    pixels = torch.randn(2, 3, *image).double()
    grid = teacher.projection(pixels).detach()
    conv = dict(type='ConvConnector', in_channels=ours, out_channels=theirs)
    steps = [conv, RESAMPLE] if first else [RESAMPLE, conv]
    student = Neck()
    distiller = distiller_of(
        student,
        teacher,
        dict(student='neck', teacher='norm'),
        connectors=steps,
        teacher_connectors=TOKENS,
    )
    (layer,) = distiller.connectors['fpn'][0 if first else 1].convs
    found = run(distiller, (student, maps), (teacher, pixels), image, shapes)
    moved = resampled(maps[0], grid.shape[2:], 'bilinear')
    mapped = torch.einsum('oi,nihw->nohw', layer.weight[..., 0, 0], moved)
    mapped = mapped + layer.bias[:, None, None]
    expected = loop([(mapped, grid)], image, shapes, False)
    torch.testing.assert_close(
        found['loss_fpn_featurel2'], expected, rtol=1e-6, atol=1e-9
    )
    expected.backward()
    assert layer.weight.grad.any()


def test_a_student_of_tokens_behind_a_linear_layer():
    torch.manual_seed(0)
    student, teacher = Patches(14, 4, 1).double(), Neck()
    pixels = torch.randn(2, 3, 28, 42).double()
    maps = [torch.randn(2, 6, 2, 3).double()]
    linear = dict(type='LinearConnector', in_features=4, out_features=6)
    distiller = distiller_of(
        student,
        teacher,
        dict(student='norm', teacher='neck', weights='inside'),
        losses=[dict(type='LSHLoss', feature_dim=6, std=0.5), PLAIN_L2],
        connectors=[linear, TOKENS],
    )
    shapes = [(28, 42), (28, 20)]  # of the second, two columns of centres
    found = run(
        distiller, (student, pixels), (teacher, maps), (28, 42), shapes
    )
    layer = distiller.connectors['fpn'][0].linear
    grid = student.projection(pixels)
    mapped = torch.einsum('oi,nihw->nohw', layer.weight, grid)
    mapped = mapped + layer.bias[:, None, None]
    expected = loop([(mapped, maps[0])], (28, 42), shapes, True)
    close = dict(rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(found['loss_fpn_featurel2'], expected, **close)
    lsh = distiller.distill_losses['loss_fpn_lsh']
    total = 0.0
    for i, columns in enumerate((3, 1)):
        each = []
        for y, x in product(range(2), range(columns)):
            sides = [
                lsh.weight @ z[i, :, y, x] + lsh.bias
                for z in (mapped, maps[0])
            ]
            sign = torch.where(sides[1] > 0, 1.0, -1.0)
            each.append((1 + (-sign * sides[0]).exp()).log().mean())
        total = total + sum(each) / len(each) / 2
    torch.testing.assert_close(found['loss_fpn_lsh'], total, **close)


def test_tokens_without_a_grid_are_samples():
    torch.manual_seed(0)
    student, teacher = (Patches(14, 4, x).double() for x in (2, 2))
    distiller = distiller_of(
        student,
        teacher,
        dict(layer='norm'),
        losses=[dict(type='LSHLoss', feature_dim=4, std=0.5), PLAIN_L2],
    )
    pixels = torch.randn(2, 3, 28, 28).double()
    image = (28, 28)
    found = run(
        distiller, (student, pixels), (teacher, pixels), image, [image] * 2
    )
    ours, theirs = student(pixels), teacher(pixels)
    assert ours.shape == (2, 2 + 4, 4)
    expected = (ours - theirs).square().mean()
    torch.testing.assert_close(found['loss_fpn_featurel2'], expected)
    assert found['loss_fpn_lsh'].isfinite()


def at_tap(student, teacher, tap, maps, **more):
    """Losses of what two models without layers get."""
    distiller = distiller_of(student, teacher, tap, **more)
    image = (28, 28)
    return run(
        distiller, (student, maps[0]), (teacher, maps[1]), image, [image] * 2
    )


MAPS = [torch.randn(2, 4, 4, 4).double()]
ROWS = [torch.randn(2, 4).double()]
PIXELS = torch.randn(2, 3, 28, 28).double()


def test_a_grid_of_several_levels():
    """A layer that gives a list tells the places of tokens of all levels."""
    generator = torch.Generator().manual_seed(0)
    student, teacher = (
        [torch.randn(2, 3, x, x, generator=generator).double() for x in (4, 2)]
        for _ in range(2)
    )
    losses = at_tap(
        Pyramid(),
        Pyramid(),
        dict(layer='rows'),
        (student, teacher),
        connectors=dict(TOKENS, grid='maps'),
        teacher_connectors=dict(TOKENS, grid='maps'),
    )
    (value,) = losses.values()
    maps = at_tap(Neck(), Neck(), dict(layer='neck'), (student, teacher))
    (expected,) = maps.values()
    assert float(value) == pytest.approx(float(expected)) and value > 0


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (
            lambda: ResampleConnector('cubic'),
            "ResampleConnector.mode: must be one of ('bilinear', 'area'), but",
        ),
        (
            lambda: TokensToMap(-1),
            'TokensToMap.num_extra_tokens: must be an int >= 0, but got -1',
        ),
        (
            lambda: at_tap(
                Neck(),
                Neck(),
                dict(layer='neck'),
                (MAPS, ROWS),
                connectors=RESAMPLE,
            ),
            'taps.fpn: ResampleConnector takes maps (B, C, H, W), but got (2, '
            '4); put TokensToMap before it',
        ),
        (
            lambda: at_tap(
                Neck(),
                Patches(14, 4, 3).double(),
                dict(student='neck', teacher='norm'),
                (MAPS, PIXELS),
                teacher_connectors=dict(TOKENS, num_extra_tokens=1),
            ),
            'TokensToMap: the layer gives 7 tokens, its model has 2 x 2 '
            'places, and num_extra_tokens is 1; leave that out, or set grid',
        ),
        (
            lambda: at_tap(
                Neck(),
                Patches(14, 4, 3).double(),
                dict(student='neck', teacher='projection'),
                (MAPS, PIXELS),
                teacher_connectors=TOKENS,
            ),
            'TokensToMap: takes tokens, (B, L, C), but the layer gives (2, 4, '
            '2, 2); remove it',
        ),
        (
            lambda: at_tap(
                Neck(),
                Neck(),
                dict(layer='neck'),
                (MAPS, MAPS),
                connectors=TOKENS,
            ),
            'TokensToMap.grid: cannot be found for the tap fpn, Neck cuts no '
            'image into patches; give the layer',
        ),
        (
            lambda: at_tap(
                Neck(),
                Patches(14, 4, 3).double(),
                dict(student='neck', teacher='norm'),
                (MAPS, PIXELS),
                teacher_connectors=dict(TOKENS, grid='projektion'),
            ),
            'TokensToMap.grid: for the tap fpn, Patches has no layer '
            "'projektion'; did you mean 'projection'?",
        ),
        (
            lambda: at_tap(
                Patches(14, 4, 3).double(),
                Neck(),
                dict(student='norm', teacher='neck'),
                (PIXELS, MAPS),
                connectors=[
                    TOKENS,
                    dict(
                        type='LinearConnector', in_features=4, out_features=4
                    ),
                ],
            ),
            'LinearConnector: takes features, (N, D), or tokens, (B, L, C), '
            'but got maps (2, 4, 2, 2); take ConvConnector, or put',
        ),
        (
            lambda: at_tap(
                Neck(),
                Neck(),
                dict(layer='neck'),
                (MAPS, MAPS),
                teacher_connectors=dict(type='LinearConnector'),
            ),
            'teacher_connectors.fpn: has parameters, and a teacher that',
        ),
        (
            lambda: at_tap(
                Neck(),
                Neck(),
                dict(layer='neck'),
                (MAPS, MAPS),
                teacher_connectors=dict(
                    type='ConvConnector', in_channels=4, out_channels=4
                ),
            ),
            'teacher_connectors.fpn: has parameters, and a teacher that '
            'learns could make itself easy to mimic; put it into connectors',
        ),
        (
            lambda: at_tap(
                Neck(),
                Neck(),
                dict(layer='neck'),
                (MAPS, MAPS),
                connectors=RESAMPLE,
                teacher_connectors=[RESAMPLE],
            ),
            'connectors.fpn: has more than one ResampleConnector, with that '
            'of teacher_connectors; keep one',
        ),
        (
            lambda: at_tap(
                Neck(),
                Neck(),
                dict(layer='neck'),
                (MAPS, MAPS),
                connectors=[
                    dict(type='LinearConnector'),
                    dict(type='ConvConnector'),
                ],
            ),
            'connectors.fpn: the width between its connectors is not known; '
            'give all of their widths',
        ),
        (
            lambda: at_tap(
                Neck(),
                Neck(),
                dict(layer='neck', weights='inside'),
                (ROWS, ROWS),
            ),
            "taps.fpn.weights: 'inside' weighs locations of maps, but the "
            'features are (2, 4); put TokensToMap on both sides',
        ),
        (
            lambda: at_tap(
                Neck(),
                Neck(),
                dict(layer='neck'),
                ([torch.randn(2, 4, 4).double()], MAPS),
                connectors=dict(
                    type='ConvConnector', in_channels=4, out_channels=4
                ),
            ),
            'ConvConnector: takes maps, (B, C, H, W), but got (2, 4, 4); take '
            'LinearConnector',
        ),
    ],
)
def test_what_cannot_be_connected_is_one_line(make, message):
    with pytest.raises(ConfigError) as error:
        make()
    assert str(error.value).startswith(message)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('moved', ['student', 'teacher'])
def test_what_counts_follows_its_place_to_the_other_grid(batch, moved):
    """Locations that the student ignores, and the teacher's confidence."""
    field = 'connectors' if moved == 'student' else 'teacher_connectors'
    teacher = MMDET_MODELS.build(retinanet(4))
    student = retinanet(4)
    student.train_cfg.assigner.update(neg_iou_thr=0.02, pos_iou_thr=0.3)
    model = MODELS.build(
        dict(
            _scope_='mmrazor',
            type='FeatureMimicDistill',
            architecture=student,
            teacher=teacher,
            teacher_size=(96, 128),
            distiller=dict(
                type='LSHFMDistiller',
                taps=dict(
                    cls=dict(
                        layer='bbox_head.retina_cls',
                        weights=['inside', 'confidence'],
                    )
                ),
                losses=dict(cls=[PLAIN_L2]),
                **{field: dict(cls=RESAMPLE)},
            ),
        )
    )
    seen = []

    def look(values, compared):
        records = model.distiller.records
        seen.append((compared['cls'], records.labels('cls')))
        seen.append(records.logits('cls'))

    model.distiller.observers.append(look)
    losses_of(model.train(), batch)
    (observed, labels), logits = seen
    own = [8, 4, 2, 1, 1]
    raw = []
    for level, (_, counts), scores, size in zip(
        observed.levels, labels, logits, own, strict=True
    ):
        shape = level.student.shape[2:]
        if size > 1:  # of 1 px are both
            assert (tuple(shape) == (size, size)) == (moved == 'teacher')
        valid = counts.view(2, size, size, -1).amax(dim=3) > 0
        best = scores.sigmoid().amax(dim=1)
        weights = torch.zeros(2, *shape, dtype=torch.float64)
        for y, x in product(*map(range, shape)):
            places = [
                (
                    int((y + 0.5) * z.shape[1] / shape[0]),
                    int((x + 0.5) * z.shape[2] / shape[1]),
                )
                for z in (valid, best)
            ]
            for i in range(2):
                weights[i, y, x] = float(valid[(i, *places[0])]) * float(
                    best[(i, *places[1])]
                )
        raw.append(weights)
    assert any((x == 0).any() for x in raw)  # something is ignored
    for i in range(2):
        total = sum(x[i].sum() for x in raw)
        for found, expected in zip(observed.weights, raw, strict=True):
            torch.testing.assert_close(
                found[i].double(), expected[i] / total / 2
            )
