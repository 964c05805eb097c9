"""Regression, divergence and relative errors of learned critics."""

import numpy as np
import pytest

from mbkit.tabular.operators import value_of
from mbkit.theory import approximate_equivalence as experiment
from mbkit.theory import learned_critics as critics
from mbkit.theory.joint_fixed_points import policy_distance, problem


def test_regression_diverged_and_relative_error_by_hand():
    x = np.linspace(0, 1, 20)
    n, slope, intercept, linear, rank = experiment.regression([(x, 0.1 + 2 * x), (np.array([experiment.DIVERGED]), np.array([9.0]))])
    assert n == 20
    np.testing.assert_allclose([slope, intercept, linear, rank], [2, 0.1, 1, 1])
    assert experiment.diverged(np.array([[[0.1, 99.0]], [[np.nan, np.inf]]])) == [1, 2]
    assert policy_distance(np.array([[[2.0, 2.0]]]), np.array([[[1.0, 0.0]]])) == 0.5
    source = problem(0)
    assert experiment.relative_error(
        critics.CriticGrid([source], np.array([1.0])), np.full((1, 25, 5), source.mean), np.zeros((1, 25, 5)), source.beta
    ) == pytest.approx(1.0)
    assert value_of(source.mdp, source.beta).min() > 1  # targets are clipped to attainable values
