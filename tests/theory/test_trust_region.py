"""Natural gradients and trust regions: conjugate gradients, coordinates and KL limits."""

import numpy as np
import pytest
from tabular_problems import softmax_problem

from mbkit.tabular.environments import garnet
from mbkit.tabular.natural_gradient import fisher, npg_step, policy_gradient
from mbkit.tabular.operators import softmax
from mbkit.theory import trust_region as tr

SEEDS = range(5)


def test_conjugate_gradient_solves_from_products() -> None:
    for seed in SEEDS:
        mdp, _, pi = softmax_problem(seed)
        g, F, product = policy_gradient(mdp, pi), fisher(mdp, pi), tr.fisher_product(mdp, pi)
        x = np.random.default_rng(seed).normal(size=(8, 3))
        assert np.abs(product(x).ravel() - F @ x.ravel()).max() <= 1e-14
        solved = tr.conjugate_gradient(product, g)
        assert np.abs(product(solved) - g).max() <= 1e-12
        assert np.abs(softmax(np.log(pi) + 0.05 * solved) - npg_step(mdp, pi, 0.05)).max() <= 1e-10


@pytest.mark.parametrize("skew", [0.0, 0.5, 1.0])
def test_reparameterised_natural_step_does_not_change(skew: float) -> None:
    for seed in SEEDS:
        natural, plain = tr.reparameterised(seed, skew)
        assert natural <= 1e-10
        assert (plain > 1e-4) == (skew > 0)


@pytest.mark.parametrize("delta", [1e-5, 1e-4, 1e-3, 1e-2])
def test_spent_full_misprinted_and_backtracked_steps(delta: float) -> None:
    for seed in SEEDS:
        full, misprint, _, accepted, gain = tr.spent(seed, delta)
        assert 0.9 <= full <= 1.1
        assert misprint > 20
        assert 0.5 < accepted <= 1
        assert gain > 0


def test_trpo_run_stays_inside_and_reaches_the_optimum() -> None:
    run = tr.trpo_run(garnet(8, 3, 3), 0.1, 300)
    assert run.spent <= 1
    assert run.regret[-1] <= tr.REACHED
