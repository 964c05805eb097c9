"""Temporal-difference prediction: TD(0), n-step TD, TD(lambda), and TD on a batch (Sutton & Barto, chapters 6, 7, 12). S states.

The last state of a truncated episode bootstraps like any other; `discount` is 0 where the episode terminated.
"""

from collections.abc import Iterable
from typing import Literal

import numpy as np

from mbkit.errors import UserError
from mbkit.tabular.environments import Episodes
from mbkit.tabular.mdp import Array
from mbkit.tabular.planning import fixed_point
from mbkit.tabular.sampling import Episode, LearningRate

Trace = Literal["accumulating", "replacing"]


def td0(episodes: Iterable[Episode], values: Array, gamma: float, learning_rate: LearningRate) -> Array:
    """TD(0): V(s) += alpha (r + gamma V(s') - V(s)) along the episodes, from `values` [S]; returns the new V [S]."""
    return n_step_td(episodes, values, gamma, 1, learning_rate)


def n_step_td(episodes: Iterable[Episode], values: Array, gamma: float, n: int, learning_rate: LearningRate) -> Array:
    """n-step TD: V(s_t) += alpha (r_t + ... + gamma^{n-1} r_{t+n-1} + gamma^n V(s_{t+n}) - V(s_t)), [S] -> [S].

    State s_t is updated when s_{t+n} is reached, so that processing t in order is the online algorithm. With n at least the episode
    length it is every-visit Monte Carlo.

    Raises:
        UserError: n < 1.
    """
    if n < 1:
        raise UserError(f"n-step TD needs n >= 1, not {n}")
    v, count = values.copy(), np.zeros(values.size, np.int64)
    for episode in episodes:
        powers = gamma ** np.arange(min(n, episode.length) + 1)
        for t, s in enumerate(episode.state[:-1].tolist()):
            end = min(t + n, episode.length)
            bootstrap = powers[end - t] * episode.discount[end - 1] * v[episode.state[end]]
            v[s] += learning_rate(int(count[s])) * (powers[: end - t] @ episode.reward[t:end] + bootstrap - v[s])
            count[s] += 1
    return v


def td_lambda(
    episodes: Iterable[Episode],
    values: Array,
    gamma: float,
    lam: float,
    learning_rate: LearningRate,
    trace: Trace = "accumulating",
    online: bool = True,
) -> Array:
    """TD(lambda) with eligibility traces, [S] -> [S].

    Args:
        episodes: episodes of the policy to evaluate.
        values: initial V [S].
        gamma: discount.
        lam: trace decay lambda; 0 is TD(0), 1 Monte Carlo.
        learning_rate: as a function of the number of earlier visits of the state.
        trace: whether a revisit adds 1 to a trace (accumulating) or resets it to 1 (replacing).
        online: True: V is updated at every step. False: at the end of an episode; with accumulating traces this is exactly the sum of
            the updates towards lambda returns (lam = 1: towards every visit's Monte Carlo return).
    """
    v, count = values.copy(), np.zeros(values.size, np.int64)
    for episode in episodes:
        credit = np.zeros(values.size)  # trace times the learning rate of its visits
        change = np.zeros(values.size)
        for s, r, next_s, d in zip(
            episode.state[:-1].tolist(), episode.reward.tolist(), episode.state[1:].tolist(), episode.discount.tolist(), strict=True
        ):
            credit *= gamma * lam
            rate = learning_rate(int(count[s]))
            credit[s] = rate + (credit[s] if trace == "accumulating" else 0.0)
            count[s] += 1
            change += credit * (r + gamma * d * v[next_s] - v[s])
            if online:
                v += change
                change[:] = 0.0
        v += change
    return v


def average_v(rows: Episodes, target: Array, otherwise: Array) -> Array:
    """Mean of the targets [N] of each state; `otherwise` [S] for states without rows."""
    n = np.bincount(rows.state, minlength=otherwise.size)
    return np.where(n > 0, np.bincount(rows.state, weights=target, minlength=otherwise.size) / np.maximum(n, 1), otherwise)


def batch_v_backup(rows: Episodes, v: Array, gamma: float) -> Array:
    """Mean of r + gamma V(s') over the rows of each state, [S]; a state without rows keeps its value."""
    return average_v(rows, rows.reward + gamma * rows.discount * v[rows.next_state], v)


def batch_td(rows: Episodes, values: Array, gamma: float, learning_rate: float = 0.1, tol: float = 1e-10) -> Array:
    """Limit of batch TD(0), which repeatedly adds the summed increments of the whole batch: the value of the empirical MDP.

    Args:
        rows: data set of one policy.
        values: initial V [S]; unchanged in states without rows.
        gamma: discount < 1.
        learning_rate: learning rate of the mean increment of a state, in (0, 1].
        tol: sup-norm distance to the limit.
    """
    if not 0 < learning_rate <= 1:
        raise UserError(f"batch TD needs a learning rate in (0, 1], not {learning_rate!r}")
    modulus = 1 - learning_rate * (1 - gamma)  # modulus of a partial step towards a gamma-contraction
    return fixed_point(lambda v: v + learning_rate * (batch_v_backup(rows, v, gamma) - v), values, modulus, tol).x
