"""Gymnasium's toy-text environments as MDPs."""

import numpy as np
import pytest

from mbkit.errors import UserError
from mbkit.tabular.operators import value_of
from mbkit.tabular.planning import policy_iteration
from mbkit.tabular.toy_text import from_gymnasium, from_table


@pytest.mark.parametrize(("name", "S", "A", "ends"), [("FrozenLake-v1", 16, 4, 5), ("CliffWalking-v1", 48, 4, 1), ("Taxi-v4", 501, 6, 1)])
def test_from_gymnasium_has_the_sizes_of_the_environment(name: str, S: int, A: int, ends: int) -> None:
    mdp = from_gymnasium(name, gamma=0.95)  # Taxi's terminal states also have non-terminal transitions: one state is appended
    assert (mdp.S, mdp.A, mdp.terminal.sum()) == (S, A, ends)


def test_from_gymnasium_cliff_walking_has_the_known_optimum() -> None:
    mdp = from_gymnasium("CliffWalking-v1", gamma=0.9)
    assert abs(mdp.mu0 @ policy_iteration(mdp).v - -(1 - 0.9**13) / 0.1) < 1e-10  # thirteen steps round the cliff, each -1


def test_from_table_state_terminal_for_some_steps_appends_a_terminal_state() -> None:
    table = {0: {0: [(1.0, 1, 2.0, False)]}, 1: {0: [(0.5, 1, 1.0, True), (0.5, 0, 0.0, False)]}}
    mdp = from_table(table, np.array([1.0, 0.0]), 0.5)
    assert mdp.S == 3
    assert mdp.terminal.tolist() == [False, False, True]
    v1 = (0.5 + 0.5 * 0.5 * 2) / (1 - 0.5 * 0.5 * 0.5)  # v1 = 0.5 + 0.25 v0, v0 = 2 + 0.5 v1
    np.testing.assert_allclose(value_of(mdp, np.ones((3, 1))), [2 + 0.5 * v1, v1, 0], atol=1e-14)


def test_from_gymnasium_without_table_is_refused() -> None:
    with pytest.raises(UserError, match="CartPole-v1 has no transition table"):
        from_gymnasium("CartPole-v1")
