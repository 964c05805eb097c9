"""Sampled episodes and rows, learning rates and epsilon-greedy policies."""

import numpy as np
import pytest
from tabular_problems import episodic

from mbkit.errors import UserError
from mbkit.tabular.environments import exit_or_loop
from mbkit.tabular.mdp import random_policy
from mbkit.tabular.sampling import (
    constant,
    epsilon_greedy,
    polynomial,
    rescaled_linear,
    rows_of,
    sample_average,
    sample_episode,
    sample_rows,
)


def test_sample_episode_ends_at_terminal_states_or_max_steps() -> None:
    mdp, rng = exit_or_loop(), np.random.default_rng(0)
    out = sample_episode(mdp, np.array([[1.0, 0.0], [1.0, 0.0]]), rng, 10)
    assert (out.state.tolist(), out.action.tolist(), out.reward.tolist(), out.discount.tolist()) == ([0, 1], [0], [1.0], [0.0])
    loops = sample_episode(mdp, np.array([[0.0, 1.0], [1.0, 0.0]]), rng, 3)
    assert loops.length == 3
    assert loops.discount.tolist() == [1.0, 1.0, 1.0]
    forced = sample_episode(mdp, np.array([[1.0, 0.0], [1.0, 0.0]]), rng, 10, start=0, first_action=1)
    assert forced.action.tolist() == [1, 0]
    both = rows_of([loops, out])
    assert both.next_state.tolist() == [0, 0, 0, 1]
    assert both.next_action.tolist() == [1, 1, -1, -1]
    with pytest.raises(UserError, match="max_steps >= 1, not 0"):
        sample_episode(mdp, np.eye(2), rng, 0)


def test_sample_rows_frequencies_are_the_probabilities() -> None:
    """Within 4 standard errors: states visited by episodes, and (s, a, s') of single rows."""
    mdp, rng, n = episodic(), np.random.default_rng(1), 40_000
    rows = sample_rows(mdp, rng, n)
    expected = mdp.P[:-1] / (3 * 2)
    counted = np.zeros((4, 2, 4))
    np.add.at(counted, (rows.state, rows.action, rows.next_state), 1)
    assert counted[-1].sum() == 0
    assert np.all(np.abs(counted[:-1] / n - expected) <= 4 * np.sqrt(expected / n))
    pi = random_policy(mdp, rng)
    second = np.einsum("s,sa,sat->t", mdp.mu0, pi, mdp.P)
    frequency = np.bincount([sample_episode(mdp, pi, rng, 1).state[1] for _ in range(4000)], minlength=4) / 4000
    assert np.all(np.abs(frequency - second) <= 4 * np.sqrt(second / 4000))


def test_epsilon_greedy_ties_share_the_probability() -> None:
    assert np.allclose(
        epsilon_greedy(np.array([[1.0, 1.0, 0.0, 0.0], [0.0, 2.0, 1.0, 0.0]]), 0.2), [[0.45, 0.45, 0.05, 0.05], [0.05, 0.85, 0.05, 0.05]]
    )


def test_learning_rates_by_hand() -> None:
    assert [sample_average()(n) for n in range(3)] == [1, 1 / 2, 1 / 3]
    assert [rescaled_linear(0.5)(n) for n in range(3)] == [1, 1 / 1.5, 1 / 2]
    assert rescaled_linear(1.0)(9) == 1
    assert polynomial(0.5)(3) == 0.5
    assert constant(0.3)(10) == 0.3
    with pytest.raises(UserError, match="power"):
        polynomial(-1.0)
