"""Effective sample size, concentrability and coverage."""

import numpy as np
import pytest

from mbkit.errors import UserError
from mbkit.tabular.coverage import concentrability, coverage, effective_sample_size, support
from mbkit.tabular.environments import exit_or_loop, one_step_grid
from mbkit.tabular.mdp import uniform_policy
from mbkit.tabular.occupancy import discounted_pairs
from mbkit.tabular.sampling import sample_rows


def test_effective_sample_size_by_hand() -> None:
    assert effective_sample_size(np.full(7, 3.0)) == pytest.approx(7)
    assert effective_sample_size(np.array([0.0, 2.0, 0.0])) == pytest.approx(1)
    assert effective_sample_size(np.array([1.0, 2.0, 3.0])) == pytest.approx(36 / 14)
    assert effective_sample_size(np.array([1e300, 1e300])) == pytest.approx(2)
    assert effective_sample_size(np.zeros(3)) == 0
    with pytest.raises(UserError, match="finite"):
        effective_sample_size(np.array([1.0, np.nan]))


def test_concentrability_by_hand() -> None:
    assert concentrability(np.array([0.5, 0.5, 0.0]), np.array([0.25, 0.75, 0.0])) == pytest.approx(2)
    assert concentrability(np.array([0.5, 0.5]), np.array([1.0, 0.0])) == np.inf
    with pytest.raises(UserError, match="one shape"):
        concentrability(np.ones(2), np.ones(3))


def test_coverage_behaviour_policy_and_policy_outside_the_data() -> None:
    """With rows sampled from d^pi the ratio is near 1; without some pairs of the policy, `outside` is their mass."""
    mdp, rng = one_step_grid(1), np.random.default_rng(0)
    pi = uniform_policy(mdp)
    behaviour = coverage(mdp, pi, sample_rows(mdp, rng, 100_000, discounted_pairs(mdp, pi)))
    assert behaviour.support.all()
    assert behaviour.outside == 0
    assert behaviour.concentrability == pytest.approx(1, abs=0.3)
    assert behaviour.effective_size > 0.99 * 100_000
    down = np.eye(5)[np.zeros(25, int)]  # always action 0, down: 0, 5, 10, 15, then 20
    weight = np.ones((25, 5))
    weight[20, 0] = 0
    partial = coverage(mdp, down, sample_rows(mdp, rng, 20_000, weight))
    assert not partial.support[20, 0]
    assert partial.outside == pytest.approx(0.95**4)
    assert partial.concentrability == np.inf
    assert np.array_equal(support(partial.counts, 1), partial.support)
    assert partial.counts.sum() == 20_000


def test_coverage_excludes_terminal_states() -> None:
    """Before the terminal state of `exit_or_loop` the policy only exits, as three of four rows do."""
    mdp, exits = exit_or_loop(), np.array([[1.0, 0.0], [1.0, 0.0]])
    rows = sample_rows(mdp, np.random.default_rng(0), 4)._replace(action=np.array([0, 0, 0, 1]))
    out = coverage(mdp, exits, rows)
    assert (out.outside, out.concentrability, out.effective_size) == pytest.approx((0, 4 / 3, 3))
