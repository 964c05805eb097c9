"""Learned critics: derivatives, features, and training to the closed form."""

import numpy as np
import pytest
import torch

from mbkit.tabular.critic_losses import CROSS_ENTROPY, LOSSES
from mbkit.tabular.critic_regularisation import normalised_target
from mbkit.theory import learned_critics as critics
from mbkit.theory.joint_fixed_points import closed_forms, policy_distance, problem

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("name", critics.NAMES)
def test_derivatives_are_those_in_log_q(name):
    loss, h = LOSSES.get(name, CROSS_ENTROPY), 1e-6
    u, y, beta, x = RNG.normal(size=50), RNG.uniform(0.2, 3, 50), RNG.uniform(0.1, 1, 50), RNG.normal(size=50)

    def objective(u):
        return beta * loss.value(np.exp(u), y) + x * loss.penalty(np.exp(u))

    values = critics.DERIVATIVES[name](*map(torch.as_tensor, (np.exp(u), y, beta, x))).numpy()
    np.testing.assert_allclose(values, (objective(u + h) - objective(u - h)) / (2 * h), atol=1e-6)


def test_biased_equals_normalised_target():
    source = problem(0)
    v = RNG.uniform(1, 5, 25)
    samples = source.mdp.R[..., None] + source.mdp.gamma * v
    values = critics.biased(torch.as_tensor(source.mdp.P.copy()), torch.as_tensor(samples)).numpy()
    np.testing.assert_allclose(values, normalised_target(source.mdp, v), atol=1e-12)


def test_polynomials_degree_4_represent_every_table():
    basis = critics.polynomials(4)
    np.testing.assert_allclose(basis.T @ basis, 25 * np.eye(25), atol=1e-10)
    row, column = np.divmod(np.arange(25), 5)
    plane = 0.3 + row - 2.0 * column + row * column
    for degree, fits in ((0, False), (1, True)):
        x = critics.polynomials(degree)
        assert (np.abs(x @ np.linalg.lstsq(x, plane, rcond=None)[0] - plane).max() < 1e-10) == fits


def test_converted_lambda_by_hand():
    assert [critics.converted_lambda(name, 0.5, 4.0) for name in ("cross_entropy", "mse", "itakura_saito")] == [0.5, 2.0, 0.125]


def test_train_table_reaches_the_closed_form_and_is_reproducible():
    run = critics.CriticGrid([problem(5)], np.array([1.0]), ("cross_entropy", critics.NORMALISED))
    trained = critics.train(run, critics.polynomials(4), (), critics.Training(steps=600), 0)
    assert trained.pi.shape == (9, 2, 1, 1, 25, 5)
    np.testing.assert_allclose(trained.pi[0, 0, 0, 0], run.problems[0].beta, atol=1e-6)  # the actor is beta in the first quarter
    error = policy_distance(trained.pi[-1], closed_forms(run).pi)[:, 0, 0]
    assert error.max() < 1e-3
    difference = policy_distance(trained.pi[-1, 1], trained.pi[-1, 0])
    assert (difference > 1e-3).all()  # the two weights have different fixed points
    short = [critics.train(run, critics.polynomials(1), (4,), critics.Training(steps=20), 3).q for _ in range(2)]
    np.testing.assert_array_equal(*short)
