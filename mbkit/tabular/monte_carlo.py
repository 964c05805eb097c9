"""Monte Carlo: means of returns, on-policy and off-policy (Sutton & Barto, chapter 5; Precup et al. 2000). S states, A actions.

Returns are summed to the end of the episode; truncation after L steps has a bias of at most gamma^L r_max / (1 - gamma).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np

from mbkit.errors import UserError
from mbkit.tabular.coverage import effective_sample_size
from mbkit.tabular.mdp import MDP, Array, check_policy
from mbkit.tabular.sampling import ControlResult, Episode, Ints, LearningRate, epsilon_greedy, sample_average, sample_episode

Visits = Literal["first", "every"]  # which visits of an episode are averaged; every: biased, but uses all data
Weighting = Literal["ordinary", "weighted", "per_decision"]  # unbiased; biased with much less variance; unbiased with less variance


class Estimate(NamedTuple):
    """Mean returns, 0 where there are none."""

    mean: Array  # [S] or [S, A]
    n: Ints  # of the same shape: number of returns


class OffPolicyReturn(NamedTuple):
    """Estimate of J(pi) from episodes of another policy."""

    value: float
    effective_size: float  # effective number of episodes under the weights


def returns_to_go(reward: Array, gamma: float) -> Array:
    """Returns G_t = sum_k gamma^k r_{t+k}, [L]."""
    return corrected_returns(reward, np.ones_like(reward), gamma)


# -------------------------------------------------------------------------------------------------------------------- on-policy
def mc_v(episodes: Iterable[Episode], S: int, gamma: float, visits: Visits = "first") -> Estimate:
    """Estimate of V [S]: the mean return from each state."""
    q = mc_q((Episode(e.state, np.zeros_like(e.action), e.reward, e.discount) for e in episodes), S, 1, gamma, visits)
    return Estimate(q.mean[:, 0], q.n[:, 0])


def mc_q(episodes: Iterable[Episode], S: int, A: int, gamma: float, visits: Visits = "first") -> Estimate:
    """Estimate of Q [S, A]: the mean return from each state and action."""
    total, n = np.zeros((S, A)), np.zeros((S, A), np.int64)
    for episode in episodes:
        returns = returns_to_go(episode.reward, gamma)
        for t, s, a in visited(episode, visits):
            total[s, a] += returns[t]
            n[s, a] += 1
    return Estimate(total / np.maximum(n, 1), n)


def visited(episode: Episode, visits: Visits) -> Iterator[tuple[int, int, int]]:
    """Visits (t, s, a) that are averaged, in order."""
    earlier: set[tuple[int, int]] = set()
    for t, pair in enumerate(zip(episode.state[:-1].tolist(), episode.action.tolist(), strict=True)):
        if visits == "every" or pair not in earlier:
            yield t, *pair
        earlier.add(pair)


def mc_control(
    mdp: MDP,
    rng: np.random.Generator,
    episodes: int,
    max_steps: int,
    epsilon: Callable[[int], float] = lambda k: 1 / (k + 1),
    learning_rate: LearningRate | None = None,
    visits: Visits = "first",
) -> ControlResult:
    """Monte Carlo control by generalised policy iteration: after every episode the policy is epsilon-greedy in the new Q.

    It converges to the optimum if exploration vanishes in the limit (GLIE).

    Args:
        mdp: the environment.
        rng: source of all randomness.
        episodes: number of episodes.
        max_steps: length at which episodes are truncated.
        epsilon: exploration in episode k = 0, 1, ...
        learning_rate: None: the mean of all returns, including those of earlier policies.
        visits: which visits of an episode are averaged.
    """
    learning_rate = learning_rate or sample_average()
    q, n, sums = np.zeros((mdp.S, mdp.A)), np.zeros((mdp.S, mdp.A), np.int64), []
    for k in range(episodes):
        episode = sample_episode(mdp, epsilon_greedy(q, epsilon(k)), rng, max_steps)
        returns = returns_to_go(episode.reward, mdp.gamma)
        for t, s, a in visited(episode, visits):
            q[s, a] += learning_rate(int(n[s, a])) * (returns[t] - q[s, a])
            n[s, a] += 1
        sums.append(episode.reward.sum())
    return ControlResult(q, n, np.array(sums, float))


# ------------------------------------------------------------------------------------------------------------------- off-policy
def ratios(episode: Episode, target: Array, behaviour: Array) -> Array:
    """Importance ratios rho_t = pi / b of the actions, [L].

    Raises:
        UserError: an action of the data has probability 0 under the behaviour policy.
    """
    s, a = episode.state[:-1], episode.action
    impossible = behaviour[s, a] <= 0
    if impossible.any():
        t = int(impossible.argmax())
        raise UserError(f"the data contain action {a[t]} in state {s[t]}, which has probability 0 under the behaviour policy")
    return np.asarray(target[s, a] / behaviour[s, a])


def products_after(ratio: Array) -> Array:
    """Importance weights W_t = prod_{i>t} rho_i of the returns from (s_t, a_t), [L]; the action a_t itself has no ratio."""
    return np.append(np.cumprod(ratio[::-1])[::-1], 1.0)[1:]


def corrected_returns(reward: Array, ratio: Array, gamma: float) -> Array:
    """Per-decision returns Z_t = r_t + gamma rho_{t+1} Z_{t+1}, [L]; a reward is weighted by the ratios of earlier actions only."""
    out, ahead = np.empty_like(reward), 0.0
    for t in range(reward.size - 1, -1, -1):
        out[t] = reward[t] + gamma * ahead
        ahead = ratio[t] * out[t]
    return out


def off_policy_q(
    episodes: Iterable[Episode],
    target: Array,
    behaviour: Array,
    gamma: float,
    weighting: Weighting = "weighted",
    visits: Visits = "first",
) -> Estimate:
    """Estimate of Q [S, A] of the target policy from episodes of the behaviour policy, both [S, A]."""
    total, weight, n = np.zeros(target.shape), np.zeros(target.shape), np.zeros(target.shape, np.int64)
    for episode in episodes:
        ratio = ratios(episode, target, behaviour)
        returns = corrected_returns(episode.reward, ratio if weighting == "per_decision" else np.ones_like(ratio), gamma)
        w = np.ones_like(ratio) if weighting == "per_decision" else products_after(ratio)
        for t, s, a in visited(episode, visits):
            total[s, a] += w[t] * returns[t]
            weight[s, a] += w[t] if weighting == "weighted" else 1.0
            n[s, a] += 1
    return Estimate(np.divide(total, weight, out=np.zeros(target.shape), where=weight > 0), n)


def off_policy_return(
    episodes: Sequence[Episode], target: Array, behaviour: Array, gamma: float, weighting: Weighting = "weighted"
) -> OffPolicyReturn:
    """Estimate of J(pi) from episodes of b: mean of rho_{0:L} G_0, its self-normalised form, or mean of rho_0 Z_0 per decision.

    Raises:
        UserError: no episode, or an action with probability 0 under b.
    """
    if not episodes:
        raise UserError("off_policy_return needs at least one episode, but the list is empty")
    every_ratio = [ratios(e, target, behaviour) for e in episodes]
    weight = np.array([ratio.prod() for ratio in every_ratio])
    size = effective_sample_size(weight)
    if weighting == "per_decision":
        starts = [(r[:1] * corrected_returns(e.reward, r, gamma)[:1]).sum() for e, r in zip(episodes, every_ratio, strict=True)]
        return OffPolicyReturn(float(np.mean(starts)), size)
    weighted_sum = float((weight * [returns_to_go(e.reward, gamma)[:1].sum() for e in episodes]).sum())
    if weighting == "ordinary":
        return OffPolicyReturn(weighted_sum / len(episodes), size)
    return OffPolicyReturn(weighted_sum / float(weight.sum()) if weight.sum() > 0 else 0.0, size)


def off_policy_mc_control(mdp: MDP, rng: np.random.Generator, episodes: int, max_steps: int, behaviour: Array) -> ControlResult:
    """Greedy target policy by weighted importance sampling from a fixed soft behaviour policy [S, A] (Sutton & Barto, page 111).

    Learns only from the tail of each episode: a non-greedy action makes all earlier weights 0. Returns of earlier greedy policies
    keep their weight, so that early errors vanish slowly.
    """
    check_policy(mdp, behaviour, "behaviour")
    q, weights, n, sums = np.zeros((mdp.S, mdp.A)), np.zeros((mdp.S, mdp.A)), np.zeros((mdp.S, mdp.A), np.int64), []
    for _ in range(episodes):
        episode = sample_episode(mdp, behaviour, rng, max_steps)
        returns, w = returns_to_go(episode.reward, mdp.gamma), 1.0
        for t in range(episode.length - 1, -1, -1):
            s, a = int(episode.state[t]), int(episode.action[t])
            weights[s, a] += w
            q[s, a] += w / weights[s, a] * (returns[t] - q[s, a])
            n[s, a] += 1
            if a != q[s].argmax():
                break
            w /= behaviour[s, a]
        sums.append(episode.reward.sum())
    return ControlResult(q, n, np.array(sums, float))
