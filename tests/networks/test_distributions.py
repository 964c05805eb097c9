"""Distributions over actions against torch.distributions and quadrature."""

import math

import numpy as np
import pytest
import torch
from torch.distributions import Categorical as TorchCategorical
from torch.distributions import Independent, Normal, kl_divergence

from mbkit.networks.distributions import (
    IMPOSSIBLE,
    Categorical,
    Categoricals,
    ClippedGaussian,
    detached,
    gaussian_kl,
    log_volume,
    squashed_log_prob,
    unsquash,
)
from mbkit.networks.parts import as_table

DOUBLE = torch.float64


def gaussian(rows: int = 50, size: int = 3, seed: int = 0) -> ClippedGaussian:
    draw = torch.Generator().manual_seed(seed)
    mean, log_std = torch.randn(2, rows, size, generator=draw, dtype=DOUBLE)
    return ClippedGaussian(mean, 0.5 * log_std)


def test_squashed_log_prob_and_gaussian_kl_equal_those_of_torch():
    torch.manual_seed(0)
    mean, log_std, other, wide = torch.randn(4, 3, 5, 2, dtype=DOUBLE)
    p, q = (Normal(m, s.exp()) for m, s in ((mean, log_std), (other, wide)))
    torch.testing.assert_close(gaussian_kl(mean, log_std, other, wide), kl_divergence(p, q).sum(-1))
    squashed = torch.distributions.TransformedDistribution(p, torch.distributions.TanhTransform())
    torch.testing.assert_close(squashed_log_prob(mean, log_std, other), squashed.log_prob(other.tanh()).sum(-1))
    torch.testing.assert_close(log_volume(other), (1 - other.tanh().square()).log())
    assert log_volume(torch.tensor([50.0, -50.0])).tolist() == pytest.approx([2 * math.log(2) - 100] * 2)


def test_unsquash_inverts_tanh_up_to_the_edge():
    torch.testing.assert_close(unsquash(torch.tensor([0.5, -0.9, 1.0]), 0.99).tanh(), torch.tensor([0.5, -0.9, 0.99]))


def categorical(rows: int = 50, size: int = 4, seed: int = 0) -> Categorical:
    return Categorical(3 * torch.randn(rows, size, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE))


def oracle(ours):
    if isinstance(ours, Categorical):
        return TorchCategorical(logits=ours.logits)
    return Independent(Normal(ours.mean, ours.log_std.exp()), 1)


@pytest.mark.parametrize("make", [gaussian, categorical])
def test_distribution_entropy_and_kl_equal_those_of_torch(make):
    p, q = make(seed=0), make(seed=1)
    torch.testing.assert_close(p.entropy(), oracle(p).entropy())
    torch.testing.assert_close(p.kl(q), kl_divergence(oracle(p), oracle(q)))


@pytest.mark.parametrize("make", [gaussian, categorical])
def test_distribution_kl_is_positive_and_zero_for_equals(make):
    p, q = make(seed=0), make(seed=1)
    assert (p.kl(q) > 0).all()
    torch.testing.assert_close(p.kl(p), torch.zeros(50, dtype=DOUBLE), atol=1e-12, rtol=0)


def test_categorical_log_prob_equals_that_of_torch():
    p = categorical()
    action = torch.randint(4, (50,))
    torch.testing.assert_close(p.log_prob(action), oracle(p).log_prob(action))
    assert torch.equal(p.mode(), p.logits.argmax(1))


def test_clipped_gaussian_log_prob_inside_the_box_equals_that_of_torch():
    p = gaussian()
    action = torch.rand(50, 3, dtype=DOUBLE) * 1.98 - 0.99
    torch.testing.assert_close(p.log_prob(action), oracle(p).log_prob(action))


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (0.7, 0.3), (-2.5, 0.8), (0.2, 3.0)])
def test_clipped_gaussian_density_and_probabilities_of_the_sides_sum_to_one(mean, std):
    """Gauss-Legendre on [-1, 1], plus the probabilities of the two sides."""
    nodes, weights = (torch.from_numpy(x) for x in np.polynomial.legendre.leggauss(80))
    p = ClippedGaussian(torch.full((80, 1), mean, dtype=DOUBLE), torch.full((80, 1), math.log(std), dtype=DOUBLE))
    inside = (weights * p.log_prob(nodes[:, None]).exp()).sum()
    low, high = (p.log_prob(torch.full((80, 1), side, dtype=DOUBLE)).exp()[:1] for side in (-1.0, 1.0))
    torch.testing.assert_close(inside + low + high, torch.ones(1, dtype=DOUBLE))
    torch.testing.assert_close(low, Normal(mean, std).cdf(torch.tensor([-1.0], dtype=DOUBLE)))


def test_clipped_gaussian_log_prob_gradient_has_mean_zero():
    """E grad log pi = 0 for the mixed density, by quadrature, so that a baseline causes no bias."""
    nodes, weights = (torch.from_numpy(x) for x in np.polynomial.legendre.leggauss(80))
    mean, log_std = torch.tensor([0.6, -0.2], dtype=DOUBLE, requires_grad=True).unbind()
    action = torch.cat((nodes, torch.tensor([-1.0, 1.0], dtype=DOUBLE)))[:, None]
    p = ClippedGaussian(mean.expand(82, 1), log_std.expand(82, 1))
    log_prob = p.log_prob(action)
    mass = log_prob.detach().exp() * torch.cat((weights, torch.ones(2, dtype=DOUBLE)))
    for score in torch.autograd.grad((mass * log_prob).sum(), (mean, log_std)):
        assert abs(score.item()) < 1e-9


def test_clipped_gaussian_log_prob_passes_gradcheck():
    action = torch.tensor([[-1.0, 0.3], [1.0, 1.0], [0.99, -0.5]], dtype=DOUBLE)
    mean, log_std = torch.randn(2, 3, 2, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    mean.requires_grad_(), log_std.requires_grad_()
    assert torch.autograd.gradcheck(lambda m, s: ClippedGaussian(m, s).log_prob(action), (mean, log_std))


def test_clipped_gaussian_gradient_far_from_the_box_is_finite():
    """A side of probability e^-5000 still has a slope."""
    mean, log_std = torch.tensor([[20.0]], requires_grad=True), torch.tensor([[-1.6]], requires_grad=True)
    log_prob = ClippedGaussian(mean, log_std).log_prob(torch.tensor([[-1.0]]))
    slopes = torch.autograd.grad(log_prob.sum(), (mean, log_std))
    assert all(x.isfinite().all() for x in (log_prob, *slopes))
    assert slopes[0].item() < 0


def test_clipped_gaussian_samples_reach_the_sides_as_often_as_log_prob_predicts():
    torch.manual_seed(0)
    n = 200_000
    p = ClippedGaussian(torch.full((n, 1), 0.5), torch.full((n, 1), math.log(0.6)))
    sample = p.sample()
    assert sample.abs().max() == 1
    for side in (-1.0, 1.0):
        expected = p.log_prob(torch.full((n, 1), side)).exp()[0].item()
        assert (sample == side).float().mean().item() == pytest.approx(expected, abs=5 * math.sqrt(expected / n))
    inside = sample[sample.abs() < 1]
    halves = Normal(0.5, 0.6).cdf(torch.tensor([-1.0, 0.5, 1.0]))
    expected = ((halves[1] - halves[0]) / (halves[2] - halves[0])).item()
    assert (inside < 0.5).float().mean().item() == pytest.approx(expected, abs=5 / math.sqrt(len(inside)))


def test_categorical_samples_have_their_probabilities():
    torch.manual_seed(0)
    n, p = 100_000, torch.tensor([0.6, 0.3, 0.09, 0.01])
    drawn = Categorical(p.log().expand(n, 4)).sample().bincount(minlength=4) / n
    assert ((drawn - p).abs() < 5 * (p / n).sqrt()).all()


def test_clipped_gaussian_mode_lies_in_the_box():
    assert ClippedGaussian(torch.tensor([[2.0, -0.3]]), torch.zeros(1, 2)).mode().tolist() == [[1.0, pytest.approx(-0.3)]]


@pytest.mark.parametrize("make", [gaussian, categorical])
def test_detached_is_a_constant_copy(make):
    p = make()
    free = type(p)(*(x.requires_grad_() for x in p))
    constant, before = detached(free), p.entropy().detach().clone()
    with torch.no_grad():
        for x in free:
            x.mul_(3).add_(1)  # as an optimizer does
    assert not constant.entropy().requires_grad
    torch.testing.assert_close(constant.entropy(), before)


def several(rows: int = 50, parts: tuple[int, ...] = (4, 2, 3), seed: int = 0) -> tuple[Categoricals, list[TorchCategorical]]:
    """Independent distributions over several actions, and the same as torch has them, one for each part."""
    logits = 3 * torch.randn(rows, sum(parts), generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)
    return Categoricals(as_table(logits, parts, IMPOSSIBLE)), [TorchCategorical(logits=part) for part in logits.split(parts, -1)]


def test_categoricals_equal_the_sums_over_those_of_torch():
    (p, each), (q, others) = several(seed=0), several(seed=1)
    action = torch.stack([torch.randint(n, (50,)) for n in (4, 2, 3)], -1)
    torch.testing.assert_close(p.log_prob(action), sum(part.log_prob(action[:, i]) for i, part in enumerate(each)))
    torch.testing.assert_close(p.entropy(), sum(part.entropy() for part in each))
    torch.testing.assert_close(p.kl(q), sum(kl_divergence(a, b) for a, b in zip(each, others, strict=True)))
    assert torch.equal(p.mode(), torch.stack([part.logits.argmax(-1) for part in each], -1))


def test_categoricals_of_equal_parts_are_torchs_independent_categorical():
    p, _ = several(parts=(3, 3))
    joint, action = Independent(TorchCategorical(logits=p.logits), 1), torch.randint(3, (7, 50, 2))
    torch.testing.assert_close(p.log_prob(action), joint.log_prob(action))
    torch.testing.assert_close(p.entropy(), joint.entropy())


def test_categoricals_probabilities_of_all_combinations_sum_to_one():
    p, _ = several()
    every = torch.cartesian_prod(*(torch.arange(n) for n in (4, 2, 3)))[:, None].expand(24, 50, 3)
    probability = p.log_prob(every).exp()
    torch.testing.assert_close(probability.sum(0), torch.ones(50, dtype=DOUBLE))
    torch.testing.assert_close(-(probability * probability.log()).sum(0), p.entropy())


def test_categoricals_of_one_part_are_a_categorical():
    p, q = Categorical(torch.randn(9, 4)), Categorical(torch.randn(9, 4))
    ours, other = (Categoricals(x.logits[:, None]) for x in (p, q))
    action = torch.randint(4, (9,))
    for a, b in ((ours.log_prob(action[:, None]), p.log_prob(action)), (ours.entropy(), p.entropy()), (ours.kl(other), p.kl(q))):
        assert torch.equal(a, b)


def test_categoricals_samples_have_the_probabilities_and_none_is_impossible():
    torch.manual_seed(0)
    p, each = several(rows=1)
    drawn = Categoricals(p.logits.expand(40_000, 3, 4)).sample()
    for i, part in enumerate(each):
        frequency = torch.bincount(drawn[:, i]) / 40_000
        torch.testing.assert_close(frequency.to(DOUBLE), part.probs[0], atol=0.01, rtol=0)


def test_categoricals_gradients_are_finite_in_single_precision():
    logits = torch.randn(6, 5, requires_grad=True)
    p = Categoricals(as_table(logits, (3, 2), IMPOSSIBLE))
    loss = p.entropy() + p.kl(detached(p)) + p.log_prob(p.sample())
    slope = torch.autograd.grad(loss.sum(), logits, create_graph=True)[0]
    assert slope.isfinite().all()
    assert torch.autograd.grad(slope.square().sum(), logits)[0].isfinite().all()
