"""Experience of finite MDPs: episodes, data sets of rows, step sizes and epsilon-greedy policies. S states, A actions.

Every function that draws takes a `numpy.random.Generator`, so that a seed decides everything.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mbkit.tabular.environments import Episodes
from mbkit.tabular.mdp import MDP, Array, TabularError, draw
from mbkit.tabular.offline import counts

Ints = NDArray[np.int64]
StepSize = Callable[[float], float]  # number of earlier updates of the same entry -> weight of the new target in (0, 1]

UNKNOWN = -1  # the next action of a row that has none


class Episode(NamedTuple):
    """L consecutive steps; `discount` is 0 at the last one if it terminated, so that a truncated episode goes on bootstrapping."""

    state: Ints  # [L+1]
    action: Ints  # [L]
    reward: Array  # [L]
    discount: Array  # [L] 1 - terminated

    @property
    def length(self) -> int:
        """The number of steps L."""
        return int(self.action.size)


class Learned(NamedTuple):
    """What a control method returns."""

    q: Array  # [S, A]
    tried: Ints  # [S, A] updates from real steps
    returns: Array  # [episodes] undiscounted sum of rewards of every finished episode


# --------------------------------------------------------------------------------------------------------------------- drawing
def sample_episode(
    mdp: MDP, pi: Array, rng: np.random.Generator, max_steps: int, start: int | None = None, first_action: int | None = None
) -> Episode:
    """Follow pi [S, A] until a terminal state or for `max_steps` steps.

    Args:
        mdp: where.
        pi: the policy.
        rng: source of all randomness.
        max_steps: the episode is truncated there.
        start: first state; None draws it from mu0.
        first_action: None draws it from pi, too.

    Raises:
        TabularError: max_steps < 1.
    """
    if max_steps < 1:
        raise TabularError(f"an episode needs max_steps >= 1, not {max_steps}")
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
    """N episodes from mu0."""
    return [sample_episode(mdp, pi, rng, max_steps) for _ in range(n)]


def sample_rows(mdp: MDP, rng: np.random.Generator, n: int, weight: Array | None = None) -> Episodes:
    """N independent rows: (s, a) from weight [S, A], else uniform where the process is not over, then (r, s') from the MDP; no a'."""
    if weight is None:
        weight = np.repeat(~mdp.terminal[:, None], mdp.A, 1).astype(float)
    pair = draw_many(rng, weight.ravel(), n)
    s, a = np.divmod(pair, mdp.A)
    next_s = np.empty(n, np.int64)
    for index in np.unique(pair):  # one sum for every pair, not for every row
        here = pair == index
        next_s[here] = draw_many(rng, mdp.P[divmod(int(index), mdp.A)], int(here.sum()))
    if mdp.reward_sampler is None:
        reward = mdp.R[s, a]
    else:
        reward = np.array([mdp.reward_sampler(rng, *step) for step in zip(s.tolist(), a.tolist(), next_s.tolist(), strict=True)], float)
    return Episodes(s, a, reward, next_s, np.full(n, UNKNOWN), (~mdp.terminal[next_s]).astype(float))


def draw_many(rng: np.random.Generator, weight: Array, n: int) -> Ints:
    """N indices [N] from one distribution [K], normalised or not."""
    cumulative = np.cumsum(weight)
    return np.asarray(np.searchsorted(cumulative, rng.random(n) * cumulative[-1], side="right"), np.int64)


def rows_of(episodes: Iterable[Episode]) -> Episodes:
    """All steps in one data set, in order; the last step of an episode is kept, its a' is UNKNOWN."""
    kept = list(episodes)
    if not kept:
        raise TabularError("rows_of needs at least one episode, but none came")
    parts = [(e.state[:-1], e.action, e.reward, e.state[1:], np.append(e.action, UNKNOWN)[1:], e.discount) for e in kept]
    return Episodes(*(np.concatenate(field) for field in zip(*parts, strict=True)))


def average_targets(rows: Episodes, target: Array, otherwise: Array) -> Array:
    """Mean target [N] of the rows of each (s, a), the table that least squares would fit; `otherwise` [S, A] where there are none."""
    S, A = otherwise.shape
    n = counts(rows, S, A)
    total = np.bincount(rows.state * A + rows.action, weights=target, minlength=S * A).reshape(S, A)
    return np.where(n > 0, total / np.maximum(n, 1), otherwise)


# ------------------------------------------------------------------------------------------------------ step sizes, exploration
def constant(size: float) -> StepSize:
    """Always the same: tracks, never settles."""
    return lambda n: size


def sample_average() -> StepSize:
    """1 / (n + 1): the estimate is the mean of its targets."""
    return polynomial(1.0)


def polynomial(power: float) -> StepSize:
    """(n + 1)^-power; power in (1/2, 1] satisfies Robbins & Monro. Bootstrapping wants less than 1 (Even-Dar & Mansour 2003)."""
    if not power >= 0:
        raise TabularError(f"the power of a step size must be >= 0, not {power!r}")
    return lambda n: float((n + 1) ** -power)


def rescaled_linear(gamma: float) -> StepSize:
    """1 / (1 + (1 - gamma) n) (Wainwright 2019, arXiv:1905.06265): the effective horizon sets how fast the past is forgotten."""
    return lambda n: 1.0 / (1.0 + (1.0 - gamma) * n)


def epsilon_greedy(q: Array, epsilon: float) -> Array:
    """(1 - epsilon) on the best action of q [..., A] and epsilon spread over all.

    Ties share, unlike in `operators.greedy`: a table of zeros must explore.
    """
    best = q == q.max(-1, keepdims=True)
    return np.asarray((1 - epsilon) * best / best.sum(-1, keepdims=True) + epsilon / q.shape[-1])
