"""Sampling from finite MDPs: episodes, data sets, learning rates and epsilon-greedy policies. S states, A actions.

Every function that samples takes a `numpy.random.Generator`, so that results depend on the seed only.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mbkit.errors import UserError
from mbkit.tabular.environments import Episodes
from mbkit.tabular.mdp import MDP, Array, draw
from mbkit.tabular.offline import counts

Ints = NDArray[np.int64]
LearningRate = Callable[[float], float]  # number of earlier updates of the same entry -> learning rate in (0, 1]

UNKNOWN = -1  # next action of a row without one


class Episode(NamedTuple):
    """Episode of L steps; `discount` is 0 at the last step if it terminated, and 1 if it was truncated, so that targets bootstrap."""

    state: Ints  # [L+1]
    action: Ints  # [L]
    reward: Array  # [L]
    discount: Array  # [L] 1 - terminated

    @property
    def length(self) -> int:
        """The number of steps L."""
        return int(self.action.size)


class ControlResult(NamedTuple):
    """Result of a control method."""

    q: Array  # [S, A]
    updates: Ints  # [S, A] updates from environment steps
    returns: Array  # [episodes] undiscounted return of every finished episode


# --------------------------------------------------------------------------------------------------------------------- sampling
def sample_episode(
    mdp: MDP, pi: Array, rng: np.random.Generator, max_steps: int, start: int | None = None, first_action: int | None = None
) -> Episode:
    """Sample an episode of pi [S, A] until a terminal state or `max_steps` steps.

    Args:
        mdp: the environment.
        pi: the policy.
        rng: source of all randomness.
        max_steps: length at which the episode is truncated.
        start: initial state; None: sampled from mu0.
        first_action: first action; None: sampled from pi.

    Raises:
        UserError: max_steps < 1.
    """
    if max_steps < 1:
        raise UserError(f"an episode needs max_steps >= 1, not {max_steps}")
    s = mdp.reset(rng) if start is None else start
    states, actions = [s], list[int]()
    rewards, discounts = list[float](), list[float]()
    while len(actions) < max_steps and not mdp.terminal[s]:
        a = draw(rng, pi[s]) if actions or first_action is None else first_action
        reward, s, discount = mdp.step(rng, s, a)
        states.append(s)
        actions.append(a)
        rewards.append(reward)
        discounts.append(discount)
    return Episode(np.array(states, np.int64), np.array(actions, np.int64), np.array(rewards, float), np.array(discounts, float))


def sample_episodes(mdp: MDP, pi: Array, rng: np.random.Generator, n: int, max_steps: int) -> list[Episode]:
    """Sample n episodes with initial states from mu0."""
    return [sample_episode(mdp, pi, rng, max_steps) for _ in range(n)]


def sample_rows(mdp: MDP, rng: np.random.Generator, n: int, weight: Array | None = None) -> Episodes:
    """Sample n independent transitions: (s, a) from weight [S, A], default uniform on non-terminal states, then (r, s'); no a'."""
    if weight is None:
        weight = np.repeat(~mdp.terminal[:, None], mdp.A, 1).astype(float)
    pair = draw_many(rng, weight.ravel(), n)
    s, a = np.divmod(pair, mdp.A)
    next_s = np.empty(n, np.int64)
    for index in np.unique(pair):  # one cumulative sum per pair instead of per row
        here = pair == index
        next_s[here] = draw_many(rng, mdp.P[divmod(int(index), mdp.A)], int(here.sum()))
    if mdp.reward_sampler is None:
        reward = mdp.R[s, a]
    else:
        reward = np.array([mdp.reward_sampler(rng, *step) for step in zip(s.tolist(), a.tolist(), next_s.tolist(), strict=True)], float)
    return Episodes(s, a, reward, next_s, np.full(n, UNKNOWN), (~mdp.terminal[next_s]).astype(float))


def draw_many(rng: np.random.Generator, weight: Array, n: int) -> Ints:
    """Sample n indices [N] from one distribution [K], normalised or not."""
    cumulative = np.cumsum(weight)
    return np.asarray(np.searchsorted(cumulative, rng.random(n) * cumulative[-1], side="right"), np.int64)


def rows_of(episodes: Iterable[Episode]) -> Episodes:
    """Data set of all steps, in order, including the last step of every episode with next action UNKNOWN."""
    episodes = list(episodes)
    if not episodes:
        raise UserError("rows_of needs at least one episode, but the list is empty")
    parts = [(e.state[:-1], e.action, e.reward, e.state[1:], np.append(e.action, UNKNOWN)[1:], e.discount) for e in episodes]
    return Episodes(*(np.concatenate(field) for field in zip(*parts, strict=True)))


def average_targets(rows: Episodes, target: Array, otherwise: Array) -> Array:
    """Mean of the targets [N] of each (s, a), the least-squares table; `otherwise` [S, A] for pairs without rows."""
    S, A = otherwise.shape
    n = counts(rows, S, A)
    total = np.bincount(rows.state * A + rows.action, weights=target, minlength=S * A).reshape(S, A)
    return np.where(n > 0, total / np.maximum(n, 1), otherwise)


# -------------------------------------------------------------------------------------------------- learning rates, exploration
def constant(rate: float) -> LearningRate:
    """Constant learning rate: the estimate tracks changes but does not converge."""
    return lambda n: rate


def sample_average() -> LearningRate:
    """Learning rate 1 / (n + 1): the estimate is the mean of its targets."""
    return polynomial(1.0)


def polynomial(power: float) -> LearningRate:
    """Learning rate (n + 1)^-power; power in (1/2, 1] satisfies Robbins & Monro. Bootstrapping needs < 1 (Even-Dar & Mansour 2003)."""
    if not power >= 0:
        raise UserError(f"the power of a polynomial learning rate must be >= 0, not {power!r}")
    return lambda n: float((n + 1) ** -power)


def rescaled_linear(gamma: float) -> LearningRate:
    """Learning rate 1 / (1 + (1 - gamma) n) (Wainwright 2019, arXiv:1905.06265): its decay is set by the effective horizon."""
    return lambda n: 1.0 / (1.0 + (1.0 - gamma) * n)


def epsilon_greedy(q: Array, epsilon: float) -> Array:
    """Epsilon-greedy policy of q [..., A]: 1 - epsilon on the greedy action, epsilon uniformly on all.

    Tied actions share the probability, unlike in `operators.greedy`, so that a table of zeros explores.
    """
    best = q == q.max(-1, keepdims=True)
    return np.asarray((1 - epsilon) * best / best.sum(-1, keepdims=True) + epsilon / q.shape[-1])
