"""Closed-form joint fixed points on true and on empirical MDPs."""

import numpy as np
import pytest

from mbkit.tabular.critic_losses import CROSS_ENTROPY, LOSSES
from mbkit.tabular.critic_regularisation import normalised_target
from mbkit.tabular.operators import q_of
from mbkit.theory import learned_critics as critics
from mbkit.theory.joint_fixed_points import closed_form, closed_forms, empirical_forms, problem


@pytest.mark.parametrize("name", critics.NAMES)
def test_closed_form_is_stationary(name):
    """The level is shared where pi > 0, and the targets are those of the level."""
    source = problem(1)
    lam = critics.converted_lambda(name, 2.0, source.mean)
    pi, q = closed_form(source.mdp, source.beta, lam, name)
    level = (pi * q).sum(1)
    assert np.abs(np.where(pi > 0, q - level[:, None], 0)).max() <= 1e-9
    assert (q <= level[:, None] + 1e-9).all()
    y = normalised_target(source.mdp, level) if name == critics.NORMALISED else source.mdp.R + source.mdp.gamma * source.mdp.P @ level
    loss = LOSSES.get(name, CROSS_ENTROPY)
    assert np.abs(source.beta * loss.slope(q, y) + lam * (pi - source.beta)).max() <= 1e-8
    if name not in (critics.NORMALISED, "huber"):
        np.testing.assert_allclose(y, q_of(source.mdp, source.beta), atol=1e-8)


def test_empirical_forms_many_rows_tend_to_the_truth():
    run = critics.CriticGrid([problem(0)], np.array([1.0]), ("cross_entropy", "poisson"))
    exact = closed_forms(run).q
    few, many = (empirical_forms(run, run.lambdas, rows, exact) for rows in (30, 3000))
    assert max(few.to_one_step, many.to_one_step) <= 1e-8
    assert 0 < many.q_error.max() < 0.5 * few.q_error.min()
    assert 0 < many.distance.max() < 0.5 * few.distance.min()
