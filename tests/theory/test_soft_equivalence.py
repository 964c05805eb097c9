"""Equivalence of soft Q-learning and soft policy gradients: closed forms and finite differences."""

import numpy as np
import pytest

from mbkit.tabular.environments import garnet
from mbkit.tabular.mdp import Array, random_policy
from mbkit.tabular.occupancy import discounted
from mbkit.tabular.operators import expectation, kl, kl_bellman_q, lse
from mbkit.theory import soft_equivalence as soft

SEEDS = range(5)


@pytest.mark.parametrize("alpha", [0.1, 1.0, 5.0])
def test_soft_equivalence_table_holds_in_closed_form(alpha: float) -> None:
    """A table Q as parameters: grad log pi = (e_a - pi) / alpha, grad V = pi, and the gradient of the loss is d pi (Q - y)."""
    for seed in SEEDS:
        mdp, rng = garnet(8, 3, 3, seed=seed), np.random.default_rng(seed)
        prior, q = random_policy(mdp, rng), rng.normal(size=(8, 3))
        v = lse(q + alpha * np.log(prior), alpha)[:, None]
        ratio = (q - v) / alpha
        pi = prior * np.exp(ratio)
        assert np.abs(pi.sum(1) - 1).max() <= 1e-12
        d, divergence = discounted(mdp, pi)[:, None], kl(pi, prior)[:, None]
        y = kl_bellman_q(mdp, pi, q, prior, alpha)

        def three(delta: Array, d=d, pi=pi, ratio=ratio, divergence=divergence) -> Array:
            mean = expectation(pi, delta)[:, None]
            score, pull, value = pi * (delta - mean) / alpha, pi * (ratio - divergence) / alpha, mean * pi
            return d * (-alpha * score + alpha**2 * pull - value)

        right = d * pi * (q - y)
        assert np.abs(three(y - alpha * divergence - v) - right).max() <= 1e-12
        excess = three(y - alpha * ratio - v) - right
        assert np.abs(excess - d * alpha**2 * pi * (ratio - divergence) / alpha).max() <= 1e-12
        assert np.abs(excess).max() > 1e-6


@pytest.mark.parametrize("alpha", [0.3, 1.0, 10.0])
def test_equivalence_shared_parameters_is_exact(alpha: float) -> None:
    for seed in SEEDS:
        right, double, rest, term, spurious = soft.equivalence(seed, alpha)
        assert right <= 1e-12
        assert rest <= 1e-12
        assert double == pytest.approx(term, abs=1e-12)
        assert term > 1e-6
        assert (spurious > 1e-3) == (alpha != 1)


@pytest.mark.parametrize("alpha", [0.1, 1.0, 5.0])
def test_soft_gradient_equals_finite_differences(alpha: float) -> None:
    for seed in SEEDS:
        beside, inside, both, rest, slope = soft.soft_gradient(seed, alpha)
        assert max(beside, inside) <= 1e-6
        assert both > 1e-3 * slope
        assert rest <= 1e-10


@pytest.mark.parametrize("lam", [0.0, 0.3, 0.95])
def test_weight_of_the_sum_from_zero_is_lambda(lam: float) -> None:
    ratio, rest = soft.weight_of_the_sum_from_zero(0, lam)
    assert ratio == pytest.approx(lam, abs=1e-12)
    assert rest <= 1e-12
