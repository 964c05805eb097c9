"""Value iteration, policy iteration and fixed points."""

from itertools import pairwise

import numpy as np
import pytest
from tabular_problems import GARNETS

from mbkit.errors import UserError
from mbkit.tabular.environments import exit_or_loop, garnet, one_step_grid
from mbkit.tabular.mdp import MDP, random_policy
from mbkit.tabular.operators import entropy, greedy, lse, optimality_q, optimality_v, q_of, soft_optimality_q, value_of
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

MDPS = [*GARNETS, one_step_grid(2), exit_or_loop(0.9)]


@pytest.mark.parametrize("kind", ["v", "q"])
def test_policy_iteration_exact_solves_the_optimality_equation(kind: Kind) -> None:
    for mdp in MDPS:
        solution = policy_iteration(mdp, kind)
        assert np.abs(optimality_q(mdp, solution.q) - solution.q).max() <= 1e-10
        assert np.abs(optimality_v(mdp, solution.v) - solution.v).max() <= 1e-10
        assert np.abs(q_of(mdp, solution.pi) - solution.q).max() <= 1e-10  # the value is that of the policy
        assert all((after - before).min() >= -1e-10 for before, after in pairwise(solution.history))
        assert solution.iterations <= 10


def test_policy_iteration_garnets_needs_at_most_4_iterations() -> None:
    assert max(policy_iteration(garnet(8, 3, 3, seed=s)).iterations for s in range(3)) <= 4


def test_policy_iteration_ties_take_the_lowest_index() -> None:
    """All actions are equal, so that any two policies are equally good: the lowest index is taken."""
    mdp = garnet(8, 3, 3)
    same = MDP(np.repeat(mdp.P[:, :1], 3, axis=1), np.repeat(mdp.R[:, :1], 3, axis=1), mdp.mu0, 0.9)
    assert (policy_iteration(same).pi.argmax(1) == 0).all()


@pytest.mark.parametrize("kind", ["v", "q"])
def test_value_iteration_satisfies_its_bounds(kind: Kind) -> None:
    for mdp in MDPS:
        exact = policy_iteration(mdp)
        solution = value_iteration(mdp, kind, tol=1e-6)
        optimum = exact.v if kind == "v" else exact.q
        distance = np.array([np.abs(x - optimum).max() for x in [np.zeros_like(optimum), *solution.history]])
        k = np.arange(len(distance))
        assert (distance <= mdp.gamma**k * distance[0] + 1e-10).all()  # a priori
        steps = np.abs(np.diff([np.zeros_like(optimum), *solution.history], axis=0)).reshape(len(distance) - 1, -1).max(1)
        assert (distance[1:] <= mdp.gamma / (1 - mdp.gamma) * steps + 1e-10).all()  # a posteriori
        assert distance[-1] <= 1e-6
        assert mdp.gamma / (1 - mdp.gamma) * steps[-2] > 1e-6  # it stops as soon as it may


@pytest.mark.parametrize("kind", ["v", "q"])
@pytest.mark.parametrize("evaluation", [sweeps(1), sweeps(7), until(1e-9)])
def test_policy_iteration_inexact_reaches_the_optimum(kind: Kind, evaluation: object) -> None:
    mdp = garnet()
    solution = policy_iteration(mdp, kind, evaluation, tol=1e-9)  # type: ignore[arg-type]
    assert np.abs(solution.q - policy_iteration(mdp).q).max() <= 1e-9


def test_sweeps_1_is_value_iteration() -> None:
    mdp = garnet()
    swept = policy_iteration(mdp, "q", sweeps(1), greedy(np.zeros((mdp.S, mdp.A)))).history
    for mine, theirs in zip(swept, value_iteration(mdp).history, strict=False):
        np.testing.assert_allclose(mine, theirs, atol=1e-12)


def test_fixed_point_logs_contraction_and_refuses_others() -> None:
    solution = fixed_point(lambda x: 0.5 * x + 1, np.zeros(1), 0.5, 1e-9)
    np.testing.assert_allclose(solution.ratios, 0.5, atol=1e-6)
    assert abs(solution.x[0] - 2) <= solution.bound <= 1e-9
    with pytest.raises(UserError, match=r"modulus \(gamma\) must lie in \[0, 1\), not 1.0"):
        fixed_point(lambda x: x, np.zeros(1), 1.0)
    with pytest.raises(UserError, match=r"no fixed point within 1e-10 after 3"):
        fixed_point(lambda x: 0.9 * x + 1, np.zeros(1), 0.9, max_iterations=3)
    with pytest.raises(UserError, match="are not finite"), np.errstate(over="ignore"):
        fixed_point(lambda x: x * 1e200 + 1, np.zeros(1), 0.5)


def test_soft_policy_iteration_converges_monotonically() -> None:
    for mdp in MDPS:
        alpha = 0.3
        solution = soft_policy_iteration(mdp, alpha, tol=1e-11)
        errors = np.array([np.abs(q - solution.q).max() for q in solution.history[:-1]])
        assert all((after - before).min() >= -1e-10 for before, after in pairwise(solution.history))
        assert (errors[1:] <= mdp.gamma * errors[:-1] + 1e-10).all()
        assert np.abs(soft_optimality_q(mdp, solution.q, alpha) - solution.q).max() <= 1e-10
        np.testing.assert_allclose(soft_value(solution.pi, solution.q, alpha), lse(solution.q, alpha), atol=1e-10)


def test_soft_policy_iteration_does_not_terminate_exactly() -> None:
    """Errors decrease quadratically but stay above zero until rounding errors dominate."""
    solution = soft_policy_iteration(garnet(8, 3, 3, seed=0), 0.3, tol=1e-13)
    errors = [np.abs(q - solution.q).max() for q in solution.history]
    assert all(e > 0 for e in errors[:3])
    assert all((a > b) for a, b in pairwise(errors[:4]))
    with pytest.raises(UserError, match="alpha must be > 0"):
        soft_policy_iteration(garnet(), 0.0)


def test_soft_policy_iteration_optimum_is_best_with_entropy() -> None:
    mdp, rng = garnet(), np.random.default_rng(0)
    best = soft_policy_iteration(mdp, 0.3)
    for _ in range(20):
        pi = random_policy(mdp, rng)
        assert (value_of(mdp, pi, 0.3 * entropy(pi)) <= lse(best.q, 0.3) + 1e-10).all()
