"""The random projection and the law of random hyperplanes."""

import math

import pytest
import torch

from lshfm_mm.hashing import hash_codes, project, random_projection


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
