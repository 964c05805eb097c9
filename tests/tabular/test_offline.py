"""Fitted Q-iteration, expectiles, implicit and conservative Q-learning on tables."""

import numpy as np
import pytest

from mbkit.errors import UserError
from mbkit.tabular.environments import Episodes, exit_or_loop, garnet
from mbkit.tabular.mdp import MDP, random_policy, uniform_policy
from mbkit.tabular.offline import (
    behaviour,
    conservative_gap,
    conservative_q,
    counts,
    empirical_mdp,
    expectile,
    fitted_q_iteration,
    implicit_q,
)
from mbkit.tabular.operators import expectation, optimality_q, q_of, value_of
from mbkit.tabular.planning import policy_iteration

RNG = np.random.default_rng(0)


def collect(mdp: MDP, n: int, seed: int = 0) -> Episodes:
    rng = np.random.default_rng(seed)
    rows, s = [], mdp.reset(rng)
    for _ in range(n):
        a = int(rng.integers(mdp.A))
        sample = mdp.step(rng, s, a)
        rows.append((s, a, sample.reward, sample.next_state, 0, sample.discount))
        s = sample.next_state if sample.discount else mdp.reset(rng)
    columns = [np.array(column) for column in zip(*rows, strict=True)]
    return Episodes(*columns)


@pytest.mark.parametrize(
    ("mdp", "n"), [(garnet(8, 3, 3), 500), (garnet(), 150), (exit_or_loop(0.9), 50)], ids=["full", "holes", "terminal"]
)
def test_fitted_q_iteration_is_value_iteration_on_the_empirical_mdp(mdp: MDP, n: int) -> None:
    data = collect(mdp, n)
    empirical = empirical_mdp(data, mdp.S, mdp.A, mdp.gamma, mdp.mu0)
    q = np.zeros((mdp.S + 1, mdp.A))
    for k in range(1, 61):
        q = optimality_q(empirical, q)
        if k in (1, 2, 10, 60):
            assert np.abs(fitted_q_iteration(data, mdp.S, mdp.A, mdp.gamma, k) - q[: mdp.S]).max() <= 1e-10


def test_empirical_mdp_many_rows_tends_to_the_mdp() -> None:
    mdp = garnet(8, 3, 3)
    data = collect(mdp, 20_000)
    empirical = empirical_mdp(data, 8, 3, 0.9, mdp.mu0)
    assert counts(data, 8, 3).min() > 100
    assert np.abs(empirical.P[:8, :, :8] - mdp.P).max() < 4 * 0.5 / np.sqrt(counts(data, 8, 3).min())
    np.testing.assert_allclose(empirical.R[:8], mdp.R, atol=1e-12)
    assert np.abs(behaviour(data, 8, 3) - 1 / 3).max() < 0.05


def test_behaviour_without_data_is_uniform() -> None:
    data = Episodes(np.array([0, 0]), np.array([1, 1]), np.zeros(2), np.array([0, 0]), np.zeros(2, int), np.ones(2))
    np.testing.assert_array_equal(behaviour(data, 2, 2), [[0, 1], [0.5, 0.5]])


def test_expectile_is_stationary_and_monotone() -> None:
    x, p = 3 * RNG.normal(size=(500, 6)), RNG.dirichlet(np.ones(6), 500)
    p[:50, 2] = 0
    p /= p.sum(1, keepdims=True)
    taus = [0.01, 0.1, 0.5, 0.7, 0.9, 0.99, 0.999]
    expectiles = np.array([expectile(x, p, tau) for tau in taus])
    for tau, m in zip(taus, expectiles, strict=True):
        gradient = (p * np.abs(tau - (x < m[:, None])) * (x - m[:, None])).sum(1)
        assert np.abs(gradient).max() <= 1e-12
    assert np.abs(expectiles[2] - expectation(p, x)).max() <= 1e-8
    assert (np.diff(expectiles, axis=0) >= -1e-8).all()
    top = np.where(p > 0, x, -np.inf).max(1)
    p_top = np.take_along_axis(p, np.where(p > 0, x, -np.inf).argmax(1)[:, None], 1)[:, 0]
    for tau, m in zip(taus, expectiles, strict=True):
        assert (m <= top + 1e-8).all()
        assert (top - m <= (1 - tau) / tau * (top - expectation(p, x)) / p_top + 1e-8).all()
    with pytest.raises(UserError, match=r"tau of an expectile must lie in \(0, 1\), not 1.0"):
        expectile(x, p, 1.0)


def test_implicit_q_tau_1_tends_to_the_optimum_within_the_support() -> None:
    mdp = garnet(20, 4, 5, low=0.1)
    beta = random_policy(mdp, RNG)
    beta[:, 3] = 0
    beta /= beta.sum(1, keepdims=True)
    inside = policy_iteration(MDP(mdp.P[:, :3], mdp.R[:, :3], mdp.mu0, mdp.gamma)).v
    taus = [0.5, 0.7, 0.9, 0.99, 0.999, 0.9999]
    values = np.array([implicit_q(mdp, beta, tau)[0] for tau in taus])
    assert np.abs(values[0] - value_of(mdp, beta)).max() <= 1e-8
    assert (np.diff(values, axis=0) >= -1e-8).all()
    assert (values <= inside + 1e-8).all()
    gaps = np.abs(inside - values).max(1)
    np.testing.assert_allclose(gaps[-2] / gaps[-1], 10, rtol=0.1)  # proportional to 1 - tau
    v, q = implicit_q(mdp, beta, 0.9)
    assert np.abs(expectile(q, beta, 0.9) - v).max() <= 1e-8


def test_conservative_q_has_the_closed_form_gap() -> None:
    mdp, alpha = garnet(20, 4, 5, low=0.1), 0.3
    for _ in range(10):
        beta, pi, mu = (random_policy(mdp, RNG) for _ in range(3))
        q = conservative_q(mdp, pi, beta, alpha)
        D = expectation(pi, pi / beta - 1)
        transition = np.einsum("sa,sat->st", pi, mdp.P)
        expected = value_of(mdp, pi) - alpha * np.linalg.solve(np.eye(mdp.S) - mdp.gamma * transition, D)
        assert (D >= -1e-12).all()
        scale = np.abs(expected).max()
        assert np.abs(expectation(pi, q) - expected).max() <= 1e-10 * scale
        assert np.abs(value_of(mdp, pi) - conservative_gap(mdp, pi, beta, alpha) - expected).max() <= 1e-10 * scale
        assert (conservative_q(mdp, pi, beta, alpha, mu, push_up=False) <= q_of(mdp, pi) + 1e-10).all()
    assert np.abs(conservative_q(mdp, beta, beta, alpha) - q_of(mdp, beta)).max() <= 1e-10  # pi = beta: no penalty at all


def test_conservative_q_equation_2_is_not_a_pointwise_bound() -> None:
    mdp = garnet(20, 4, 5, low=0.1)
    beta = uniform_policy(mdp)
    pi = beta.copy()
    pi[0] = [0.4, 0.2, 0.2, 0.2]  # the other actions of state 0 are pushed up by more than the successors fall
    assert (conservative_q(mdp, pi, beta, 0.3) > q_of(mdp, pi)).any()
    with pytest.raises(UserError, match="at state 0, action 0: mu is > 0, but the data do not contain it"):
        conservative_q(mdp, pi, np.eye(4)[np.full(20, 1)], 0.3)


def test_conservative_q_bounded_ratio_has_the_closed_form_gap() -> None:
    """Data with every action, so that no ratio pi / beta is large: an absolute tolerance."""
    mdp, alpha = garnet(20, 4, 5, low=0.1), 0.3
    for seed in range(5):
        rng = np.random.default_rng(seed)
        beta, pi = 0.5 * random_policy(mdp, rng) + 0.125, random_policy(mdp, rng)
        D = expectation(pi, pi / beta - 1)
        gap = alpha * np.linalg.solve(np.eye(20) - mdp.gamma * np.einsum("sa,sat->st", pi, mdp.P), D)
        assert (D >= 0).all()
        assert np.abs(expectation(pi, conservative_q(mdp, pi, beta, alpha)) - value_of(mdp, pi) + gap).max() <= 1e-10
