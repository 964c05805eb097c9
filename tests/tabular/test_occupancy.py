"""Discounted occupancy, stationary distribution and their limit."""

import numpy as np
import pytest
from tabular_problems import GARNETS

from mbkit.errors import UserError
from mbkit.tabular.environments import exit_or_loop, garnet, one_step_grid
from mbkit.tabular.mdp import MDP, random_policy, uniform_policy
from mbkit.tabular.occupancy import abel_limit, discounted, discounted_pairs, limit_matrix, stationary, total_variation, transition_of
from mbkit.tabular.operators import performance

MDPS = [*GARNETS, one_step_grid(2), exit_or_loop(0.9)]


def test_discounted_pairs_weight_rewards_to_the_return() -> None:
    for mdp in MDPS:
        pi = random_policy(mdp, np.random.default_rng(1))
        d = discounted_pairs(mdp, pi)
        assert abs(d.sum() - 1) <= 1e-12
        assert abs((d * mdp.R).sum() / (1 - mdp.gamma) - performance(mdp, pi)) <= 1e-10
        flow = (1 - mdp.gamma) * mdp.mu0 + mdp.gamma * discounted(mdp, pi) @ transition_of(mdp, pi)
        assert np.abs(flow - discounted(mdp, pi)).max() <= 1e-12


def test_discounted_gamma_to_1_tends_to_the_stationary_distribution() -> None:
    mdp = garnet()
    pi = uniform_policy(mdp)
    mdp = MDP(mdp.P, mdp.R, np.eye(mdp.S)[0], mdp.gamma)
    d = stationary(mdp, pi)
    assert np.abs(d @ transition_of(mdp, pi) - d).max() <= 1e-12
    apart = [float(total_variation(discounted(mdp, pi, g), d)) for g in (0.9, 0.99, 0.999, 0.9999)]
    np.testing.assert_allclose(np.array(apart[:-1]) / apart[1:], 10, rtol=0.1)


def test_abel_limit_several_recurrent_classes_depends_on_mu0() -> None:
    """Two absorbing states with probabilities 0.3 and 0.7: no unique stationary distribution, but a limit."""
    P = np.zeros((3, 1, 3))
    P[0, 0] = [0.0, 0.3, 0.7]
    P[1, 0, 1] = P[2, 0, 2] = 1
    mdp = MDP(P, np.zeros((3, 1)), np.array([1.0, 0, 0]), 0.9)
    np.testing.assert_allclose(abel_limit(mdp, np.ones((3, 1))), [0, 0.3, 0.7], atol=1e-12)
    with pytest.raises(UserError, match="not unique: the chain has 2 recurrent classes"):
        stationary(mdp, np.ones((3, 1)))
    with pytest.raises(UserError, match="needs gamma < 1"):
        discounted(mdp, np.ones((3, 1)), 1.0)


def test_limit_matrix_periodic_chain_is_its_average() -> None:
    np.testing.assert_allclose(limit_matrix(np.array([[0.0, 1.0], [1.0, 0.0]])), 0.5, atol=1e-12)
