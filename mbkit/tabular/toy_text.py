"""Gymnasium's toy-text environments (FrozenLake, Taxi, CliffWalking) as exact MDPs; Gymnasium is imported on first use."""

from typing import Any

import numpy as np

from mbkit.errors import UserError
from mbkit.tabular.mdp import MDP


def from_gymnasium(name: str, gamma: float = 0.99, **kwargs: Any) -> MDP:
    """MDP from the transition table of a Gymnasium environment.

    Args:
        name: environment name, e.g. "FrozenLake-v1".
        gamma: discount.
        kwargs: arguments of the environment, e.g. is_slippery=False.

    Raises:
        UserError: the environment has no transition table.
    """
    import gymnasium

    env = gymnasium.make(name, **kwargs)
    table, mu0 = getattr(env.unwrapped, "P", None), getattr(env.unwrapped, "initial_state_distrib", None)
    env.close()
    if not isinstance(table, dict) or mu0 is None:
        raise UserError(f"{name} has no transition table; expected a toy-text environment such as FrozenLake-v1")
    return from_table(table, np.asarray(mu0, float), gamma)


def from_table(table: dict[int, dict[int, list[tuple[float, int, float, bool]]]], mu0: np.ndarray, gamma: float) -> MDP:
    """MDP from a transition table {s: {a: [(probability, s', r, terminated)]}}; states in which steps terminate are absorbing.

    If a state is terminal for some transitions and not for others, one terminal state is appended.
    """
    rows = [(s, a, *entry) for s, actions in table.items() for a, entries in actions.items() for entry in entries]
    S, A = len(table), len(table[0])
    ended = {next_s for *_, next_s, _, terminated in rows if terminated}
    alive = {next_s for _, _, p, next_s, _, terminated in rows if p > 0 and not terminated} | set(np.flatnonzero(mu0 > 0).tolist())
    shared = ended & alive  # terminal for some transitions only
    size = S + bool(shared)
    P, R = np.zeros((size, A, size)), np.zeros((size, A))
    terminal = np.isin(np.arange(size), sorted(ended - shared))
    terminal[S:] = True
    for s, a, p, next_s, r, terminated in rows:
        P[s, a, S if terminated and next_s in shared else next_s] += p
        R[s, a] += p * r  # the mean over successors
    P[terminal], R[terminal] = np.eye(size)[terminal][:, None], 0.0
    return MDP(P, R, np.append(mu0, np.zeros(size - S)), gamma, terminal)
