"""Losses against explicit float64 loops, with gradients and edge cases."""

import math

import pytest
import torch
import torch.nn.functional as F
from mmrazor.registry import MODELS

from lshfm_mm.distillers.sample_weights import level_weights
from lshfm_mm.errors import ConfigError
from lshfm_mm.losses import LSHLoss, RelativeL2Loss, hashing, l2_loss, lsh_loss

N, D, K = 6, 5, 9


def loop_lsh(s, t, weight, bias, mode, sample_weight=None):
    """The definition, sample by sample and hash by hash, in float64.

    Returns:
        The loss and its gradient to ``s`` as nested lists.
    """
    s, t, weight, bias = (x.double().tolist() for x in (s, t, weight, bias))
    shares = [1 / len(s)] * len(s)
    if sample_weight is not None:
        total = sum(sample_weight.tolist())
        shares = [w / total if total else 0.0 for w in sample_weight.tolist()]
    loss, grad = 0.0, [[0.0] * D for _ in s]
    for n, share in enumerate(shares):
        for k in range(len(weight)):
            z = bias[k] + sum(
                a * b for a, b in zip(weight[k], s[n], strict=True)
            )
            z_t = bias[k] + sum(
                a * b for a, b in zip(weight[k], t[n], strict=True)
            )
            if mode == 'bce':
                code = 1.0 if z_t > 0 else 0.0
                p = 1 / (1 + math.exp(-z))
                value = -code * math.log(p) - (1 - code) * math.log(1 - p)
                slope = p - code
            elif mode == 'l1':
                value, slope = abs(z - z_t), math.copysign(1, z - z_t)
            else:
                value, slope = (z - z_t) ** 2, 2 * (z - z_t)
            loss += share * value / len(weight)
            for d in range(D):
                grad[n][d] += share * slope * weight[k][d] / len(weight)
    return loss, grad


@pytest.fixture
def tensors():
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=generator)

    return draw(N, D), draw(N, D), draw(K, D), draw(K)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('weighted', [False, True])
@pytest.mark.parametrize('mode', ['bce', 'l1', 'l2'])
def test_lsh_loss_equals_a_loop(tensors, mode, weighted, dtype):
    s, t, weight, bias = (x.to(dtype) for x in tensors)
    s = s.requires_grad_()
    sample_weight = torch.tensor([1.0, 0, 2, 0.5, 0, 3]) if weighted else None
    value = lsh_loss(s, t, weight, bias, mode, sample_weight)
    value.backward()
    expected, grad = loop_lsh(s.detach(), t, weight, bias, mode, sample_weight)
    assert value.item() == pytest.approx(expected, rel=1e-6)
    torch.testing.assert_close(
        s.grad.double(),
        torch.tensor(grad, dtype=torch.double),
        rtol=1e-6,
        atol=1e-7,
    )


@pytest.mark.parametrize('mode', ['bce', 'l1', 'l2'])
def test_gradient_to_the_student_is_the_derivative(tensors, mode):
    s, t, weight, bias = (x.double() for x in tensors)
    assert torch.autograd.gradcheck(
        lambda x: lsh_loss(x, t, weight, bias, mode), s.requires_grad_()
    )


@pytest.mark.parametrize('mode', ['bce', 'l1', 'l2'])
def test_no_gradient_reaches_the_teacher(tensors, mode):
    s, t, weight, bias = tensors
    t = t.requires_grad_()
    lsh_loss(s.requires_grad_(), t, weight, bias, mode).backward()
    assert t.grad is None


@pytest.mark.parametrize('mode', ['bce', 'l1', 'l2'])
@pytest.mark.parametrize('case', ['no samples', 'no weight'])
def test_nothing_to_mimic_is_zero_with_a_gradient(tensors, mode, case):
    s, t, weight, bias = tensors
    sample_weight = None
    if case == 'no samples':
        s, t = s[:0], t[:0]
    else:
        sample_weight = torch.zeros(N)
    s = s.clone().requires_grad_()
    value = lsh_loss(s, t, weight, bias, mode, sample_weight)
    value.backward()
    assert value.item() == 0
    assert s.grad.shape == s.shape
    assert not s.grad.any()


def test_bce_ignores_the_magnitude_of_the_teacher(tensors):
    s, t, weight, _ = tensors
    bias = torch.zeros(K)
    small, large = (
        lsh_loss(s, c * t, weight, bias).item() for c in (1e-3, 1e3)
    )
    assert small == pytest.approx(large)


def test_bce_falls_as_the_student_turns_to_the_teacher(tensors):
    _, t, weight, _ = tensors
    bias, other = torch.zeros(K), torch.roll(t, 1, dims=1)
    losses = [
        lsh_loss((1 - a) * other + a * t, t, weight, bias).item()
        for a in (0.0, 0.5, 1.0)
    ]
    assert losses[0] > losses[1] > losses[2]


@pytest.mark.parametrize('magnitude', [0.0, 1e-8, 1e4])
@pytest.mark.parametrize('mode', ['bce', 'l1', 'l2'])
def test_stays_finite(tensors, mode, magnitude):
    s, t, weight, bias = tensors
    s = (magnitude * s).requires_grad_()
    value = lsh_loss(s, magnitude * t, weight, bias, mode)
    value.backward()
    assert value.isfinite()
    assert s.grad.isfinite().all()


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (
            dict(mode='hinge'),
            "mode: must be one of ('bce', 'l1', 'l2'), but got 'hinge'",
        ),
        (
            dict(t_feature=torch.zeros(N, D + 1)),
            'the student has (6, 5) and the teacher (6, 6)',
        ),
        (
            dict(weight=torch.zeros(K, D + 2)),
            'are 5 wide, but the hash functions were made for 7',
        ),
        (
            dict(sample_weight=torch.zeros(N - 1)),
            'sample_weight: must be (6,), but got (5,)',
        ),
    ],
)
def test_lsh_loss_says_what_does_not_fit(tensors, change, message):
    names = ('s_feature', 't_feature', 'weight', 'bias')
    arguments = {**dict(zip(names, tensors, strict=True)), **change}
    with pytest.raises(ConfigError) as error:
        lsh_loss(**arguments)
    assert message in str(error.value)
    assert '\n' not in str(error.value)


def test_module_equals_the_function_on_its_buffers(tensors):
    s, t, _, _ = tensors
    loss = LSHLoss(D, K, std=0.3, mode='l1', loss_weight=2.5, seed=4)
    value = loss(s, t)
    assert loss.weight.shape == (K, D)
    assert not list(loss.parameters())
    expected = lsh_loss(s, t, loss.weight, loss.bias, 'l1')
    assert value.item() == pytest.approx(2.5 * expected.item())


def test_module_takes_every_location_of_a_map_as_a_sample():
    s, t = torch.randn(2, 3, D, 2, 4).transpose(1, 2).unbind()
    s, t = s.transpose(0, 1), t.transpose(0, 1)
    assert s.shape == (3, D, 2, 4)
    loss = LSHLoss(D, K, std=0.3)
    rows = [
        torch.stack(
            [x[n, :, h, w] for n in range(3) for h in (0, 1) for w in range(4)]
        )
        for x in (s, t)
    ]
    assert loss(s, t).item() == pytest.approx(loss(*rows).item())


def test_defaults_come_from_the_teacher():
    loss = LSHLoss()
    assert not loss.is_ready
    with pytest.raises(ConfigError, match='has no hash functions yet'):
        loss(torch.ones(1, D), torch.ones(1, D))
    loss.set_projection(feature_dim=50, std=0.02)
    assert loss.weight.shape == (200, 50)
    assert float(loss.weight.std()) == pytest.approx(0.02, rel=0.05)
    assert torch.equal(loss.bias, torch.zeros(200))


def test_what_the_user_set_goes_before_the_teacher():
    loss = LSHLoss(num_hashes=3000, std=0.5)
    loss.set_projection(feature_dim=20, std=0.02)
    assert loss.weight.shape == (3000, 20)
    assert float(loss.weight.std()) == pytest.approx(0.5, rel=0.05)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_runs_in_float32_under_autocast(tensors, dtype):
    s, t, _, _ = tensors
    loss = LSHLoss(D, K, std=0.3)
    expected = loss(s.to(dtype).float(), t.to(dtype).float())
    with torch.autocast('cpu', dtype=dtype):
        value = loss(s.to(dtype), t.to(dtype))
    assert value.dtype == torch.float32
    assert torch.equal(value, expected)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(num_hashes=0), 'num_hashes: must be an int >= 1, but got 0'),
        (dict(num_hashes=1.5), 'num_hashes: must be an int >= 1'),
        (dict(feature_dim=-3), 'feature_dim: must be an int >= 1'),
        (dict(hashes_per_step=0), 'hashes_per_step: must be an int >= 1'),
        (dict(std=0), 'std: must be a finite number > 0 or one of'),
        (dict(std='techer'), "'features'), but got 'techer'"),
        (dict(std=math.nan), 'std: must be a finite number > 0'),
        (
            dict(bias='mode'),
            "bias: must be one of ('zero', 'mean', 'median'), but got 'mode'",
        ),
        (dict(precision='half'), "precision: must be one of ('float32', 'tf"),
        (dict(mode='cos'), "mode: must be one of ('bce', 'l1', 'l2')"),
        (
            dict(loss_weight=-1),
            'loss_weight: must be a finite number >= 0, but got -1',
        ),
        (dict(loss_weight=math.inf), 'loss_weight: must be a finite number'),
    ],
)
def test_module_says_what_is_out_of_range(arguments, message):
    with pytest.raises(ConfigError) as error:
        LSHLoss(**arguments)
    assert message in str(error.value)
    assert '\n' not in str(error.value)


def test_relative_l2_equals_its_definition(tensors):
    s, t, _, _ = (x.double() for x in tensors)
    s = s.requires_grad_()
    value = l2_loss(s, t, relative=True)
    value.backward()
    pairs = list(zip(s.flatten().tolist(), t.flatten().tolist(), strict=True))
    scale = sum(b * b for _, b in pairs)
    expected = sum((a - b) ** 2 for a, b in pairs) / scale
    assert value.item() == pytest.approx(expected, rel=1e-12)
    grad = torch.tensor([2 * (a - b) / scale for a, b in pairs])
    torch.testing.assert_close(s.grad.flatten().float(), grad)


@pytest.mark.parametrize('scale', [1e-3, 1.0, 1e3])
def test_relative_l2_does_not_know_the_scale(tensors, scale):
    s, t, _, _ = (x.double() for x in tensors)
    expected = l2_loss(s, t, relative=True).item()
    value = l2_loss(scale * s, scale * t, relative=True).item()
    assert value == pytest.approx(expected)
    zero = l2_loss(torch.zeros_like(t), scale * t, relative=True)
    assert zero.item() == pytest.approx(1)


def test_relative_l2_of_nothing_and_of_a_silent_teacher():
    s = torch.ones(0, D, requires_grad=True)
    value = l2_loss(s, torch.ones(0, D), relative=True)
    value.backward()
    assert value.item() == 0
    assert s.grad.shape == (0, D)
    silent = l2_loss(2 * torch.ones(3, D), torch.zeros(3, D), relative=True)
    assert silent.item() == 4


def test_relative_l2_module_weighs_and_checks(tensors):
    s, t, _, _ = tensors
    expected = 3 * l2_loss(s, t, relative=True)
    assert torch.equal(RelativeL2Loss(3.0)(s, t), expected)
    with pytest.raises(ConfigError, match='loss_weight: must be a finite'):
        RelativeL2Loss(math.nan)


def test_losses_stand_in_the_registry_of_mmrazor():
    assert MODELS.get('LSHLoss') is LSHLoss
    assert MODELS.get('RelativeL2Loss') is RelativeL2Loss


def maps(seed, n=3, c=4, h=5, w=6, k=9, side=3):
    """Features of both models, hash functions and a mask, float64.

    Seeds above 0 draw shapes of their own.
    """
    generator = torch.Generator().manual_seed(seed)
    if seed:
        n, c, h, w, k = torch.randint(2, 9, (5,), generator=generator).tolist()
    draw = lambda *shape: torch.randn(  # noqa: E731
        *shape, generator=generator, dtype=torch.float64
    )
    mask = torch.rand(n, h, w, generator=generator) < 0.6
    mask[seed % n] = False  # one image is wholly ignored
    s, t = draw(n, c, h, w).requires_grad_(), draw(n, c, h, w)
    return s, t, draw(k, c * side**2), draw(k), mask


def unfolded(feature, side=3):
    """(N, C, H, W) -> (N, H * W, C * side * side)."""
    return F.unfold(feature, side, padding=side // 2).transpose(1, 2)


def mean_per_image(losses, mask):
    """(N, H * W) -> (), image by image and then over images that count."""
    means = [
        loss[counts].mean()
        for loss, counts in zip(losses, mask.flatten(1), strict=True)
        if counts.any()
    ]
    return torch.stack(means).mean()


@pytest.mark.parametrize('seed', range(6))
@pytest.mark.parametrize('side', [1, 3, 5])
@pytest.mark.parametrize('mode', ['bce', 'l1', 'l2'])
@pytest.mark.parametrize('block', [1, 300, 2**23])
@pytest.mark.parametrize('convolved', [True, False])
def test_maps_equal_the_explicit_unfold(
    seed, side, mode, block, convolved, monkeypatch
):
    """Value and gradient, with a mask, of any number of blocks and parts."""
    monkeypatch.setattr(hashing, 'BLOCK_ON_CPU', block)
    monkeypatch.setattr(hashing, 'is_convolved', lambda *_: convolved)
    monkeypatch.setattr(hashing, 'UNFOLDED', block)
    s, t, weight, bias, mask = maps(seed, side=side)
    [share] = level_weights([s], True, [mask.flatten(1)])
    value = lsh_loss(s, t, weight, bias, mode, share.double())
    (grad,) = torch.autograd.grad(3 * value, s)

    z, z_t = (unfolded(x, side) @ weight.T + bias for x in (s, t))
    if mode == 'bce':
        codes = (z_t > 0).double()
        each = -(codes * F.logsigmoid(z) + (1 - codes) * F.logsigmoid(-z))
    else:
        each = (z - z_t).abs() if mode == 'l1' else (z - z_t) ** 2
    expected = mean_per_image(each.mean(2), mask)
    (expected_grad,) = torch.autograd.grad(3 * expected, s)
    # The shares are float32.
    torch.testing.assert_close(value, expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(grad, expected_grad, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize('relative', [False, True])
def test_l2_of_windows_equals_the_explicit_unfold(relative):
    s, t, _, _, mask = maps(0)
    [share] = level_weights([s], True, [mask.flatten(1)])
    value = l2_loss(s, t, share.double(), window=3, relative=relative)
    (grad,) = torch.autograd.grad(value, s)
    square = (unfolded(s) - unfolded(t)) ** 2
    expected = mean_per_image(square.mean(2), mask)
    if relative:
        scale = mean_per_image((unfolded(t) ** 2).mean(2), mask)
        expected = expected / scale
    (expected_grad,) = torch.autograd.grad(expected, s)
    torch.testing.assert_close(value, expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(grad, expected_grad, rtol=1e-5, atol=1e-9)


def test_the_gradient_is_that_of_finite_differences():
    s, t, weight, bias, mask = maps(0, c=2, h=3, w=3, k=4)
    share = mask.double()
    assert torch.autograd.gradcheck(
        lambda x: lsh_loss(x, t, weight, bias, 'bce', share), s
    )


def test_a_second_derivative_is_refused():
    s, t, weight, bias, _ = maps(0)
    value = lsh_loss(s, t, weight, bias)
    (gradient,) = torch.autograd.grad(value**2, s, create_graph=True)
    with pytest.raises(RuntimeError, match='once_differentiable'):
        gradient.sum().backward()


def test_maps_all_ignored_and_without_images():
    s, t, weight, bias, mask = maps(0)
    value = lsh_loss(s, t, weight, bias, sample_weight=0.0 * mask)
    value.backward()
    assert value.item() == 0
    assert not s.grad.any()
    empty = torch.zeros(0, *s.shape[1:], requires_grad=True)
    value = LSHLoss(36, 9, std=1.0)(empty, empty.detach())
    value.backward()
    assert value.item() == 0
    assert empty.grad.shape == empty.shape


def test_hash_functions_that_fit_no_window_are_an_error():
    s, t, weight, bias, _ = maps(0)
    with pytest.raises(ConfigError, match='4 wide, but .* made for 16'):
        lsh_loss(s, t, weight[:, :16], bias)  # an even window, 2 x 2
