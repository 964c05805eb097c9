"""Losses of a regularised critic: closed forms, thresholds and units."""

import numpy as np
import pytest

from mbkit.tabular.critic_losses import CROSS_ENTROPY, ITAKURA_SAITO, LOSSES, MSE
from mbkit.tabular.critic_regularisation import exactness_threshold, joint_fixed_point
from mbkit.theory.equivalent_losses import POWER, measure, unclipped_form, unclipped_from, unit_error
from mbkit.theory.regularisation_weight import problem


@pytest.mark.parametrize("name", POWER)
def test_measure_garnet_is_exact_above_the_threshold_only(name):
    mdp, beta = problem(1)
    k = POWER[name]
    limit = unclipped_from(mdp, beta, k)
    above, below = (measure(mdp, beta, factor * limit, LOSSES[name]) for factor in (1.001, 0.9))
    assert not above.clipped
    assert max(above.critic, above.policy) <= 1e-10
    assert below.clipped
    assert below.policy > 1e-6
    error = np.abs(unclipped_form(mdp, beta, 1.001 * limit, k + 1) - joint_fixed_point(mdp, beta, 1.001 * limit, LOSSES[name]).pi)
    assert error.max() > 1e-4


def test_unclipped_from_cross_entropy_is_the_exactness_threshold():
    mdp, beta = problem(2)
    assert unclipped_from(mdp, beta, 1) == pytest.approx(exactness_threshold(mdp, beta), abs=1e-14)


@pytest.mark.parametrize(("loss", "k"), [(CROSS_ENTROPY, 1), (MSE, 0), (ITAKURA_SAITO, 2)], ids=["ce", "mse", "is"])
def test_unit_error_converted_lambda_is_0(loss, k):
    mdp, beta = problem(0)
    assert unit_error(mdp, beta, loss, k) <= 1e-8
    assert unit_error(mdp, beta, loss, k + 1) > 1e-3
