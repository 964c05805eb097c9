"""Monte Carlo: values as means of returns, on-policy and off-policy (Sutton & Barto, chapter 5; Precup et al. 2000). S states, A actions.

Returns are summed to the end of an episode; a truncated one lacks its tail, a bias of at most gamma^L r_max / (1 - gamma).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np

from mbkit.tabular.coverage import effective_sample_size
from mbkit.tabular.mdp import MDP, Array, TabularError, check_policy
from mbkit.tabular.sampling import Episode, Ints, Learned, StepSize, epsilon_greedy, sample_average, sample_episode

Visits = Literal["first", "every"]  # which visits of an episode count; every: biased, but it uses all data
Weighting = Literal["ordinary", "weighted", "per_decision"]  # unbiased; biased with much less variance; unbiased with less variance


class Estimate(NamedTuple):
    """Means, 0 where there is nothing to average."""

    mean: Array  # [S] or [S, A]
    n: Ints  # of the same shape: returns averaged


class OffPolicyReturn(NamedTuple):
    """J(pi) from the episodes of another policy."""

    value: float
    effective_size: float  # episodes that the weights leave


def returns_to_go(reward: Array, gamma: float) -> Array:
    """G_t = sum_k gamma^k r_{t+k}, [L]."""
    return corrected_returns(reward, np.ones_like(reward), gamma)


# ------------------------------------------------------------------------------------------------------------------- on-policy
def mc_v(episodes: Iterable[Episode], S: int, gamma: float, visits: Visits = "first") -> Estimate:
    """V [S], the mean return from each state."""
    q = mc_q((Episode(e.state, np.zeros_like(e.action), e.reward, e.discount) for e in episodes), S, 1, gamma, visits)
    return Estimate(q.mean[:, 0], q.n[:, 0])


def mc_q(episodes: Iterable[Episode], S: int, A: int, gamma: float, visits: Visits = "first") -> Estimate:
    """Q [S, A], the mean return from each state and action."""
    total, n = np.zeros((S, A)), np.zeros((S, A), np.int64)
    for episode in episodes:
        returns = returns_to_go(episode.reward, gamma)
        for t, s, a in visited(episode, visits):
            total[s, a] += returns[t]
            n[s, a] += 1
    return Estimate(total / np.maximum(n, 1), n)


def visited(episode: Episode, visits: Visits) -> Iterator[tuple[int, int, int]]:
    """(t, s, a) of the visits that count, in order."""
    seen: set[tuple[int, int]] = set()
    for t, pair in enumerate(zip(episode.state[:-1].tolist(), episode.action.tolist(), strict=True)):
        if visits == "every" or pair not in seen:
            yield t, *pair
        seen.add(pair)


def mc_control(
    mdp: MDP,
    rng: np.random.Generator,
    episodes: int,
    max_steps: int,
    epsilon: Callable[[int], float] = lambda k: 1 / (k + 1),
    step_size: StepSize | None = None,
    visits: Visits = "first",
) -> Learned:
    """Generalised policy iteration: after every episode the policy is epsilon-greedy in the new Q.

    One sweep of evaluation and improvement is not enough; iterating with exploration that fades out (GLIE) finds the optimum.

    Args:
        mdp: where.
        rng: source of all randomness.
        episodes: how many.
        max_steps: each is truncated there.
        epsilon: exploration in episode k = 0, 1, ...
        step_size: None: the mean of all returns, those of former policies included.
        visits: which of an episode count.
    """
    step_size = step_size or sample_average()
    q, n, sums = np.zeros((mdp.S, mdp.A)), np.zeros((mdp.S, mdp.A), np.int64), []
    for k in range(episodes):
        episode = sample_episode(mdp, epsilon_greedy(q, epsilon(k)), rng, max_steps)
        returns = returns_to_go(episode.reward, mdp.gamma)
        for t, s, a in visited(episode, visits):
            q[s, a] += step_size(int(n[s, a])) * (returns[t] - q[s, a])
            n[s, a] += 1
        sums.append(episode.reward.sum())
    return Learned(q, n, np.array(sums, float))


# ------------------------------------------------------------------------------------------------------------------ off-policy
def ratios(episode: Episode, target: Array, behaviour: Array) -> Array:
    """rho_t = pi / b of the actions taken, [L].

    Raises:
        TabularError: an action was taken that the behaviour policy never takes.
    """
    s, a = episode.state[:-1], episode.action
    impossible = behaviour[s, a] <= 0
    if impossible.any():
        t = int(impossible.argmax())
        raise TabularError(f"the data hold action {a[t]} in state {s[t]}, which the behaviour policy takes with probability 0")
    return np.asarray(target[s, a] / behaviour[s, a])


def products_after(ratio: Array) -> Array:
    """W_t = prod_{i>t} rho_i, [L]: the weight of a return from (s_t, a_t), whose own action is given."""
    return np.append(np.cumprod(ratio[::-1])[::-1], 1.0)[1:]


def corrected_returns(reward: Array, ratio: Array, gamma: float) -> Array:
    """Per decision: Z_t = r_t + gamma rho_{t+1} Z_{t+1}, [L]; a reward is weighed by the actions before it alone."""
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
    """Q [S, A] of the target policy from episodes of the behaviour policy, both [S, A]."""
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
    """J(pi) from whole episodes of b: mean of rho_{0:L} G_0, its self-normalised form, or mean of rho_0 Z_0 per decision.

    Raises:
        TabularError: no episode, or an action that b never takes.
    """
    if not episodes:
        raise TabularError("off_policy_return needs at least one episode, but none came")
    every = [ratios(e, target, behaviour) for e in episodes]
    weight = np.array([ratio.prod() for ratio in every])
    size = effective_sample_size(weight)
    if weighting == "per_decision":
        starts = [(r[:1] * corrected_returns(e.reward, r, gamma)[:1]).sum() for e, r in zip(episodes, every, strict=True)]
        return OffPolicyReturn(float(np.mean(starts)), size)
    weighed = float((weight * [returns_to_go(e.reward, gamma)[:1].sum() for e in episodes]).sum())
    if weighting == "ordinary":
        return OffPolicyReturn(weighed / len(episodes), size)
    return OffPolicyReturn(weighed / float(weight.sum()) if weight.sum() > 0 else 0.0, size)


def off_policy_mc_control(mdp: MDP, rng: np.random.Generator, episodes: int, max_steps: int, behaviour: Array) -> Learned:
    """Greedy target policy by weighted importance sampling from a fixed soft behaviour [S, A] (Sutton & Barto, page 111).

    Learns from the tail of each episode alone: an action that is not greedy makes all weights before it 0. Returns of former greedy
    policies keep their weight, so that a bad beginning fades slowly.
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
    return Learned(q, n, np.array(sums, float))
