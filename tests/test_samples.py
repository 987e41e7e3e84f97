"""Which samples count: against explicit loops."""

import pytest
import torch
from mmdet.registry import MODELS as DETECTION
from torch.nn import functional as F

from lshfm_mm.distillers.roi_sampling import pick_rois
from lshfm_mm.distillers.sample_weights import (
    class_confidence,
    in_boxes,
    level_weights,
    not_ignored,
    sample_weights,
)


@pytest.fixture
def draw():
    generator = torch.Generator().manual_seed(0)
    return lambda *shape: torch.rand(*shape, generator=generator)


def test_weights_equal_a_loop(draw):
    valid, foreground = draw(4, 10) < 0.7, draw(4, 10) < 0.3
    valid[1] = False
    foreground[2] = False
    confidence = draw(4, 10)
    weights = sample_weights(valid, foreground, confidence)
    groups = [i for i in range(4) if valid[i].any()]
    for i in range(4):
        parts = [
            [j for j in range(10) if valid[i, j] and foreground[i, j] == side]
            for side in (True, False)
        ]
        parts = [part for part in parts if part]
        for j in range(10):
            expected = 0.0
            for part in parts:
                if j in part:
                    total = sum(confidence[i, k].item() for k in part)
                    share = confidence[i, j].item() / total
                    expected = share / len(parts) / len(groups)
            assert weights[i, j].item() == pytest.approx(expected, rel=1e-5)
    assert weights.sum().item() == pytest.approx(1)


def test_weights_without_a_sample_are_zero():
    none = torch.zeros(2, 3, dtype=torch.bool)
    assert not sample_weights(none, none, torch.rand(2, 3)).any()
    assert sample_weights(none[:0]).shape == (0, 3)


@pytest.mark.parametrize('together', [True, False])
def test_levels_weigh_together_or_each_for_itself(draw, together):
    features = [draw(2, 5, 4, 4), draw(2, 5, 2, 2)]
    valid = [draw(2, 16) < 0.5, draw(2, 4) < 0.5]
    weights = level_weights(features, together, valid)
    assert [w.shape for w in weights] == [(2, 4, 4), (2, 2, 2)]
    for i in range(2):
        counts = [int(v[i].sum()) for v in valid]
        assert min(counts) > 0
        for w, v, count in zip(weights, valid, counts, strict=True):
            n = sum(counts) if together else count
            expected = v[i].view(w[i].shape) / (2 * n)
            torch.testing.assert_close(w[i], expected)


def test_rois_are_one_group(draw):
    foreground = torch.tensor([[True, False, False, False, True]])
    [weights] = level_weights([draw(5, 3)], False, foreground=[foreground])
    expected = torch.tensor([1 / 4, 1 / 6, 1 / 6, 1 / 6, 1 / 4])
    torch.testing.assert_close(weights, expected)


def test_in_boxes_equals_a_loop():
    boxes = [
        torch.tensor([[3.0, 0.0, 30.0, 9.0], [40.0, 20.0, 64.0, 32.0]]),
        torch.zeros(0, 4),
    ]
    found = in_boxes(boxes, (4, 8), (32, 64)).view(2, 4, 8)
    for y in range(4):
        for x in range(8):
            cx, cy = 8 * x + 4, 8 * y + 4
            inside = any(
                x1 <= cx < x2 and y1 <= cy < y2
                for x1, y1, x2, y2 in boxes[0].tolist()
            )
            assert found[0, y, x] == inside
    assert found[0].sum() == 4 + 6
    assert not found[1].any()


def test_a_location_counts_unless_all_its_anchors_are_ignored():
    # Two images, 1 x 2 locations, three anchors each, as heads flatten them.
    weights = torch.tensor([0, 0, 0, 0, 1, 0, 1, 1, 1, 0, 0, 0.0])
    assert not_ignored(weights, (2, 2)).tolist() == [
        [False, True],
        [True, False],
    ]


def test_confidence_is_of_the_best_foreground_class(draw):
    logits = draw(6, 4)
    softmax, sigmoid = (
        DETECTION.build(dict(type='CrossEntropyLoss', use_sigmoid=x))
        for x in (False, True)
    )
    for loss, scores in (
        (softmax, F.softmax(logits, dim=1)),
        (sigmoid, logits.sigmoid()),
    ):
        expected = torch.stack([max(row[:3]) for row in scores])
        found = class_confidence(logits, loss, 3)
        torch.testing.assert_close(found, expected[None])
    maps = draw(2, 6, 3, 4)
    found = class_confidence(maps, sigmoid, 3)
    torch.testing.assert_close(
        found, maps.sigmoid().max(dim=1).values.view(2, 12)
    )


def test_confidence_of_seesaw_is_what_it_makes_of_its_logits(draw):
    """Its last two logits are objectness."""
    loss = DETECTION.build(dict(type='SeesawLoss', num_classes=3))
    logits = draw(6, 5)
    scores = loss.get_activation(logits)
    assert scores.shape == (6, 4)  # with background
    torch.testing.assert_close(
        class_confidence(logits, loss, 3), scores[None, :, :3].amax(2)
    )


def rois_of(counts):
    images = torch.cat([torch.full((n,), float(i)) for i, n in counts])
    return torch.cat([images[:, None], torch.rand(len(images), 4)], dim=1)


def test_picked_rois_are_foreground_first_and_then_a_draw():
    rois = rois_of([(0, 10), (1, 3), (2, 10)])
    foreground = torch.zeros(23, dtype=torch.bool)
    foreground[[2, 7, 10]] = True  # two of image 0, one of image 1
    foreground[13:] = True  # all of image 2
    state = torch.get_rng_state()
    draws = {
        tuple(pick_rois(rois, foreground, 4, s).tolist()) for s in range(20)
    }
    assert torch.equal(torch.get_rng_state(), state)
    assert len(draws) > 10
    seen = set()
    for draw in draws:
        assert list(draw) == sorted(draw)
        images = [[x for x in draw if rois[x, 0] == i] for i in range(3)]
        assert [len(x) for x in images] == [4, 3, 4]
        assert {2, 7} <= set(images[0])
        seen |= set(draw)
    assert seen == set(range(23))  # each has its turn
    again = pick_rois(rois, foreground, 4, 0)
    assert torch.equal(again, pick_rois(rois, foreground, 4, 0))


def test_no_roi_to_pick():
    none = torch.zeros(0, dtype=torch.bool)
    assert pick_rois(torch.zeros(0, 5), none, 4, 0).shape == (0,)
