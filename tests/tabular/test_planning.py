"""C2, C3, C19: dynamic programming with a known model."""

from itertools import pairwise

import numpy as np
import pytest

from mbkit.tabular.environments import exit_or_loop, garnet, one_step_grid
from mbkit.tabular.mdp import MDP, TabularError, random_policy, uniform_policy
from mbkit.tabular.occupancy import abel_limit, discounted, discounted_pairs, limit_matrix, stationary, total_variation, transition_of
from mbkit.tabular.operators import backup, entropy, greedy, lse, optimality_q, optimality_v, performance, q_of, soft_optimality_q, value_of
from mbkit.tabular.planning import (
    Kind,
    fixed_point,
    policy_iteration,
    soft_policy_iteration,
    soft_value,
    sweeps,
    until,
    value_iteration,
)

MDPS = [garnet(seed=s) for s in range(3)] + [garnet(8, 3, 3, seed=s) for s in range(3)] + [one_step_grid(2), exit_or_loop(0.9)]


@pytest.mark.parametrize("kind", ["v", "q"])
def test_c2_policy_iteration(kind: Kind) -> None:
    for mdp in MDPS:
        found = policy_iteration(mdp, kind)
        assert np.abs(optimality_q(mdp, found.q) - found.q).max() <= 1e-10
        assert np.abs(optimality_v(mdp, found.v) - found.v).max() <= 1e-10
        assert np.abs(q_of(mdp, found.pi) - found.q).max() <= 1e-10  # the policy earns what the value says
        assert all((after - before).min() >= -1e-10 for before, after in pairwise(found.history))
        assert found.iterations <= 10


def test_c2_policy_iteration_terminates_on_garnets_in_four_iterations() -> None:
    assert max(policy_iteration(garnet(8, 3, 3, seed=s)).iterations for s in range(3)) <= 4


def test_policy_iteration_survives_ties() -> None:
    """Every action does the same: any two policies are equally good, and the lowest index wins."""
    mdp = garnet(8, 3, 3)
    same = MDP(np.repeat(mdp.P[:, :1], 3, axis=1), np.repeat(mdp.R[:, :1], 3, axis=1), mdp.mu0, 0.9)
    assert (policy_iteration(same).pi.argmax(1) == 0).all()


@pytest.mark.parametrize("kind", ["v", "q"])
def test_c2_value_iteration_keeps_its_bounds(kind: Kind) -> None:
    for mdp in MDPS:
        exact = policy_iteration(mdp)
        found = value_iteration(mdp, kind, tol=1e-6)
        optimum = exact.v if kind == "v" else exact.q
        distance = np.array([np.abs(x - optimum).max() for x in [np.zeros_like(optimum), *found.history]])
        k = np.arange(len(distance))
        assert (distance <= mdp.gamma**k * distance[0] + 1e-10).all()  # a priori
        steps = np.abs(np.diff([np.zeros_like(optimum), *found.history], axis=0)).reshape(len(distance) - 1, -1).max(1)
        assert (distance[1:] <= mdp.gamma / (1 - mdp.gamma) * steps + 1e-10).all()  # a posteriori
        assert distance[-1] <= 1e-6
        assert mdp.gamma / (1 - mdp.gamma) * steps[-2] > 1e-6  # it stops as soon as it may


@pytest.mark.parametrize("kind", ["v", "q"])
@pytest.mark.parametrize("evaluation", [sweeps(1), sweeps(7), until(1e-9)])
def test_inexact_policy_iteration_reaches_the_optimum(kind: Kind, evaluation: object) -> None:
    mdp = garnet()
    found = policy_iteration(mdp, kind, evaluation, tol=1e-9)  # type: ignore[arg-type]
    assert np.abs(found.q - policy_iteration(mdp).q).max() <= 1e-9


def test_one_sweep_is_value_iteration() -> None:
    mdp = garnet()
    swept = policy_iteration(mdp, "q", sweeps(1), greedy(np.zeros((mdp.S, mdp.A)))).history
    for mine, theirs in zip(swept, value_iteration(mdp).history, strict=False):
        np.testing.assert_allclose(mine, theirs, atol=1e-12)


def test_fixed_point_logs_contraction_and_refuses_none() -> None:
    found = fixed_point(lambda x: 0.5 * x + 1, np.zeros(1), 0.5, 1e-9)
    np.testing.assert_allclose(found.ratios, 0.5, atol=1e-6)
    assert abs(found.x[0] - 2) <= found.bound <= 1e-9
    with pytest.raises(TabularError, match=r"modulus \(gamma\) must lie in \[0, 1\), not 1.0"):
        fixed_point(lambda x: x, np.zeros(1), 1.0)
    with pytest.raises(TabularError, match=r"no fixed point within 1e-10 after 3"):
        fixed_point(lambda x: 0.9 * x + 1, np.zeros(1), 0.9, max_iterations=3)
    with pytest.raises(TabularError, match="left the finite numbers"), np.errstate(over="ignore"):
        fixed_point(lambda x: x * 1e200 + 1, np.zeros(1), 0.5)


def test_c3_soft_policy_iteration() -> None:
    for mdp in MDPS:
        alpha = 0.3
        found = soft_policy_iteration(mdp, alpha, tol=1e-11)
        errors = np.array([np.abs(q - found.q).max() for q in found.history[:-1]])
        assert all((after - before).min() >= -1e-10 for before, after in pairwise(found.history))
        assert (errors[1:] <= mdp.gamma * errors[:-1] + 1e-10).all()
        assert np.abs(soft_optimality_q(mdp, found.q, alpha) - found.q).max() <= 1e-10
        np.testing.assert_allclose(soft_value(found.pi, found.q, alpha), lse(found.q, alpha), atol=1e-10)


def test_c3_soft_policy_iteration_is_not_finite() -> None:
    """Errors shrink quadratically but stay above zero until rounding hides them."""
    found = soft_policy_iteration(garnet(8, 3, 3, seed=0), 0.3, tol=1e-13)
    errors = [np.abs(q - found.q).max() for q in found.history]
    assert all(e > 0 for e in errors[:3])
    assert all((a > b) for a, b in pairwise(errors[:4]))
    with pytest.raises(TabularError, match="alpha must be > 0"):
        soft_policy_iteration(garnet(), 0.0)


def test_soft_optimum_beats_other_policies_in_its_own_measure() -> None:
    mdp, rng = garnet(), np.random.default_rng(0)
    best = soft_policy_iteration(mdp, 0.3)
    for _ in range(20):
        pi = random_policy(mdp, rng)
        assert (value_of(mdp, pi, 0.3 * entropy(pi)) <= lse(best.q, 0.3) + 1e-10).all()


# -------------------------------------------------------------------------------------------------------------------- occupancy
def test_occupancy_weighs_rewards_into_the_return() -> None:
    for mdp in MDPS:
        pi = random_policy(mdp, np.random.default_rng(1))
        d = discounted_pairs(mdp, pi)
        assert abs(d.sum() - 1) <= 1e-12
        assert abs((d * mdp.R).sum() / (1 - mdp.gamma) - performance(mdp, pi)) <= 1e-10
        flow = (1 - mdp.gamma) * mdp.mu0 + mdp.gamma * discounted(mdp, pi) @ transition_of(mdp, pi)
        assert np.abs(flow - discounted(mdp, pi)).max() <= 1e-12


def test_c19_occupancy_tends_to_the_stationary_law() -> None:
    mdp = garnet()
    pi = uniform_policy(mdp)
    mdp = MDP(mdp.P, mdp.R, np.eye(mdp.S)[0], mdp.gamma)
    d = stationary(mdp, pi)
    assert np.abs(d @ transition_of(mdp, pi) - d).max() <= 1e-12
    apart = [float(total_variation(discounted(mdp, pi, g), d)) for g in (0.9, 0.99, 0.999, 0.9999)]
    np.testing.assert_allclose(np.array(apart[:-1]) / apart[1:], 10, rtol=0.1)


def test_c19_several_recurrent_classes() -> None:
    """From state 0 two traps are reached with probabilities 0.3 and 0.7: no unique stationary law, but a limit."""
    P = np.zeros((3, 1, 3))
    P[0, 0] = [0.0, 0.3, 0.7]
    P[1, 0, 1] = P[2, 0, 2] = 1
    mdp = MDP(P, np.zeros((3, 1)), np.array([1.0, 0, 0]), 0.9)
    np.testing.assert_allclose(abel_limit(mdp, np.ones((3, 1))), [0, 0.3, 0.7], atol=1e-12)
    with pytest.raises(TabularError, match="not unique: the chain has 2 recurrent classes"):
        stationary(mdp, np.ones((3, 1)))
    with pytest.raises(TabularError, match="needs gamma < 1"):
        discounted(mdp, np.ones((3, 1)), 1.0)


def test_c19_limit_of_a_periodic_chain_is_its_average() -> None:
    np.testing.assert_allclose(limit_matrix(np.array([[0.0, 1.0], [1.0, 0.0]])), 0.5, atol=1e-12)


def test_backup_of_terminal_states_reads_zero() -> None:
    mdp = exit_or_loop()
    np.testing.assert_array_equal(backup(mdp, np.array([0.0, 100.0])), mdp.R)
