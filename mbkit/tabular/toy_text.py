"""Gymnasium's toy-text environments (FrozenLake, Taxi, CliffWalking) as exact MDPs; Gymnasium is imported only when asked for."""

from typing import Any

import numpy as np

from mbkit.tabular.mdp import MDP, TabularError


def from_gymnasium(name: str, gamma: float = 0.99, **kwargs: Any) -> MDP:
    """Make the environment and read its table.

    Args:
        name: e.g. "FrozenLake-v1".
        gamma: discount.
        kwargs: of the environment, e.g. is_slippery=False.

    Raises:
        TabularError: the environment keeps no table of transitions.
    """
    import gymnasium

    env = gymnasium.make(name, **kwargs)
    table, mu0 = getattr(env.unwrapped, "P", None), getattr(env.unwrapped, "initial_state_distrib", None)
    env.close()
    if not isinstance(table, dict) or mu0 is None:
        raise TabularError(f"{name} keeps no transition table; expected a toy-text environment such as FrozenLake-v1")
    return from_table(table, np.asarray(mu0, float), gamma)


def from_table(table: dict[int, dict[int, list[tuple[float, int, float, bool]]]], mu0: np.ndarray, gamma: float) -> MDP:
    """P dict {s: {a: [(probability, s', r, terminated)]}} -> MDP; whatever terminated is absorbing.

    Where a step terminates in a state that other steps pass through alive, the end needs a state of its own and gets one.
    """
    rows = [(s, a, *entry) for s, actions in table.items() for a, entries in actions.items() for entry in entries]
    S, A = len(table), len(table[0])
    ended = {next_s for *_, next_s, _, terminated in rows if terminated}
    alive = {next_s for _, _, p, next_s, _, terminated in rows if p > 0 and not terminated} | set(np.flatnonzero(mu0 > 0).tolist())
    shared = ended & alive
    size = S + bool(shared)
    P, R = np.zeros((size, A, size)), np.zeros((size, A))
    terminal = np.isin(np.arange(size), sorted(ended - shared))
    terminal[S:] = True
    for s, a, p, next_s, r, terminated in rows:
        P[s, a, S if terminated and next_s in shared else next_s] += p
        R[s, a] += p * r  # the mean over successors
    P[terminal], R[terminal] = np.eye(size)[terminal][:, None], 0.0
    return MDP(P, R, np.append(mu0, np.zeros(size - S)), gamma, terminal)
