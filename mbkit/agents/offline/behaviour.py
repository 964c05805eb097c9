"""Values of the actions of a stochastic policy, learned or cloned: advantages, objectives, the best of several actions.

Letters: B batch, O observation, A dimensions of an action or number of discrete actions, K critics, N actions of a state.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from mbkit.errors import UserError
from mbkit.networks.distributions import Categorical, ClippedGaussian, Distribution
from mbkit.networks.heads import ActionValues, Critics
from mbkit.types import EnvSpec, Recorded, Transition

HALVINGS, LOG_RANGE = 24, math.log(1e4)  # of the bisection of a temperature
CERTAIN = 1e9  # noise by which a discrete action is a candidate, whatever its probability


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


def reparameterised(policy: ClippedGaussian) -> Tensor:
    """A sample [B, A] as a function of mean and standard deviation; its gradient is 0 in dimensions where it is clipped to the box."""
    return torch.addcmul(policy.mean, policy.log_std.exp(), torch.randn_like(policy.mean)).clamp(-1, 1)


def expectation(q: Tensor, log_prob: Tensor) -> Tensor:
    """V = sum_n exp(log_prob_n) q_n, [B]; q and log_prob [B, N]."""
    return (log_prob.exp() * q).sum(-1)


@torch.no_grad()
def advantage(q: Tensor, policy_q: Tensor, log_prob: Tensor) -> Tensor:
    """A(s, a) = min_k Q_k(s, a) - E_pi min_k Q_k(s, .), [B]: q [K, B] of recorded actions, policy_q [K, B, N] of the policy's."""
    return q.amin(0) - expectation(policy_q.amin(0), log_prob)


def soft_value(q: Tensor, log_prob: Tensor, temperature: Tensor | float) -> Tensor:
    """V = temperature log sum_n exp(log_prob_n + q_n / temperature), [B]: the value of b exp(q / temperature) / Z less its divergence."""
    top = q.amax(-1, keepdim=True)
    return top[:, 0] + temperature * (log_prob + (q - top) / temperature).logsumexp(-1)


def tilted_kl(q: Tensor, log_prob: Tensor, temperature: Tensor | float) -> Tensor:
    """D_KL(b exp(q / temperature) / Z | b), [B], of q and log b [B, N]; it falls as the temperature rises."""
    log_tilted = (log_prob + (q - q.amax(-1, keepdim=True)) / temperature).log_softmax(-1)
    return (log_tilted.exp() * (log_tilted - log_prob)).sum(-1)


@torch.no_grad()
def bisected_temperature(q: Tensor, log_prob: Tensor, delta: float) -> Tensor:
    """The temperature, 0-d, at which the mean of `tilted_kl` is delta, by bisection of its logarithm without synchronising.

    It is searched between 1e-4 and 1e4 of the mean range of q, at whose ends it stays where no temperature gives delta.
    """
    unit = (q.amax(-1) - q.amin(-1)).mean().clamp(min=1e-8)
    low, high = q.new_full((), -LOG_RANGE), q.new_full((), LOG_RANGE)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        too_far = tilted_kl(q, log_prob, unit * middle.exp()).mean() > delta
        low, high = torch.where(too_far, middle, low), torch.where(too_far, high, middle)
    return unit * ((low + high) / 2).exp()


def objective(critics: nn.Module, obs: Tensor, policy: Distribution, transform: Callable[[Tensor], Tensor] = lambda q: q) -> Tensor:
    """E_pi f(min_k Q_k(s, .)), [B], as a function of the policy alone: exact for discrete actions, else at one sample."""
    if isinstance(policy, ClippedGaussian):
        q: Tensor = critics(obs, reparameterised(policy), fixed=True)
        return transform(q.amin(0))
    with torch.no_grad():
        value = transform(critics(obs).amin(0))
    return expectation(value, policy.log_probs())


class Candidates(nn.Module):
    """Noise of N candidate actions of a behaviour policy for `best_of`: always the same, or fresh."""

    noise: Tensor  # [N, A]; normal for continuous actions, Gumbel for discrete ones

    def __init__(self, spec: EnvSpec, n: int, every: bool = False) -> None:
        super().__init__()
        self.discrete, self.every = spec.discrete, every
        self.register_buffer("noise", CERTAIN * torch.eye(spec.action_dim) if every else self.drawn(torch.empty(n, spec.action_dim)))

    def drawn(self, noise: Tensor) -> Tensor:
        """The same tensor, filled anew."""
        return -noise.exponential_().log() if self.discrete else noise.normal_()

    def fresh(self, rows: int) -> Tensor:
        """Noise [rows, N, A]; [N, A] where `every` discrete action is a candidate."""
        return self.noise if self.every else self.drawn(self.noise.new_empty(rows, *self.noise.shape))


def best_of(obs: Tensor, behaviour: nn.Module, critics: nn.Module, noise: Tensor) -> Tensor:
    """The best by min_k Q_k of N actions of the behaviour policy, [B, A] or int64 [B], made from noise [N, A] or [B, N, A].

    Continuous candidates are mean + std noise, clipped to the box, discrete ones argmax(logits + noise).
    """
    policy = behaviour(obs)
    if isinstance(policy, ClippedGaussian):
        actions = (policy.mean[:, None] + policy.log_std.exp()[:, None] * noise).clamp(-1, 1)
        rows = obs[:, None].expand(-1, actions.shape[1], -1).flatten(0, 1)
        best = critics(rows, actions.flatten(0, 1)).amin(0).unflatten(0, (-1, actions.shape[1])).argmax(-1)
        return actions.gather(1, best[:, None, None].expand(-1, 1, actions.shape[2]))[:, 0]
    choices: Tensor = (policy.logits[:, None] + noise).argmax(-1)
    best = critics(obs).amin(0).gather(-1, choices).argmax(-1)
    return choices.gather(-1, best[:, None])[:, 0]


def least_reward(reward: Tensor, shift: float, choice: str) -> float:
    """The smallest reward [N] plus the shift; UserError where that is not > 0, which the option's `choice` needs."""
    smallest = float(reward.min())
    if smallest + shift <= 0:
        raise UserError(
            f"{choice} needs rewards > 0, but the smallest is {smallest:g} and agent.reward_shift={shift:g}; "
            f"expected a shift above {-smallest:g}, which changes the policy"
        )
    return smallest + shift


@torch.no_grad()
def following_action(batch: Transition | Recorded, behaviour: Distribution) -> Tensor:
    """The recorded action of the following row, [B, A] or int64 [B]; where a row has none, a sample of the cloned `behaviour` at s'."""
    drawn = behaviour.sample()
    if not isinstance(batch, Recorded):
        return drawn
    known = batch.next_known.reshape(-1, *[1] * (drawn.dim() - 1)) > 0
    return torch.where(known, batch.next_action, drawn)
