"""C1, C4: contraction of every operator, and what a temperature costs."""

from collections.abc import Callable

import numpy as np
import pytest

from mbkit.tabular.bounds import lambert_w, softmax_regret
from mbkit.tabular.environments import exit_or_loop, garnet, soft_trap
from mbkit.tabular.mdp import MDP, TabularError, random_policy, uniform_policy
from mbkit.tabular.operators import (
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
from mbkit.tabular.planning import fixed_point, policy_iteration

Table = np.ndarray
RNG = np.random.default_rng(0)
MDPS = [garnet(seed=s) for s in range(3)] + [garnet(8, 3, 3, seed=s) for s in range(3)]
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


@pytest.mark.parametrize("name", OPERATORS)
def test_c1_gamma_contraction(name: str) -> None:
    for mdp in MDPS:
        pi, prior = random_policy(mdp, RNG), random_policy(mdp, RNG)
        x, y = 10 * RNG.normal(size=(2, mdp.S, mdp.A))
        operator = OPERATORS[name]
        width = 1 if "V" in name else mdp.A  # operators on V read the first column
        apart = np.abs(operator(mdp, pi, prior, x) - operator(mdp, pi, prior, y)).max()
        assert apart / np.abs(x - y)[:, :width].max() <= mdp.gamma + 1e-12
        shifted = operator(mdp, pi, prior, x + 3.0) - operator(mdp, pi, prior, x)
        assert np.abs(shifted - 3.0 * mdp.gamma).max() <= 1e-12


def test_exact_values_are_the_fixed_points() -> None:
    for mdp in MDPS:
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


def test_uniform_prior_is_entropy_minus_a_constant() -> None:
    """KL8: Q_H - Q_KL = gamma alpha ln A / (1 - gamma) where nothing terminates."""
    mdp, alpha = garnet(), 0.5
    pi = random_policy(mdp, RNG)
    gap = soft_q_of(mdp, pi, alpha) - kl_q_of(mdp, pi, uniform_policy(mdp), alpha)
    np.testing.assert_allclose(gap, mdp.gamma * alpha * np.log(mdp.A) / (1 - mdp.gamma), rtol=1e-12)


def test_functions_of_one_state_survive_extremes() -> None:
    x = np.array([[1e5, 0.0, -1e5]])
    assert lse(x, 1e-3) == 1e5
    assert lse(x, 0.0) == 1e5
    assert softmax(x, 1e-3).tolist() == [[1.0, 0.0, 0.0]]
    assert log_softmax(x, 1.0).tolist() == [[0.0, -1e5, -2e5]]
    assert entropy(np.array([1.0, 0.0])) == 0
    assert kl(np.array([0.5, 0.5]), np.array([1.0, 0.0])) == np.inf
    assert kl(np.array([1.0, 0.0]), np.array([0.5, 0.5])) == np.log(2)
    assert greedy(np.array([[1.0, 2.0, 2.0]])).tolist() == [[0.0, 1.0, 0.0]]


def test_kl_without_support_is_refused() -> None:
    mdp = garnet(8, 3, 3)
    with pytest.raises(TabularError, match="in state 0 the prior is 0 where pi is not"):
        kl_q_of(mdp, uniform_policy(mdp), greedy(mdp.R), 0.3)


@pytest.mark.parametrize(("A", "sup"), [(2, 0.2785), (3, 0.4631), (4, 0.6035)])
def test_c4a_softmax_regret_is_tight(A: int, sup: float) -> None:
    """0 <= max Q - <softmax(Q / alpha), Q> <= alpha W((A-1)/e), reached where the others tie, <= (A-1) alpha / e, <= alpha ln A."""
    alpha = 0.7
    q = RNG.normal(size=(20_000, A)) * RNG.exponential(2, size=(20_000, 1))
    regret = q.max(-1) - expectation(softmax(q, alpha), q)
    assert regret.min() >= -1e-9
    assert regret.max() <= softmax_regret(A, alpha) + 1e-9
    gap = alpha * (1 + lambert_w((A - 1) / np.e))  # the worst gap: d/dx x / (e^x + A-1) = 0
    worst = np.append(0.0, np.full(A - 1, -gap))
    assert abs(-expectation(softmax(worst, alpha), worst) - softmax_regret(A, alpha)) <= 1e-9
    assert softmax_regret(A, alpha) <= alpha * min((A - 1) / np.e, np.log(A))
    assert round(softmax_regret(A, 1.0), 4) == sup


def test_c4a_a_backup_multiplies_the_regret_by_gamma() -> None:
    mdp, alpha = garnet(), 0.7
    q = RNG.normal(size=(mdp.S, mdp.A))
    gap = optimality_q(mdp, q) - bellman_q(mdp, softmax(q, alpha), q)
    assert gap.min() >= -1e-9
    assert gap.max() <= mdp.gamma * softmax_regret(mdp.A, alpha) + 1e-9


@pytest.mark.parametrize("alpha", [0.01, 0.1, 1.0, 10.0])
def test_c4b_residual_of_soft_fixed_points(alpha: float) -> None:
    for mdp in MDPS:
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


def _soft_optimum(mdp: MDP, alpha: float) -> Table:
    return fixed_point(lambda q: soft_optimality_q(mdp, q, alpha), np.zeros((mdp.S, mdp.A)), mdp.gamma, 1e-11).x


def test_c4c_hard_value_of_the_soft_policy() -> None:
    for mdp in MDPS:
        for alpha in (0.1, 1.0):
            gap = policy_iteration(mdp).q - q_of(mdp, softmax(_soft_optimum(mdp, alpha), alpha))
            assert gap.min() >= -1e-9
            assert gap.max() <= mdp.gamma * alpha * np.log(mdp.A) / (1 - mdp.gamma) + 1e-9


def test_c4c_soft_trap_violates_the_undiscounted_bound() -> None:
    alpha = 0.2
    mdp = soft_trap(alpha)
    gap = (policy_iteration(mdp).q - q_of(mdp, softmax(_soft_optimum(mdp, alpha), alpha))).max()
    assert abs(gap / alpha - 49.5) < 1e-6
    assert gap > 0.736 * alpha  # (A - 1) alpha / e
    assert gap <= mdp.gamma * alpha * np.log(3) / (1 - mdp.gamma)


def test_c12_exit_or_loop_tells_entropy_from_kl() -> None:
    mdp, alpha = exit_or_loop(), 2.0
    near = fixed_point(lambda q: kl_optimality_q(mdp, q, uniform_policy(mdp), alpha), np.zeros((2, 2)), mdp.gamma, 1e-12).x
    assert round(softmax(_soft_optimum(mdp, alpha), alpha)[0, 1], 3) == 0.963
    assert round(softmax(near, alpha)[0, 1], 3) == 0.498
