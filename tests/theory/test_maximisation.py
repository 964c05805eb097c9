"""Maximisation bias: closed forms and quadrature."""

import math

import numpy as np
import pytest

from mbkit.tabular.environments import BANDIT_10
from mbkit.tabular.planning import policy_iteration
from mbkit.theory.maximisation import VALUE, bias_of, expected_double, expected_maximum, learned, selection_probabilities, ten_arms


def test_expected_maximum_two_arms_is_the_closed_form() -> None:
    """E max = d Phi(d / sqrt 2) + sqrt 2 phi(d / sqrt 2) for means 0 and d; the second is selected with probability Phi(d / sqrt 2)."""
    for d in (0.0, 0.5, 2.0):
        Phi, phi = 0.5 * (1 + math.erf(d / 2)), math.exp(-(d**2) / 4) / math.sqrt(2 * math.pi)
        means = np.array([0.0, d])
        assert expected_maximum(means) == pytest.approx(d * Phi + math.sqrt(2) * phi, abs=1e-9)
        np.testing.assert_allclose(selection_probabilities(means), [1 - Phi, Phi], atol=1e-9)
        assert expected_double(means) == pytest.approx(d * Phi, abs=1e-9)


def test_bias_of_ten_arms_agrees_with_quadrature() -> None:
    assert expected_maximum(np.zeros(10)) == pytest.approx(1.53875, abs=1e-5)
    assert expected_maximum(BANDIT_10) - 1 == pytest.approx(1.123, abs=1e-3)
    assert expected_double(BANDIT_10) - 1 == pytest.approx(-0.336, abs=1e-3)
    assert selection_probabilities(BANDIT_10).sum() == pytest.approx(1, abs=1e-9)
    bias = bias_of("", BANDIT_10, np.random.default_rng(0), 20_000)
    assert bias.above == 0
    assert abs(bias.single - bias.exact_single) < 4 * bias.single_se
    assert abs(bias.double - bias.exact_double) < 4 * bias.double_se


def test_ten_arms_have_the_known_optimum() -> None:
    best = policy_iteration(ten_arms())
    assert best.v[0] == 0
    np.testing.assert_allclose(best.q[0, 5:], VALUE)
    assert learned(False, 0, 1000)[0] > 0.05 > learned(True, 0, 1000)[0]
