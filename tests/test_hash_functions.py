"""The hash functions of a loss: in checkpoints, and some of them a step."""

import itertools

import pytest
import torch

from lshfm_mm.errors import ConfigError
from lshfm_mm.losses import LSHLoss, lsh_loss
from lshfm_mm.losses.hashing import some_of

from .test_losses import loop_lsh

D, K = 5, 9


def make(**changed):
    return LSHLoss(**{'feature_dim': D, 'num_hashes': K, 'std': 0.3} | changed)


@pytest.fixture
def features():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 6, D, generator=generator).unbind()


def test_a_checkpoint_holds_no_weights_and_gives_the_same_loss(features):
    saved = make(seed=3).state_dict()
    assert {k: v.numel() for k, v in saved.items()} == {'bias': K, 'sums': K}
    target = make(seed=3)
    target.load_state_dict(saved)
    assert torch.equal(target(*features), make(seed=3)(*features))


@pytest.mark.parametrize('changed', [dict(seed=1), dict(std=0.31)], ids=str)
@pytest.mark.parametrize('wrapped', [False, True])
def test_other_hash_functions_are_refused(changed, wrapped):
    """By MMEngine's loader, too, which is not strict."""
    from mmengine.runner.checkpoint import load_state_dict

    losses = torch.nn.ModuleDict({'loss_roi_lsh': make()})
    state = torch.nn.ModuleDict({'loss_roi_lsh': make(**changed)}).state_dict()
    load = load_state_dict if wrapped else torch.nn.Module.load_state_dict
    with pytest.raises(ConfigError, match='loss_roi_lsh: the checkpoint was'):
        load(losses, state)


def test_another_rounding_is_not_another_draw():
    """Other kinds of CPUs draw numbers that differ in their last bits."""
    state = make().state_dict()
    state['sums'] *= 1 + 1e-6
    target = make()
    target.load_state_dict(state)
    assert torch.equal(target.sums, make().sums)


@pytest.mark.parametrize('bias', ['zero', 'median'])
@pytest.mark.parametrize('std', [0.3, 'features'])
def test_a_calibration_is_restored_bit_for_bit(bias, std, features):
    if (bias, std) == ('zero', 0.3):
        pytest.skip('nothing to calibrate')
    first, second = (make(bias=bias, std=std) for _ in range(2))
    first.calibrate(torch.linspace(-1, 1, K), torch.tensor(1.7))
    for _ in range(2):  # also into one that is calibrated
        second.load_state_dict(first.state_dict())
        assert not second.needs_calibration
        assert torch.equal(first.weight, second.weight)
        assert torch.equal(first(*features), second(*features))


def test_a_file_that_holds_the_weights_is_checked_by_them():
    """As files of before had them."""
    target = make()
    target.load_state_dict(
        {'weight': make().weight, 'bias': make().bias, 'sums': make().sums}
    )
    old = {'weight': make(seed=1).weight, 'bias': make().bias}
    with pytest.raises(ConfigError, match='made with other hash functions'):
        target.load_state_dict(old, strict=False)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_a_file_of_half_precision_is_that_of_the_same_draw(dtype):
    state = {
        k: v.to(dtype) for k, v in make(num_hashes=4096).state_dict().items()
    }
    target = make(num_hashes=4096)
    target.load_state_dict(state)
    assert torch.equal(target.sums, make(num_hashes=4096).sums)
    state['sums'] = make(num_hashes=4096, seed=1).sums.to(dtype)
    with pytest.raises(ConfigError, match='made with other hash functions'):
        target.load_state_dict(state)


def test_a_bias_of_fewer_hash_functions_leaves_a_loss_uncalibrated():
    from mmengine.runner.checkpoint import load_state_dict

    source, target = make(bias='mean'), make(bias='mean', num_hashes=2 * K)
    source.calibrate(torch.ones(K))
    load_state_dict(target, source.state_dict())
    assert target.needs_calibration


def test_a_second_calibration_is_saved_whole():
    first, second = (make(std='features') for _ in range(2))
    for spread in (2.0, 3.0):
        first.calibrate(torch.zeros(K), torch.tensor(spread))
    second.load_state_dict(first.state_dict())
    torch.testing.assert_close(second.weight, first.weight)


@pytest.mark.parametrize('saved', [None, 4])
def test_a_file_does_not_ask_for_a_count_of_steps(saved):
    target = make(hashes_per_step=None if saved else 4)
    target.load_state_dict(make(hashes_per_step=saved).state_dict())


def test_a_step_takes_the_loss_of_some(features):
    """Value and gradient of each step are those of a float64 loop."""
    s, t = features
    loss = make(hashes_per_step=4, seed=2, loss_weight=3.0)
    for step in (1, 2, 3):
        rows = some_of(K, 4, seed=2, step=step)
        assert len({*rows.tolist()}) == 4
        leaf = s.clone().requires_grad_()
        value = loss(leaf, t)
        value.backward()
        expected, gradient = loop_lsh(
            s, t, loss.weight[rows], loss.bias[rows], 'bce'
        )
        assert value.item() == pytest.approx(3 * expected, rel=1e-5)
        torch.testing.assert_close(
            leaf.grad.double(), 3 * torch.tensor(gradient).double()
        )
    loss.eval()
    whole = 3 * lsh_loss(s, t, loss.weight, loss.bias)
    assert torch.equal(loss(s, t), whole)


def test_calls_of_one_step_take_the_same(features):
    """As levels of a map do; and an idle step counts, as on another rank."""
    loss, other = (make(hashes_per_step=4) for _ in range(2))
    with loss.one_step():
        first, second = loss(*features), loss(*features)
    assert first == second
    with other.one_step():
        pass
    with other.one_step(), loss.one_step():
        assert loss(*features) == other(*features) != first
    assert loss(*features) == other(*features)


def test_the_mean_of_all_steps_is_the_loss_of_all(features):
    """Each set of 2 of 5 is as likely: chi-squared; their mean is the loss."""
    s, t = features
    loss = make(num_hashes=5)
    pairs = [*itertools.combinations(range(5), 2)]
    values = [
        lsh_loss(s, t, loss.weight[[*x]], loss.bias[[*x]]) for x in pairs
    ]
    assert sum(values) / len(values) == pytest.approx(loss(s, t).item())
    drawn = [tuple(sorted(some_of(5, 2, 0, x).tolist())) for x in range(5000)]
    counts = [drawn.count(x) for x in pairs]
    chi = sum((x - 500) ** 2 / 500 for x in counts)
    assert chi < 27.9  # of 9 degrees of freedom, but for one in a thousand


def test_the_count_of_steps_is_saved(features):
    whole = make(hashes_per_step=4)
    values = [whole(*features) for _ in range(4)]
    first, rest = make(hashes_per_step=4), make(hashes_per_step=4)
    found = [first(*features) for _ in range(2)]
    rest.load_state_dict(first.state_dict())
    found += [rest(*features) for _ in range(2)]
    assert torch.equal(torch.stack(found), torch.stack(values))


def test_more_than_there_are_is_an_error():
    message = 'hashes_per_step: must be at most num_hashes, 9, but got 10'
    with pytest.raises(ConfigError, match=message):
        make(hashes_per_step=10)
