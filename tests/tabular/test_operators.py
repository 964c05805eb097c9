"""Bellman operators: contraction, fixed points, and soft and KL-regularised forms."""

from collections.abc import Callable

import numpy as np
import pytest
from tabular_problems import GARNETS, soft_optimum

from mbkit.errors import UserError
from mbkit.tabular.environments import (
    exit_or_loop,
    garnet,
)
from mbkit.tabular.mdp import MDP, random_policy, uniform_policy
from mbkit.tabular.operators import (
    backup,
    bellman_q,
    bellman_v,
    entropy,
    expectation,
    greedy,
    kl,
    kl_bellman_q,
    kl_optimality_q,
    kl_q_of,
    log_softmax,
    lse,
    optimality_q,
    optimality_v,
    q_of,
    soft_bellman_q,
    soft_bellman_v,
    soft_optimality_q,
    soft_q_of,
    softmax,
    value_of,
)
from mbkit.tabular.planning import (
    fixed_point,
    policy_iteration,
)

Table = np.ndarray
RNG = np.random.default_rng(0)
OPERATORS: dict[str, Callable[[MDP, Table, Table, Table], Table]] = {
    "V^pi": lambda m, pi, prior, x: bellman_v(m, pi, x[:, 0]),
    "Q^pi": lambda m, pi, prior, x: bellman_q(m, pi, x),
    "V*": lambda m, pi, prior, x: optimality_v(m, x[:, 0]),
    "Q*": lambda m, pi, prior, x: optimality_q(m, x),
    "soft V^pi": lambda m, pi, prior, x: soft_bellman_v(m, pi, x[:, 0], 0.3),
    "soft Q^pi": lambda m, pi, prior, x: soft_bellman_q(m, pi, x, 0.3),
    "soft Q*": lambda m, pi, prior, x: soft_optimality_q(m, x, 0.3),
    "KL Q^pi": lambda m, pi, prior, x: kl_bellman_q(m, pi, x, prior, 0.3),
    "KL Q*": lambda m, pi, prior, x: kl_optimality_q(m, x, prior, 0.3),
}


def test_value_of_gamma_1_is_exact() -> None:
    """gamma = 1 on a path of three steps that cost 1 each."""
    chain = np.zeros((4, 1, 4))
    chain[[0, 1, 2, 3], 0, [1, 2, 3, 3]] = 1
    mdp = MDP(chain, np.array([[-1.0], [-1], [-1], [0]]), np.eye(4)[0], 1.0, np.arange(4) == 3)
    np.testing.assert_allclose(value_of(mdp, uniform_policy(mdp)), [-3, -2, -1, 0], atol=1e-14)


@pytest.mark.parametrize("name", OPERATORS)
def test_operators_are_gamma_contractions(name: str) -> None:
    for mdp in GARNETS:
        pi, prior = random_policy(mdp, RNG), random_policy(mdp, RNG)
        x, y = 10 * RNG.normal(size=(2, mdp.S, mdp.A))
        operator = OPERATORS[name]
        width = 1 if "V" in name else mdp.A  # operators on V read the first column
        apart = np.abs(operator(mdp, pi, prior, x) - operator(mdp, pi, prior, y)).max()
        assert apart / np.abs(x - y)[:, :width].max() <= mdp.gamma + 1e-12
        shifted = operator(mdp, pi, prior, x + 3.0) - operator(mdp, pi, prior, x)
        assert np.abs(shifted - 3.0 * mdp.gamma).max() <= 1e-12


def test_value_of_and_q_of_are_the_fixed_points() -> None:
    for mdp in GARNETS:
        pi, prior = random_policy(mdp, RNG), random_policy(mdp, RNG)
        v, q = value_of(mdp, pi), q_of(mdp, pi)
        soft, near = soft_q_of(mdp, pi, 0.3), kl_q_of(mdp, pi, prior, 0.3)
        for residual in (
            bellman_v(mdp, pi, v) - v,
            bellman_q(mdp, pi, q) - q,
            expectation(pi, q) - v,
            soft_bellman_q(mdp, pi, soft, 0.3) - soft,
            kl_bellman_q(mdp, pi, near, prior, 0.3) - near,
        ):
            assert np.abs(residual).max() <= 1e-12


def test_kl_q_of_uniform_prior_is_soft_q_minus_a_constant() -> None:
    """KL8: Q_H - Q_KL = gamma alpha ln A / (1 - gamma) where nothing terminates."""
    mdp, alpha = garnet(), 0.5
    pi = random_policy(mdp, RNG)
    gap = soft_q_of(mdp, pi, alpha) - kl_q_of(mdp, pi, uniform_policy(mdp), alpha)
    np.testing.assert_allclose(gap, mdp.gamma * alpha * np.log(mdp.A) / (1 - mdp.gamma), rtol=1e-12)


def test_lse_and_softmax_extreme_values_do_not_overflow() -> None:
    x = np.array([[1e5, 0.0, -1e5]])
    assert lse(x, 1e-3) == 1e5
    assert lse(x, 0.0) == 1e5
    assert softmax(x, 1e-3).tolist() == [[1.0, 0.0, 0.0]]
    assert log_softmax(x, 1.0).tolist() == [[0.0, -1e5, -2e5]]
    assert entropy(np.array([1.0, 0.0])) == 0
    assert kl(np.array([0.5, 0.5]), np.array([1.0, 0.0])) == np.inf
    assert kl(np.array([1.0, 0.0]), np.array([0.5, 0.5])) == np.log(2)
    assert greedy(np.array([[1.0, 2.0, 2.0]])).tolist() == [[0.0, 1.0, 0.0]]


def test_kl_q_of_outside_the_prior_is_refused() -> None:
    mdp = garnet(8, 3, 3)
    with pytest.raises(UserError, match="in state 0 the prior is 0 where pi is not"):
        kl_q_of(mdp, uniform_policy(mdp), greedy(mdp.R), 0.3)


@pytest.mark.parametrize("alpha", [0.01, 0.1, 1.0, 10.0])
def test_soft_optimality_q_fixed_point_has_a_bounded_hard_residual(alpha: float) -> None:
    for mdp in GARNETS:
        uniform, zeros = uniform_policy(mdp), np.zeros((mdp.S, mdp.A))
        near = fixed_point(lambda q: kl_optimality_q(mdp, q, uniform, alpha), zeros, mdp.gamma, 1e-11).x  # noqa: B023
        soft = fixed_point(lambda q: soft_optimality_q(mdp, q, alpha), zeros, mdp.gamma, 1e-11).x  # noqa: B023
        most = mdp.gamma * alpha * np.log(mdp.A)
        for residual, low, high in (
            (optimality_q(mdp, near) - near, 0.0, min(most, mdp.A * alpha / np.e)),
            (optimality_q(mdp, soft) - soft, -most, 0.0),
        ):
            assert residual.min() >= low - 1e-9
            assert residual.max() <= high + 1e-9
        assert alpha < 1 or (optimality_q(mdp, soft) - soft).min() < -0.1 * alpha  # so a lower bound of 0 is false for the entropy form


def test_soft_optimality_q_policy_has_a_bounded_loss() -> None:
    for mdp in GARNETS:
        for alpha in (0.1, 1.0):
            gap = policy_iteration(mdp).q - q_of(mdp, softmax(soft_optimum(mdp, alpha), alpha))
            assert gap.min() >= -1e-9
            assert gap.max() <= mdp.gamma * alpha * np.log(mdp.A) / (1 - mdp.gamma) + 1e-9


def test_backup_terminal_states_have_value_0() -> None:
    mdp = exit_or_loop()
    np.testing.assert_array_equal(backup(mdp, np.array([0.0, 100.0])), mdp.R)
