"""MDPs refuse what they are not, sample what they say, and Gymnasium's tables become them."""

import subprocess
import sys

import numpy as np
import pytest

from mbkit.tabular.environments import BANDIT_10, LQR, bandit, exit_or_loop, garnet, grid_episodes, lqr_return, one_step_grid, riccati_gain
from mbkit.tabular.mdp import MDP, TabularError, uniform_policy
from mbkit.tabular.operators import value_of
from mbkit.tabular.planning import policy_iteration
from mbkit.tabular.toy_text import from_gymnasium, from_table

P = np.full((2, 2, 2), 0.5)
R = np.zeros((2, 2))


def test_tabular_imports_no_torch() -> None:
    modules = "mdp environments operators planning occupancy regularised bounds natural_gradient critic_losses critic_regularisation"
    code = f"import sys\nfor m in '{modules} one_step offline divergences model_error toy_text'.split(): __import__('mbkit.tabular.' + m)\n"
    code += "sys.exit('torch' in sys.modules or 'scipy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"P": np.ones((2, 2, 2))}, r"P\[0, 0\] must be a probability distribution; it sums to 2"),
        ({"P": np.full((2, 2), 0.5)}, r"P must be \[S, A, S\]"),
        ({"R": np.zeros(2)}, r"R must have shape \(2, 2\)"),
        ({"R": np.array([[0, 0], [np.nan, 0]])}, r"R\[1, 0\] is not"),
        ({"mu0": np.array([1.5, -0.5])}, "mu0 must be a probability distribution; .* smallest entry is -0.5"),
        ({"gamma": 1.1}, r"gamma must lie in \[0, 1\], not 1.1"),
        ({"gamma": 1.0}, "gamma = 1 needs every policy to terminate, but one can go on for ever from state 0"),
        ({"terminal": np.array([False, True])}, "terminal state 1 must lead to itself with reward 0; came probability 0.5"),
        ({"terminal": np.array([True])}, "terminal must have shape"),
    ],
)
def test_mistakes_are_named(change: dict[str, np.ndarray], words: str) -> None:
    good = {"P": P, "R": R, "mu0": np.array([1.0, 0.0]), "gamma": 0.9}
    MDP(**good)
    with pytest.raises(TabularError, match=words):
        MDP(**{**good, **change})


def test_absorbing_states_must_pay_nothing() -> None:
    stay = np.stack([np.eye(2), np.eye(2)], axis=1)
    MDP(stay, R, np.array([1.0, 0.0]), 0.9, np.array([False, True]))
    with pytest.raises(TabularError, match=r"terminal state 1 .* reward -2"):
        MDP(stay, np.array([[0.0, 0.0], [0.0, -2.0]]), np.array([1.0, 0.0]), 0.9, np.array([False, True]))


def test_arrays_are_copies_that_cannot_change() -> None:
    source = P.copy()
    mdp = MDP(source, R, np.array([1.0, 0.0]), 0.9)
    source[:] = 0
    np.testing.assert_array_equal(mdp.P, P)
    with pytest.raises(ValueError, match="read-only"):
        mdp.P[0, 0, 0] = 1


def test_steps_follow_P_and_R() -> None:
    mdp, rng, n = garnet(6, 2, 3, seed=3), np.random.default_rng(0), 20_000
    seen = np.bincount([mdp.step(rng, 2, 1).next_state for _ in range(n)], minlength=6) / n
    assert np.abs(seen - mdp.P[2, 1]).max() < 4 * 0.5 / np.sqrt(n)
    assert mdp.step(rng, 2, 1)[::2] == (mdp.R[2, 1], 1.0)
    arms = bandit(BANDIT_10)
    pulls = [arms.step(rng, 0, 9) for _ in range(n)]
    assert abs(np.mean([p.reward for p in pulls]) - 1.0) < 4 / np.sqrt(n)
    assert {p.discount for p in pulls} == {0.0}
    assert arms.step(rng, 1, 0).reward == 0


def test_undiscounted_episodes_are_solved() -> None:
    """gamma = 1 on a path of three steps that cost 1 each."""
    chain = np.zeros((4, 1, 4))
    chain[[0, 1, 2, 3], 0, [1, 2, 3, 3]] = 1
    mdp = MDP(chain, np.array([[-1.0], [-1], [-1], [0]]), np.eye(4)[0], 1.0, np.arange(4) == 3)
    np.testing.assert_allclose(value_of(mdp, uniform_policy(mdp)), [-3, -2, -1, 0], atol=1e-14)


def test_garnet_has_the_branching_it_promises() -> None:
    mdp = garnet(8, 3, 3, seed=1)
    assert ((mdp.P > 0).sum(-1) == 3).all()
    np.testing.assert_array_equal(mdp.P, garnet(8, 3, 3, seed=1).P)
    assert not np.array_equal(mdp.P, garnet(8, 3, 3, seed=2).P)
    assert garnet(20, 4, 5, low=0.1).R.min() >= 0.1
    assert (garnet(30, sparse=True).R.sum(1) > 0).sum() == 3
    with pytest.raises(TabularError, match=r"nB must lie in \[1, 8\].*not 9"):
        garnet(8, 3, 9)


def test_grid_and_its_data() -> None:
    mdp = one_step_grid(2)
    assert [mdp.P[7, a].argmax() for a in range(5)] == [12, 8, 2, 6, 7]
    assert [mdp.P[0, a].argmax() for a in range(5)] == [5, 1, 0, 0, 0]
    np.testing.assert_array_equal(mdp.R[:6, 0], [2, 1, 1, 1, 3.5, 2])
    data = grid_episodes(1)
    assert len(data.state) == 980
    assert 125 - len(set(zip(data.state.tolist(), data.action.tolist(), strict=True))) == 2
    assert grid_episodes(3).next_state.tolist() == [5, 6, 7, 8, 9, 4, 4, 4, 4]


def test_lqr_is_solved_by_the_riccati_gain() -> None:
    gain = riccati_gain(LQR())
    assert round(gain, 6) == 1.324624
    assert all(lqr_return(LQR(), gain) > lqr_return(LQR(), gain + h) for h in (-1e-3, 1e-3))
    with pytest.raises(TabularError, match="the return is infinite"):
        lqr_return(LQR(), -1.0)


@pytest.mark.parametrize(("name", "S", "A", "ends"), [("FrozenLake-v1", 16, 4, 5), ("CliffWalking-v1", 48, 4, 1), ("Taxi-v4", 501, 6, 1)])
def test_toy_text(name: str, S: int, A: int, ends: int) -> None:
    mdp = from_gymnasium(name, gamma=0.95)  # Taxi's ends are also passed through alive, from states no episode reaches: one is appended
    assert (mdp.S, mdp.A, mdp.terminal.sum()) == (S, A, ends)


def test_cliff_walking_is_solved() -> None:
    mdp = from_gymnasium("CliffWalking-v1", gamma=0.9)
    assert abs(mdp.mu0 @ policy_iteration(mdp).v - -(1 - 0.9**13) / 0.1) < 1e-10  # thirteen steps round the cliff, each -1


def test_a_table_that_ends_in_a_living_state_gets_an_end() -> None:
    table = {0: {0: [(1.0, 1, 2.0, False)]}, 1: {0: [(0.5, 1, 1.0, True), (0.5, 0, 0.0, False)]}}
    mdp = from_table(table, np.array([1.0, 0.0]), 0.5)
    assert mdp.S == 3
    assert mdp.terminal.tolist() == [False, False, True]
    v1 = (0.5 + 0.5 * 0.5 * 2) / (1 - 0.5 * 0.5 * 0.5)  # v1 = 0.5 + 0.25 v0, v0 = 2 + 0.5 v1
    np.testing.assert_allclose(value_of(mdp, np.ones((3, 1))), [2 + 0.5 * v1, v1, 0], atol=1e-14)


def test_other_environments_are_refused() -> None:
    with pytest.raises(TabularError, match="CartPole-v1 keeps no transition table"):
        from_gymnasium("CartPole-v1")


def test_exit_or_loop_has_one_end() -> None:
    assert exit_or_loop().terminal.tolist() == [False, True]
