"""MDPs: validation, read-only arrays and sampling."""

import subprocess
import sys

import numpy as np
import pytest

from mbkit.errors import UserError
from mbkit.tabular.environments import BANDIT_10, bandit, garnet
from mbkit.tabular.mdp import MDP

P = np.full((2, 2, 2), 0.5)
R = np.zeros((2, 2))


def test_tabular_imports_no_torch() -> None:
    modules = "mdp environments operators planning occupancy regularised bounds natural_gradient critic_losses critic_regularisation"
    code = f"import sys\nfor m in '{modules} one_step offline divergences model_error toy_text'.split(): __import__('mbkit.tabular.' + m)\n"
    code += "sys.exit('torch' in sys.modules or 'scipy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"P": np.ones((2, 2, 2))}, r"P\[0, 0\] must be a probability distribution; it sums to 2"),
        ({"P": np.full((2, 2), 0.5)}, r"P must be \[S, A, S\]"),
        ({"R": np.zeros(2)}, r"R must have shape \(2, 2\)"),
        ({"R": np.array([[0, 0], [np.nan, 0]])}, r"R\[1, 0\] is not"),
        ({"mu0": np.array([1.5, -0.5])}, "mu0 must be a probability distribution; .* smallest entry is -0.5"),
        ({"gamma": 1.1}, r"gamma must lie in \[0, 1\], not 1.1"),
        ({"gamma": 1.0}, "gamma = 1 needs every policy to terminate, but some policy never terminates from state 0"),
        ({"terminal": np.array([False, True])}, "terminal state 1 must lead to itself with reward 0, not with probability 0.5"),
        ({"terminal": np.array([True])}, "terminal must have shape"),
    ],
)
def test_mdp_invalid_arguments_are_named(change: dict[str, np.ndarray], message: str) -> None:
    good = {"P": P, "R": R, "mu0": np.array([1.0, 0.0]), "gamma": 0.9}
    MDP(**good)
    with pytest.raises(UserError, match=message):
        MDP(**{**good, **change})


def test_mdp_terminal_state_with_reward_is_refused() -> None:
    stay = np.stack([np.eye(2), np.eye(2)], axis=1)
    MDP(stay, R, np.array([1.0, 0.0]), 0.9, np.array([False, True]))
    with pytest.raises(UserError, match=r"terminal state 1 .* reward -2"):
        MDP(stay, np.array([[0.0, 0.0], [0.0, -2.0]]), np.array([1.0, 0.0]), 0.9, np.array([False, True]))


def test_mdp_arrays_are_read_only_copies() -> None:
    source = P.copy()
    mdp = MDP(source, R, np.array([1.0, 0.0]), 0.9)
    source[:] = 0
    np.testing.assert_array_equal(mdp.P, P)
    with pytest.raises(ValueError, match="read-only"):
        mdp.P[0, 0, 0] = 1


def test_step_follows_P_and_R() -> None:
    mdp, rng, n = garnet(6, 2, 3, seed=3), np.random.default_rng(0), 20_000
    frequency = np.bincount([mdp.step(rng, 2, 1).next_state for _ in range(n)], minlength=6) / n
    assert np.abs(frequency - mdp.P[2, 1]).max() < 4 * 0.5 / np.sqrt(n)
    assert mdp.step(rng, 2, 1)[::2] == (mdp.R[2, 1], 1.0)
    arms = bandit(BANDIT_10)
    pulls = [arms.step(rng, 0, 9) for _ in range(n)]
    assert abs(np.mean([p.reward for p in pulls]) - 1.0) < 4 / np.sqrt(n)
    assert {p.discount for p in pulls} == {0.0}
    assert arms.step(rng, 1, 0).reward == 0
