"""The random projection and the law of random hyperplanes."""

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from lshfm_mm.calibration.calibrate import _project
from lshfm_mm.distillers.alignment import equal_codes
from lshfm_mm.losses import LSHLoss, hashing, lsh_loss
from lshfm_mm.losses.functional import MODES, _sides
from lshfm_mm.losses.hashing import (
    full_float32,
    hash_codes,
    project,
    random_projection,
)


def test_projection_depends_on_its_arguments_alone():
    torch.manual_seed(1)
    first = random_projection(64, 8, 0.5, seed=3)
    torch.manual_seed(2)
    assert torch.equal(first, random_projection(64, 8, 0.5, seed=3))
    assert not torch.equal(first, random_projection(64, 8, 0.5, seed=4))


def test_projection_leaves_the_global_random_state():
    before = torch.get_rng_state()
    random_projection(64, 8, 1.0, seed=0)
    assert torch.equal(before, torch.get_rng_state())


def test_hash_functions_are_not_lost_on_the_meta_device():
    expected = LSHLoss(8, std=0.5, bias='mean')
    with torch.device('meta'):
        assert torch.ones(1).is_meta
        found = LSHLoss(8, std=0.5, bias='mean')
    assert torch.equal(found.weight, expected.weight)
    assert found.bias.tolist() == [0] * 32
    assert found.bias_is.item() == 0


PRODUCTS = {
    torch.ops.aten.convolution.default,
    torch.ops.aten.convolution_backward.default,
    torch.ops.aten.addmm.default,
    torch.ops.aten.mm.default,
    torch.ops.aten.bmm.default,
    torch.ops.aten.baddbmm.default,
}


def precisions():
    """What products of float32 are computed in, on GPU and CPU."""
    cudnn = torch.backends.cudnn
    if not hasattr(cudnn, 'conv'):  # torch < 2.9
        return cudnn.allow_tf32, torch.get_float32_matmul_precision()
    parts = cudnn, torch.backends.mkldnn
    convs = [x.conv.fp32_precision for x in parts]
    parts = torch.backends.cuda, torch.backends.mkldnn
    return (*convs, *(x.matmul.fp32_precision for x in parts))


class Products(TorchDispatchMode):
    """Notes the precision of each product that is computed."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function in PRODUCTS:
            self.seen.append(precisions())
        return function(*args, **(kwargs or {}))


@pytest.fixture(params=['default', 'medium', 'all tf32', 'torch < 2.9'])
def of_the_user(request, monkeypatch):
    """What a user may have set; it is undone afterwards."""
    default = torch.get_float32_matmul_precision()
    is_old = not hasattr(torch.backends.cudnn, 'conv')
    if request.param == 'all tf32' and is_old:
        pytest.skip('needs torch 2.9')
    if request.param == 'all tf32':
        before = torch.backends.fp32_precision
        torch.backends.fp32_precision = 'tf32'
        yield
        torch.backends.fp32_precision = before
        return
    if request.param != 'default':
        torch.set_float32_matmul_precision('medium')
    if request.param == 'torch < 2.9' and not is_old:
        monkeypatch.delattr(type(torch.backends.cudnn), 'conv')
    yield
    torch.set_float32_matmul_precision(default)


@pytest.fixture(params=['features', 'map', 'windows of a GPU'])
def hashed(request, monkeypatch):
    """Features or a map, and the weights and biases of hash functions."""
    shape = (5, 3) if request.param == 'features' else (2, 3, 4, 4)
    width = 3
    if request.param == 'windows of a GPU':
        monkeypatch.setattr(hashing, 'is_convolved', lambda *_: False)
        width = 27
    feature = torch.rand(shape, requires_grad=True)
    return feature, torch.rand(8, width), torch.rand(8)


def test_products_are_of_full_float32(hashed, of_the_user):
    """Whatever is set outside; and that is as it was afterwards."""
    before = precisions()
    feature, weight, bias = hashed
    with Products() as outside:
        project(feature, weight, bias)
    with Products() as inside:
        lsh_loss(feature, feature, weight, bias).backward()
        equal_codes(feature, feature.detach(), weight, bias)
        _project(torch.rand(5, weight.shape[1]), weight)
    assert outside.seen == [before]
    assert len(inside.seen) == 6  # three of the loss, two codes, one more
    assert before not in inside.seen
    assert not {'tf32', 'bf16', 'medium', True} & {*sum(inside.seen, ())}
    assert precisions() == before


def test_products_of_tf32(hashed, of_the_user):
    before = precisions()
    with Products() as inside:
        lsh_loss(hashed[0], *hashed, precision='tf32').backward()
    assert len(inside.seen) == 3
    assert {*sum(inside.seen, ())} <= {'tf32', True, 'high'}
    assert precisions() == before


def rounded(x, bits):
    """To as many bits after the first, in float64: what a format keeps."""
    mantissa, exponent = x.double().frexp()
    scale = 2.0 ** (bits + 1)
    return torch.ldexp((mantissa * scale).round() / scale, exponent)


CHANGED = {  # precision, mean of the features -> share of codes, in %
    ('tf32', 0): 0.009,
    ('tf32', 3): 0.03,
    ('bfloat16', 0): 0.07,
    ('bfloat16', 3): 0.29,
}


@pytest.mark.parametrize(('precision', 'mean'), CHANGED)
def test_codes_that_fewer_bits_change(precision, mean):
    """Those of docs/cost.md. TF32 is of GPUs: its factors are rounded here."""
    torch.manual_seed(0)
    feature, weight = torch.randn(1500, 64) + mean, torch.randn(1000, 64)
    bias = -(feature @ weight.T).mean(0)
    exact = project(feature.double(), weight.double(), bias.double()) > 0
    if precision == 'tf32':
        low = rounded(feature, 10), rounded(weight, 10), bias.double()
    else:
        low = feature.bfloat16(), weight.bfloat16(), bias
    changed = ((_sides(*low) > 0) != exact).double().mean().item()
    expected = CHANGED[precision, mean]
    assert 100 * changed == pytest.approx(expected, rel=0.15)
    page = (Path(__file__).parent.parent / 'docs/cost.md').read_text('utf-8')
    assert f'{expected:g} %' in page


@pytest.mark.parametrize(
    ('shape', 'convolved'),
    [((400, 64), True), ((2, 16, 12, 12), True), ((2, 16, 12, 12), False)],
)
@pytest.mark.parametrize('mode', MODES)
@pytest.mark.parametrize(
    ('precision', 'bits'), [('tf32', 10), ('bfloat16', 7)]
)
def test_gradients_of_fewer_bits(
    shape, convolved, mode, precision, bits, monkeypatch
):
    """They keep direction and length, with a bias and positive features."""
    monkeypatch.setattr(hashing, 'is_convolved', lambda *_: convolved)
    torch.manual_seed(0)
    s, t = torch.randn(shape) + 1, torch.randn(shape) + 1
    weight = torch.randn(256, 64 if len(shape) == 2 else 144)
    middle = project(t, weight, None).transpose(0, 1).flatten(1).mean(1)
    exact = [x.double() for x in (s, t, weight, -middle)]
    exact[0].requires_grad_()
    expected = lsh_loss(*exact, mode)
    expected.backward()
    given = [s, t, weight, -middle]
    if precision == 'tf32':
        given[:3] = (rounded(x, 10).float() for x in given[:3])
    given[0].requires_grad_()
    value = lsh_loss(*given, mode, precision=precision)
    value.backward()
    found, wanted = given[0].grad, exact[0].grad
    assert found.dtype == torch.float32
    assert value.item() == pytest.approx(expected.item(), rel=2.0**-bits)
    cosine = F.cosine_similarity(found.double().flatten(), wanted.flatten(), 0)
    assert 0 < 1 - cosine < 2.0 ** -(bits + 1)
    assert found.norm() / wanted.norm() == pytest.approx(1, abs=2.0**-bits)


@pytest.fixture
def levels():
    """Those with a precision of float32, without one of their own."""
    if not hasattr(torch.backends.cudnn, 'conv'):
        pytest.skip('needs torch 2.9')
    backends = torch.backends
    gpu, cpu = (backends.cudnn, backends.cuda), [backends.mkldnn] * 2
    operators = [x for y in (gpu, cpu) for x in (y[0].conv, y[1].matmul)]
    before = [x.fp32_precision for x in operators]
    for operator in operators:
        operator.fp32_precision = 'none'
    yield backends, backends.cudnn, *operators
    backends.cudnn.fp32_precision = backends.fp32_precision = 'none'
    for operator, precision in zip(operators, before, strict=True):
        operator.fp32_precision = precision


@pytest.mark.parametrize('own', [None, 0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize('precision', ['tf32', 'ieee'])
def test_what_inherits_its_precision_goes_on_to_inherit(
    levels, own, precision
):
    """Also from a parent that the user sets later; own values stay."""
    found = []
    for is_entered in (True, False):
        for level in levels:
            level.fp32_precision = 'none'
        if own is not None:
            levels[own].fp32_precision = precision
        if is_entered:
            with full_float32(torch.device('cpu')):
                assert set(precisions()) == {'ieee'}
        for of_the_parent in ('none', 'tf32', 'ieee', 'bf16'):
            levels[0].fp32_precision = of_the_parent
            found.append([x.fp32_precision for x in levels])
    assert found[:4] == found[4:]
    assert len({*map(tuple, found)}) > 2


def test_projection_has_the_mean_and_std_asked_for():
    weight = random_projection(1000, 100, 0.05, seed=0).double()
    # Standard errors for 1e5 normal entries: std / sqrt(n), std / sqrt(2n).
    assert abs(float(weight.mean())) < 4 * 0.05 / math.sqrt(1e5)
    assert abs(float(weight.std()) - 0.05) < 4 * 0.05 / math.sqrt(2e5)


def test_project_and_codes_equal_a_loop():
    feature = torch.randn(5, 3, dtype=torch.double)
    weight = torch.randn(7, 3, dtype=torch.double)
    bias = torch.randn(7, dtype=torch.double)
    logits, codes = (
        project(feature, weight, bias),
        hash_codes(feature, weight, bias),
    )
    for n in range(5):
        for k in range(7):
            value = bias[k] + sum(
                feature[n, d] * weight[k, d] for d in range(3)
            )
            assert logits[n, k].item() == pytest.approx(value.item())
            assert codes[n, k].item() == (value.item() > 0)


def test_a_feature_on_the_hyperplane_gets_code_zero():
    codes = hash_codes(torch.zeros(1, 2), torch.ones(3, 2), torch.zeros(3))
    assert not codes.any()


@pytest.mark.parametrize('dim', [2, 16, 256])
def test_share_of_equal_codes_is_one_minus_angle_over_pi(dim):
    """P[same side] = 1 - angle / pi, for pairs at all angles.

    Each pair has its own hyperplanes, so that all draws are independent.
    """
    pairs, hashes = 200, 500
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(pairs, dim, generator=generator, dtype=torch.double)
    step = torch.randn(pairs, dim, generator=generator, dtype=torch.double)
    b = a + step * torch.linspace(-3, 3, pairs).double().exp()[:, None]
    b[::2] *= -1  # angles beyond 90 degrees as well
    weight = random_projection(pairs * hashes, dim, 0.1, seed=1).double()
    bias = torch.zeros(hashes, dtype=torch.double)
    z_score = []
    for x, y, planes in zip(a, b, weight.split(hashes), strict=True):
        equal = (
            hash_codes(x[None], planes, bias)
            == hash_codes(7 * y[None], planes, bias)
        ).double()
        cosine = torch.dot(x, y) / x.norm() / y.norm()
        law = 1 - math.acos(float(cosine.clamp(-1, 1))) / math.pi
        sigma = math.sqrt(max(law * (1 - law), 1e-9) / hashes)
        z_score.append((float(equal.mean()) - law) / sigma)
    z = torch.tensor(z_score)
    assert z.abs().max() < 5
    assert abs(float(z.mean())) < 4 / math.sqrt(pairs)
    assert 0.7 < float(z.square().mean()) < 1.4
