"""Exact CQL(H): the critic by direct minimisation, and the limits of lambda."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import logsumexp

from mbkit.errors import UserError
from mbkit.tabular.environments import garnet
from mbkit.tabular.mdp import random_policy, uniform_policy
from mbkit.tabular.operators import entropy, expectation, greedy, lse, q_of, softmax
from mbkit.tabular.planning import value_iteration
from mbkit.theory import conservative as cql


def tables_of(mdp, beta):
    return cql.Tables(mdp.P[None], mdp.R[None], beta[None], mdp.terminal[None], mdp.gamma)


@pytest.mark.parametrize("lam", [0.01, 1.0, 30.0])
def test_critic_minimises_its_loss(lam):
    rng = np.random.default_rng(0)
    beta, y = rng.dirichlet(np.ones(4)), 3 * rng.normal(size=4)

    def loss(q):
        return 0.5 * (beta * (q - y) ** 2).sum() + lam * (logsumexp(q) - beta @ q)

    q, mu, level = cql.critic(y[None], beta[None], np.array(lam))
    least = minimize(loss, y, method="BFGS", options={"gtol": 1e-9})
    assert loss(q[0]) <= least.fun + 1e-12
    np.testing.assert_allclose(q[0], least.x, atol=1e-3)
    np.testing.assert_allclose(mu, softmax(q), atol=1e-12)
    np.testing.assert_allclose(level, lse(q), atol=1e-10)


def test_critic_actions_without_data_have_no_mass():
    beta, y = np.array([[0.0, 0.3, 0.7]]), np.array([[9.0, 1.0, 2.0]])
    q, mu, _ = cql.critic(y, beta, np.array(0.5))
    inner, inner_mu, _ = cql.critic(y[:, 1:], beta[:, 1:], np.array(0.5))
    assert mu[0, 0] == 0
    np.testing.assert_allclose(q[:, 1:], inner, atol=1e-12)
    np.testing.assert_allclose(mu[:, 1:], inner_mu, atol=1e-12)


@pytest.mark.parametrize("lam", [1e-6, 0.1, 5.0, 1e3, 1e6])
def test_critic_any_lambda_converges_to_the_root(lam):
    rng = np.random.default_rng(1)
    beta, y = rng.dirichlet(np.full(5, 0.3), 50), 10 * rng.normal(size=(50, 5))
    q, mu, _ = cql.critic(y, beta, np.array(lam))
    np.testing.assert_allclose(softmax(q), mu, atol=1e-9)
    np.testing.assert_allclose(expectation(beta, q), expectation(beta, y), atol=1e-8)


def test_critic_jacobian_is_a_stochastic_matrix():
    rng = np.random.default_rng(2)
    beta, y, step = rng.dirichlet(np.ones(4)), rng.normal(size=4), 1e-6
    ends = [cql.critic(y + sign * step * np.eye(4), np.tile(beta, (4, 1)), np.array(2.0))[0] for sign in (1, -1)]
    jacobian = (ends[0] - ends[1]) / (2 * step)  # [index of y, index of Q]
    assert jacobian.min() > 0
    np.testing.assert_allclose(jacobian.sum(0), 1, atol=1e-8)


def test_conservative_is_a_fixed_point_between_value_iteration_and_cloning():
    mdp = garnet(8, 3, 3, seed=1)
    beta = random_policy(mdp, np.random.default_rng(0))
    lams = np.array([1e-8, 1.0, 1e5])
    solution = cql.conservative(tables_of(mdp, beta), lams, tol=1e-8)
    again = mdp.R + mdp.gamma * (mdp.P @ solution.q[1, 0].max(-1)) - lams[1] * (softmax(solution.q[1, 0]) / beta - 1)
    np.testing.assert_allclose(solution.q[1, 0], again, atol=1e-7)
    np.testing.assert_allclose(solution.q[0, 0], value_iteration(mdp, tol=1e-10).q, atol=1e-4)
    np.testing.assert_allclose(solution.mu[2, 0], beta, atol=1e-3)
    np.testing.assert_allclose(solution.y[2, 0], q_of(mdp, beta, cql.large_lambda_bonus(beta)), atol=1e-2)
    assert (solution.y[2, 0] > q_of(mdp, beta) + 0.1).all()  # not V^beta: the greedy backup overestimates it


def test_large_lambda_bonus_is_0_only_for_uniform_data():
    mdp = garnet(8, 3, 3)
    np.testing.assert_allclose(cql.large_lambda_bonus(uniform_policy(mdp)), 0, atol=1e-15)
    beta = np.array([[0.5, 0.3, 0.2], [1.0, 0.0, 0.0]])
    np.testing.assert_allclose(cql.large_lambda_bonus(beta), [entropy(beta)[0] + np.log(0.5), 0], atol=1e-15)


def test_conservative_deterministic_data_does_not_depend_on_lambda():
    mdp = garnet(8, 3, 3)
    beta = greedy(q_of(mdp, uniform_policy(mdp)))
    solution = cql.conservative(tables_of(mdp, beta), np.array([0.01, 10.0]))
    np.testing.assert_allclose(solution.mu, np.broadcast_to(beta, solution.mu.shape), atol=1e-12)


def test_conservative_tolerance_below_rounding_is_refused():
    mdp = garnet(8, 3, 3)
    with pytest.raises(UserError):
        cql.conservative(tables_of(mdp, random_policy(mdp, np.random.default_rng(0))), np.array([1e9]), tol=1e-12)
