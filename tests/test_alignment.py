"""Directions, magnitudes and codes against loops in float64."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from lshfm_mm.distillers.alignment import (
    alignment_means,
    alignment_sums,
    angles,
    equal_codes,
    rows_of,
)
from lshfm_mm.errors import ConfigError
from lshfm_mm.losses.hashing import project

from .test_training import epochs


def draw(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator)


def test_angles_equal_the_arc_cosine():
    student, teacher = draw(20, 7), draw(20, 7, seed=1)
    expected = [
        math.degrees(
            math.acos(
                sum(a * b for a, b in zip(s, t, strict=True))
                / math.hypot(*s)
                / math.hypot(*t)
            )
        )
        for s, t in zip(student.tolist(), teacher.tolist(), strict=True)
    ]
    found = angles(student, teacher)
    assert found.tolist() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize('degrees', [0, 1e-3, 1, 90, 179, 180])
def test_small_and_large_angles_are_exact(degrees):
    """The arc cosine of a float32 cosine is off by 0.02 degrees near 0."""
    east = torch.tensor([[3.0, 0.0]])
    turned = torch.tensor(
        [[math.cos(math.radians(degrees)), math.sin(math.radians(degrees))]]
    )
    found = angles(east, 1e-6 * turned).item()
    assert found == pytest.approx(degrees, rel=1e-4, abs=1e-5)


def test_a_feature_of_zero_has_no_angle():
    found = angles(torch.zeros(1, 3), torch.ones(1, 3))
    assert found.isnan().all()


@pytest.mark.parametrize('block', [1, 2**21])
def test_equal_codes_are_counted_by_a_loop(block, monkeypatch):
    monkeypatch.setattr('lshfm_mm.losses.hashing.BLOCK_ON_CPU', block)
    student, teacher = draw(6, 4), draw(6, 4, seed=1)
    weight, bias = draw(9, 4, seed=2), draw(9, seed=3)
    expected = []
    for s, t in zip(student.double(), teacher.double(), strict=True):
        sides = [
            (w @ s + b > 0) == (w @ t + b > 0)
            for w, b in zip(weight.double(), bias.double(), strict=True)
        ]
        expected.append(sum(map(bool, sides)) / 9)
    found = equal_codes(student, teacher, weight, bias)
    assert found.tolist() == pytest.approx(expected)


def test_codes_of_a_map_are_those_of_its_windows():
    student, teacher = draw(2, 3, 4, 5), draw(2, 3, 4, 5, seed=1)
    weight, bias = draw(8, 27, seed=2), draw(8, seed=3)
    keep = draw(2, 4, 5, seed=4) > 0
    sides = [
        torch.nn.functional.unfold(x, 3, padding=1).mT @ weight.T + bias > 0
        for x in (student, teacher)
    ]
    expected = (sides[0] == sides[1]).float().mean(dim=-1).view(2, 4, 5)[keep]
    found = equal_codes(student, teacher, weight, bias, keep)
    assert torch.allclose(found, expected)


def test_codes_agree_as_often_as_angles_say():
    """1 - angle / 180 degrees (paper, section 3.2)."""
    student, teacher = draw(4, 8), draw(4, 8, seed=1)
    weight = draw(40_000, 8, seed=2)
    found = equal_codes(student, teacher, weight, torch.zeros(len(weight)))
    expected = 1 - angles(student, teacher) / 180
    assert torch.allclose(found, expected, atol=0.01)


def test_codes_under_autocast_are_those_of_float32():
    student, teacher = draw(50, 64), draw(50, 64, seed=1)
    weight, bias = draw(256, 64, seed=2), torch.zeros(256)
    expected = equal_codes(student, teacher, weight, bias)
    with torch.autocast('cpu', torch.bfloat16):
        found = equal_codes(student, teacher, weight, bias)
        rough = project(student, weight, bias)
    assert rough.dtype == torch.bfloat16  # else this proves nothing
    assert torch.equal(found, expected)


def test_rows_are_the_samples_of_a_map():
    feature = draw(2, 3, 4, 5)
    keep = draw(2, 4, 5, seed=1) > 0
    rows = rows_of(feature.bfloat16(), keep)
    places = keep.nonzero().tolist()
    assert rows.dtype == torch.float32
    assert len(rows) == len(places) > 1
    for row, (image, y, x) in zip(rows, places, strict=True):
        assert torch.equal(row, feature.bfloat16()[image, :, y, x].float())
    assert len(rows_of(feature)) == 2 * 4 * 5


def test_means_are_of_all_levels_and_of_samples_that_count():
    levels = [
        (draw(5, 6), draw(5, 6, seed=1), draw(5, seed=2) > 0),
        (draw(2, 6, 3, 3, seed=3), draw(2, 6, 3, 3, seed=4), None),
        (draw(0, 6), draw(0, 6), None),
    ]
    levels[1][0][0, :, 0, 0] = 0  # no angle, but a norm
    weight, bias = draw(40, 6, seed=5), draw(40, seed=6)
    found = alignment_means(alignment_sums(levels, weight, bias))
    rows = [
        np.concatenate(
            [rows_of(level[i], level[2]).double().numpy() for level in levels]
        )
        for i in (0, 1)
    ]
    norms = [np.linalg.norm(x, axis=1) for x in rows]
    some = norms[0] > 0
    cosines = (rows[0] * rows[1]).sum(1)[some] / (norms[0] * norms[1])[some]
    assert (~some).sum() == 1
    codes = [x @ weight.double().numpy().T + bias.numpy() > 0 for x in rows]
    assert found == pytest.approx(
        dict(
            angle=np.degrees(np.arccos(cosines)).mean(),
            norm_ratio=norms[0].mean() / norms[1].mean(),
            equal_codes=(codes[0] == codes[1]).mean(),
        ),
        rel=1e-5,
    )


def test_what_has_no_sample_has_no_mean():
    assert alignment_means(alignment_sums([])) == {}
    zero = torch.zeros(2, 3)
    found = alignment_means(alignment_sums([(zero, zero + 1, None)]))
    assert found == dict(norm_ratio=0.0)


def test_the_hook_logs_what_the_losses_compare(make_config):
    """Against numpy, on what plain hooks save of both class layers."""
    hook = dict(type='AlignmentHook', interval=2)
    cfg = make_config('faster_rcnn_lshfm', epochs(1))
    cfg.custom_hooks = [hook]
    cfg.experiment_name = Path(cfg.work_dir).name
    runner = Runner.from_cfg(cfg)
    saved = {'student': [], 'teacher': []}
    for who, calls in saved.items():
        layer = getattr(runner.model, who).roi_head.bbox_head.fc_cls
        layer.register_forward_hook(
            lambda _, inputs, output, calls=calls: calls.append(
                inputs[0].detach().double().numpy()
            )
        )
    runner.train()
    loss = runner.model.distiller.distill_losses.loss_roi_lsh
    weight, bias = loss.weight.double().numpy(), loss.bias.numpy()
    scalars = runner.message_hub.log_scalars
    logged = {
        key.removeprefix('train/roi.'): buffer.data[0]
        for key, buffer in scalars.items()
        if key.startswith('train/roi.')
    }
    (log,) = Path(cfg.work_dir).glob('*/*.log')
    lines = [x for x in log.read_text().splitlines() if 'Epoch(train)' in x]
    assert ['roi.angle: ' in x for x in lines] == [False] + [True] * 5
    for index, iteration in enumerate((2, 4, 6)):
        rows = [calls[iteration - 1] for calls in saved.values()]
        norms = [np.linalg.norm(x, axis=1) for x in rows]
        cosines = (rows[0] * rows[1]).sum(1) / norms[0] / norms[1]
        codes = [x @ weight.T + bias > 0 for x in rows]
        found = {key: values[index] for key, values in logged.items()}
        assert found == pytest.approx(
            dict(
                angle=np.degrees(np.arccos(cosines)).mean(),
                norm_ratio=norms[0].mean() / norms[1].mean(),
                equal_codes=(codes[0] == codes[1]).mean(),
            ),
            rel=1e-4,
        )


def test_a_tap_named_loss_is_refused(make_config):
    """MMEngine would take its statistics for losses."""
    cfg = make_config('faster_rcnn_lshfm', epochs(1))
    cfg.model.distiller.taps = dict(myloss='roi_head.bbox_head.fc_cls')
    cfg.model.distiller.losses = dict(myloss=[dict(type='LSHLoss')])
    cfg.custom_hooks = [dict(type='AlignmentHook')]
    cfg.experiment_name = Path(cfg.work_dir).name
    with pytest.raises(ConfigError, match="^taps.myloss: .*'loss' in its na"):
        Runner.from_cfg(cfg).train()


def test_the_interval_is_checked():
    with pytest.raises(ConfigError, match='AlignmentHook.interval: must be'):
        HOOKS.build(dict(type='AlignmentHook', interval=0))
