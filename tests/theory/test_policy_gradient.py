"""Policy gradient theorem: finite differences and closed forms."""

import numpy as np
import pytest
from tabular_problems import softmax_problem

from mbkit.tabular.environments import LQR, lqr_return, riccati_gain
from mbkit.tabular.mdp import random_policy
from mbkit.tabular.occupancy import discounted, stationary
from mbkit.tabular.operators import performance
from mbkit.theory import policy_gradient as pg

SEEDS = range(5)


def test_finite_differences_are_of_sixth_order() -> None:
    x = np.array([[0.3, -0.7], [1.1, 0.2]])
    assert np.abs(pg.finite_differences(lambda y: float((y**6 + y).sum()), x) - 6 * x**5 - 1).max() <= 1e-11


def test_formulas_only_the_theorem_is_exact() -> None:
    for seed in SEEDS:
        right, short, still, both = pg.formulas(seed)
        assert right[0] <= 1e-6
        assert short[1] == pytest.approx(0.1, abs=1e-8)  # 1 - gamma
        assert short[2] == pytest.approx(1, abs=1e-10)
        assert still[0] > 1e-2
        assert both[0] > 0.5
    dead, alive = pg.episodic_gradients()
    assert dead <= 1e-12 < alive


def test_surrogate_and_expected_advantage_satisfy_the_lemma() -> None:
    for seed in SEEDS:
        assert pg.surrogate_slope_error(seed) <= 1e-6
        mdp, _, pi = softmax_problem(seed)
        new = random_policy(mdp, np.random.default_rng(seed))
        gain = performance(mdp, new) - performance(mdp, pi)
        assert abs(pg.expected_advantage(mdp, pi, new, discounted(mdp, new)) - gain) <= 1e-10
        assert abs(pg.expected_advantage(mdp, pi, new, stationary(mdp, new)) - gain) > 1e-6
        assert abs(pg.surrogate(mdp, pi, pi)) <= 1e-12


def test_off_policy_without_ratio_is_exact_only_on_policy() -> None:
    for seed in SEEDS:
        assert max(pg.off_policy(seed, 0.0)) <= 1e-12
        dropped, corrected = pg.off_policy(seed, 1.0)
        assert corrected <= 1e-12 < 1e-3 < dropped


@pytest.mark.parametrize("gain", [-0.1, 0.4, 1.0, 2.0, 2.9])
def test_deterministic_gradient_equals_finite_differences(gain: float) -> None:
    lqr, h = LQR(), 1e-5
    exact = pg.deterministic_gradient(lqr, gain)
    assert abs(exact - (lqr_return(lqr, gain + h) - lqr_return(lqr, gain - h)) / (2 * h)) <= 1e-6
    assert abs(exact - pg.slope_of_gain(lqr, gain)) <= 1e-9


def test_ascend_gain_solves_the_riccati_equation() -> None:
    assert abs(pg.ascend_gain(LQR()) - riccati_gain(LQR())) <= 1e-6
    assert round(pg.ascend_gain(LQR()), 6) == 1.324624
