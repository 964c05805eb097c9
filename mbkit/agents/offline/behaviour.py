"""Values of the actions of a stochastic policy, learned or cloned, which advantages and normalisers are made of.

Letters: B batch, O observation, A dimensions of an action or number of discrete actions, K critics, N actions of a state.
"""

import math

import torch
from torch import Tensor

from mbkit.networks.distributions import Categorical, Distribution
from mbkit.networks.heads import ActionValues, Critics
from mbkit.types import Recorded, Transition


def repeated(distribution: Distribution, n: int) -> Distribution:
    """The distribution at n copies of its B rows, one copy behind the other: [n B, ...]."""
    return type(distribution)(*(field.repeat(n, *[1] * (field.dim() - 1)) for field in distribution))


@torch.no_grad()
def values_under(critics: Critics | ActionValues, obs: Tensor, policy: Distribution, samples: int) -> tuple[Tensor, Tensor, Tensor]:
    """Q of a policy's actions, [K, B, N], their log-probabilities [B, N], and the first sample, [B, A] or int64 [B].

    Discrete actions are all taken, at their own probabilities, so that sums over N are exact; of continuous ones there are N `samples` at
    1 / N each.
    """
    if isinstance(critics, ActionValues):
        if not isinstance(policy, Categorical):
            raise TypeError(f"expected a Categorical policy beside values of discrete actions, came {type(policy).__name__}")
        return critics(obs), policy.log_probs(), policy.sample()
    action = repeated(policy, samples).sample()
    q: Tensor = critics(obs.repeat(samples, 1), action)
    log_share = q.new_full((), -math.log(samples)).expand(len(obs), samples)
    return q.view(len(q), samples, len(obs)).transpose(1, 2), log_share, action[: len(obs)]


def expectation(q: Tensor, log_prob: Tensor) -> Tensor:
    """V = sum_n exp(log_prob_n) q_n, [B]; q and log_prob [B, N]."""
    return (log_prob.exp() * q).sum(-1)


@torch.no_grad()
def following_action(batch: Transition | Recorded, behaviour: Distribution) -> Tensor:
    """The recorded action of the following row, [B, A] or int64 [B]; where a row has none, a sample of the cloned `behaviour` at s'."""
    drawn = behaviour.sample()
    if not isinstance(batch, Recorded):
        return drawn
    known = batch.next_known.reshape(-1, *[1] * (drawn.dim() - 1)) > 0
    return torch.where(known, batch.next_action, drawn)
