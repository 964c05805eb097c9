"""Test MDPs: sizes, data sets and known solutions."""

import numpy as np
import pytest
from tabular_problems import soft_optimum

from mbkit.errors import UserError
from mbkit.tabular.environments import LQR, exit_or_loop, garnet, grid_episodes, lqr_return, one_step_grid, riccati_gain, soft_trap
from mbkit.tabular.mdp import uniform_policy
from mbkit.tabular.operators import (
    kl_optimality_q,
    q_of,
    softmax,
)
from mbkit.tabular.planning import fixed_point, policy_iteration

Table = np.ndarray


def test_garnet_has_its_branching() -> None:
    mdp = garnet(8, 3, 3, seed=1)
    assert ((mdp.P > 0).sum(-1) == 3).all()
    np.testing.assert_array_equal(mdp.P, garnet(8, 3, 3, seed=1).P)
    assert not np.array_equal(mdp.P, garnet(8, 3, 3, seed=2).P)
    assert garnet(20, 4, 5, low=0.1).R.min() >= 0.1
    assert (garnet(30, sparse=True).R.sum(1) > 0).sum() == 3
    with pytest.raises(UserError, match=r"nB must lie in \[1, 8\].*not 9"):
        garnet(8, 3, 9)


def test_one_step_grid_and_grid_episodes_are_the_published_ones() -> None:
    mdp = one_step_grid(2)
    assert [mdp.P[7, a].argmax() for a in range(5)] == [12, 8, 2, 6, 7]
    assert [mdp.P[0, a].argmax() for a in range(5)] == [5, 1, 0, 0, 0]
    np.testing.assert_array_equal(mdp.R[:6, 0], [2, 1, 1, 1, 3.5, 2])
    data = grid_episodes(1)
    assert len(data.state) == 980
    assert 125 - len(set(zip(data.state.tolist(), data.action.tolist(), strict=True))) == 2
    assert grid_episodes(3).next_state.tolist() == [5, 6, 7, 8, 9, 4, 4, 4, 4]


def test_riccati_gain_is_optimal() -> None:
    gain = riccati_gain(LQR())
    assert round(gain, 6) == 1.324624
    assert all(lqr_return(LQR(), gain) > lqr_return(LQR(), gain + h) for h in (-1e-3, 1e-3))
    with pytest.raises(UserError, match="the return is infinite"):
        lqr_return(LQR(), -1.0)


def test_exit_or_loop_has_one_terminal_state() -> None:
    assert exit_or_loop().terminal.tolist() == [False, True]


def test_soft_trap_violates_the_one_step_bound() -> None:
    alpha = 0.2
    mdp = soft_trap(alpha)
    gap = (policy_iteration(mdp).q - q_of(mdp, softmax(soft_optimum(mdp, alpha), alpha))).max()
    assert abs(gap / alpha - 49.5) < 1e-6
    assert gap > 0.736 * alpha  # (A - 1) alpha / e
    assert gap <= mdp.gamma * alpha * np.log(3) / (1 - mdp.gamma)


def test_exit_or_loop_distinguishes_entropy_and_kl() -> None:
    mdp, alpha = exit_or_loop(), 2.0
    near = fixed_point(lambda q: kl_optimality_q(mdp, q, uniform_policy(mdp), alpha), np.zeros((2, 2)), mdp.gamma, 1e-12).x
    assert round(softmax(soft_optimum(mdp, alpha), alpha)[0, 1], 3) == 0.963
    assert round(softmax(near, alpha)[0, 1], 3) == 0.498
