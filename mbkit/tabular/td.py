"""Temporal-difference prediction: TD(0), n-step TD, TD(lambda), and TD on a batch (Sutton & Barto, chapters 6, 7, 12). S states.

Where an episode was truncated its last state bootstraps like any other; `discount` 0 says that it terminated.
"""

from collections.abc import Iterable
from typing import Literal

import numpy as np

from mbkit.tabular.environments import Episodes
from mbkit.tabular.mdp import Array, TabularError
from mbkit.tabular.planning import fixed_point
from mbkit.tabular.sampling import Episode, StepSize

Trace = Literal["accumulating", "replacing"]


def td0(episodes: Iterable[Episode], values: Array, gamma: float, step_size: StepSize) -> Array:
    """V(s) += alpha (r + gamma V(s') - V(s)) along the episodes, from `values` [S]; returns the new V [S]."""
    return n_step_td(episodes, values, gamma, 1, step_size)


def n_step_td(episodes: Iterable[Episode], values: Array, gamma: float, n: int, step_size: StepSize) -> Array:
    """V(s_t) += alpha (r_t + ... + gamma^{n-1} r_{t+n-1} + gamma^n V(s_{t+n}) - V(s_t)), [S] -> [S].

    State s_t is updated when s_{t+n} is seen, so that going through t in order is the online algorithm. With n at least as long as the
    episodes it is every-visit Monte Carlo.

    Raises:
        TabularError: n < 1.
    """
    if n < 1:
        raise TabularError(f"n-step TD needs n >= 1, not {n}")
    v, count = values.copy(), np.zeros(values.size, np.int64)
    for episode in episodes:
        powers = gamma ** np.arange(min(n, episode.length) + 1)
        for t, s in enumerate(episode.state[:-1].tolist()):
            end = min(t + n, episode.length)
            bootstrap = powers[end - t] * episode.discount[end - 1] * v[episode.state[end]]
            v[s] += step_size(int(count[s])) * (powers[: end - t] @ episode.reward[t:end] + bootstrap - v[s])
            count[s] += 1
    return v


def td_lambda(
    episodes: Iterable[Episode],
    values: Array,
    gamma: float,
    lam: float,
    step_size: StepSize,
    trace: Trace = "accumulating",
    online: bool = True,
) -> Array:
    """TD errors credited to all states by how recently they were visited, [S] -> [S].

    Args:
        episodes: experience of the policy to evaluate.
        values: V to start from.
        gamma: discount.
        lam: 0 is TD(0), 1 Monte Carlo.
        step_size: of each state, by how often it was visited before.
        trace: a revisit adds 1 to a trace, or resets it to 1.
        online: V moves at every step. Otherwise at the end of an episode, which with accumulating traces is exactly the sum of the
            updates towards lambda returns (lam = 1: towards every visit's Monte Carlo return).
    """
    v, count = values.copy(), np.zeros(values.size, np.int64)
    for episode in episodes:
        credit = np.zeros(values.size)  # trace times the step size of the visits it came from
        change = np.zeros(values.size)
        for s, r, next_s, d in zip(
            episode.state[:-1].tolist(), episode.reward.tolist(), episode.state[1:].tolist(), episode.discount.tolist(), strict=True
        ):
            credit *= gamma * lam
            size = step_size(int(count[s]))
            credit[s] = size + (credit[s] if trace == "accumulating" else 0.0)
            count[s] += 1
            change += credit * (r + gamma * d * v[next_s] - v[s])
            if online:
                v += change
                change[:] = 0.0
        v += change
    return v


def average_v(rows: Episodes, target: Array, otherwise: Array) -> Array:
    """Mean target [N] of the rows of each state; `otherwise` [S] where there are none."""
    n = np.bincount(rows.state, minlength=otherwise.size)
    return np.where(n > 0, np.bincount(rows.state, weights=target, minlength=otherwise.size) / np.maximum(n, 1), otherwise)


def batch_v_backup(rows: Episodes, v: Array, gamma: float) -> Array:
    """Mean of r + gamma V(s') over the rows of each state, [S]; a state without rows keeps its value."""
    return average_v(rows, rows.reward + gamma * rows.discount * v[rows.next_state], v)


def batch_td(rows: Episodes, values: Array, gamma: float, step_size: float = 0.1, tol: float = 1e-10) -> Array:
    """TD(0) with the increments of the whole batch added up, over and over, to its limit: the value of the empirical MDP.

    Args:
        rows: the data, of one policy.
        values: V [S] to start from; it stays where a state has no rows.
        gamma: discount < 1.
        step_size: of the mean increment of a state, in (0, 1].
        tol: sup-norm distance to the limit.
    """
    if not 0 < step_size <= 1:
        raise TabularError(f"batch TD needs a step size in (0, 1], not {step_size!r}")
    modulus = 1 - step_size * (1 - gamma)  # of a step towards a gamma-contraction
    return fixed_point(lambda v: v + step_size * (batch_v_backup(rows, v, gamma) - v), values, modulus, tol).x
