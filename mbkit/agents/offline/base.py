"""What learners from a fixed data set share: observations normalised inside the networks, acting, critics, and measures of the shift.

The policy chooses actions that the data set may not hold, where nothing corrects a critic: the shift of the distribution, of which
`critic/overestimation` and `actor/outside_support` are measures.
Letters: N rows of the data set, E episodes, B batch, M environments, O observation, A dimensions of an action or number of discrete
actions, K critics.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mbkit.agents.base import LearningAgent
from mbkit.agents.critics import CriticAgent, check_form, normalized_inputs
from mbkit.fields import at_least, between, positive
from mbkit.networks.distributions import Distribution
from mbkit.networks.form import PLAIN, CriticForm
from mbkit.networks.heads import ActionValues, Critics, q_of, target_network
from mbkit.networks.normalizer import Normalizer, RunningNormalizer
from mbkit.networks.policy import StochasticPolicy
from mbkit.targets import one_step
from mbkit.types import EnvSpec, Metrics, Recorded, TargetFn, Transition

LOG_STD = (-5.0, 2.0)  # bounds of a policy's log standard deviation: recorded actions without noise would have an infinite density
MIN_STD = 1e-3  # a column of observations that varies by less keeps its scale
MEASURED = 64  # rows of a batch on which the shift is measured where that takes another pass through a critic
CHUNK = 8192  # rows whose statistics are taken at once, in float64


@dataclass(frozen=True)
class OfflineConfig:
    """Networks, learning rate, normaliser."""

    hidden: tuple[int, ...] = at_least((256, 256), 1)  # widths of the hidden layers of all networks, ReLU between
    lr: float = positive(3e-4)  # Adam learning rate of all networks
    normalize_obs: bool = True  # normalisation of observations by mean and standard deviation of the data set, inside the networks


@dataclass(frozen=True)
class CriticConfig(OfflineConfig):
    """Networks, learning rate, normaliser, critics."""

    tau: float = between(0.005, 0, 1)  # weight of the new parameters in the target networks
    critics: int = at_least(2, 1)  # number of critics, K; targets take their minimum


def statistics(x: Tensor) -> RunningNormalizer:
    """Mean and standard deviation of the columns of x [N, I], a chunk of rows at a time."""
    normalizer = RunningNormalizer(x.shape[1]).to(x.device)
    for rows in torch.split(x, CHUNK):
        normalizer.update(rows)
    return normalizer


def episode_returns(data: Recorded) -> tuple[Tensor, Tensor]:
    """The undiscounted returns of the episodes of a whole data set in order, [E], and the number of each row's episode, int64 [N]."""
    first = torch.cat((data.next_known.new_zeros(1), data.next_known[:-1])) == 0
    return data.return_to_go[first], first.cumsum(0) - 1


def stochastic_policy(spec: EnvSpec, hidden: Sequence[int]) -> StochasticPolicy:
    """A distribution over discrete actions, or a normal one, clipped to the box, whose standard deviation depends on no observation."""
    return StochasticPolicy(spec, hidden, "relu", log_std_range=LOG_STD, fused=True)


def make_critics(spec: EnvSpec, members: int, hidden: Sequence[int], form: CriticForm = PLAIN) -> Critics | ActionValues:
    """K critics of state-action pairs, or of all discrete actions at once."""
    kind = ActionValues if spec.discrete else Critics
    return kind(members, spec.obs_dim, spec.action_dim, hidden, form)


@torch.no_grad()
def first_q(critics: Critics | ActionValues, obs: Tensor, action: Tensor) -> Tensor:
    """The values of the first critic, [B], as constants, if possible without computing the others."""
    return critics.first(obs, action) if isinstance(critics, Critics) else q_of(critics, obs, action)[0]


class OfflineAgent(LearningAgent):
    """A policy, deterministic or stochastic, learned from a data set, whose statistics `prepare` takes.

    Without `prepare` observations pass as they are, and the data set may hold any action of the box.
    """

    acts_by_sampling = True
    policy: nn.Module  # obs [B, O] -> action [B, A], or a Distribution
    noise_scale = 0.0  # standard deviation of a deterministic policy's exploration noise
    low: Tensor  # [A] the smallest recorded action
    high: Tensor  # [A] the largest recorded action
    recorded: Tensor  # bool [A] whether a discrete action occurs in the data set

    def __init__(self, spec: EnvSpec, cfg: OfflineConfig, gamma: float = 0.99, target: TargetFn = one_step) -> None:
        super().__init__()
        self.gamma, self.target, self.device, self.discrete, self.obs_dim = gamma, target, spec.device, spec.discrete, spec.obs_dim
        self.normalized = normalized_inputs(cfg)
        self.annealed: dict[str, float] = {}  # initial learning rates, by optimizer, that fall to 0 along a cosine by the end of the run
        if spec.discrete:
            self.register_buffer("recorded", torch.ones(spec.action_dim, dtype=torch.bool))
        else:
            self.register_buffer("low", -torch.ones(spec.action_dim))
            self.register_buffer("high", torch.ones(spec.action_dim))

    def make_normalizer(self, obs_dim: int) -> Normalizer:
        """A normaliser by the statistics of the data set."""
        return Normalizer(obs_dim)

    @torch.no_grad()
    def prepare(self, data: Recorded) -> None:
        """Take the statistics of the whole data set, its rows in order; called before the first update, and again in a resumed run."""
        if self.normalized:
            fitted = statistics(data.obs)
            std = (fitted.squares / fitted.count).sqrt()
            self.normalizer.mean[: self.obs_dim] = fitted.mean
            self.normalizer.std[: self.obs_dim] = torch.where(std < MIN_STD, 1.0, std)
        if self.discrete:
            self.recorded.copy_(torch.bincount(data.action, minlength=len(self.recorded)) > 0)
        else:
            self.low.copy_(data.action.amin(0))
            self.high.copy_(data.action.amax(0))

    def anneal(self, remaining: float) -> None:
        """Set every annealed learning rate for the share of the run that remains, 1 to 0: lr (1 + cos(pi (1 - remaining))) / 2."""
        for name, lr in self.annealed.items():
            self.optimizers[name].set_lr(lr * (1 + math.cos(math.pi * (1 - remaining))) / 2)

    def output(self, obs: Tensor) -> Tensor | Distribution:
        """The policy at obs [B, O]: its action [B, A] if it is deterministic, else its distribution."""
        output: Tensor | Distribution = self.policy(obs)
        return output

    def greedy(self, obs: Tensor) -> Tensor:
        """The action without exploration, or the most likely one, [B, A] or int64 [B]."""
        output = self.output(obs)
        return output if isinstance(output, Tensor) else output.mode()

    @torch.no_grad()
    def act(self, obs: Tensor, explore: bool = True) -> Tensor:
        """obs [M, O] -> [M, A] or int64 [M]: the greedy action; where exploring, a sample, or the action with noise."""
        obs = obs.to(self.device)
        return self.sample(obs) if explore else self.greedy(obs)

    @torch.no_grad()
    def sample(self, obs: Tensor) -> Tensor:
        """obs [B, O] -> actions [B, A] or int64 [B] of the policy, with Gaussian noise where it is deterministic."""
        output = self.output(obs)
        if not isinstance(output, Tensor):
            return output.sample()
        return (output + self.noise_scale * torch.randn_like(output)).clamp(-1, 1)

    @torch.no_grad()
    def outside_support(self, action: Tensor) -> Tensor:
        """The share, 0-d, of actions [B, A] that leave the range of the recorded ones in a dimension, or of int64 [B] never recorded."""
        if self.discrete:
            return 1 - self.recorded[action].float().mean()
        return ((action < self.low) | (action > self.high)).any(-1).float().mean()


class OfflineActorCritic(OfflineAgent, CriticAgent):
    """A policy with K critics and their target networks, which a subclass makes by `add_critics`."""

    critics: Critics | ActionValues

    def add_critics(self, spec: EnvSpec, cfg: CriticConfig, form: CriticForm | None = None) -> None:
        """The critics, and their copies as target critics; by default of the form that the options say, where they say one."""
        form = getattr(cfg, "critic_form", PLAIN) if form is None else form
        self.critics = make_critics(spec, cfg.critics, cfg.hidden, check_form(form, self.target, self.computes_targets, not self.contrasts))
        self.target_critics = target_network(self.critics)

    @torch.no_grad()
    def value(self, obs: Tensor) -> Tensor:
        """Value [B] of the policy at obs [B, O]: the smallest of the target critics at its greedy action."""
        return self.backup_q(obs, self.greedy(obs)).amin(0)

    @torch.no_grad()
    def backup_action(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """An action of the policy, [B, A] or int64 [B], and no bonus [B]."""
        return self.sample(obs), obs.new_zeros(len(obs))

    @torch.no_grad()
    def backup_q(self, obs: Tensor, action: Tensor) -> Tensor:
        """The target critics, [K, B]."""
        return q_of(self.target_critics, obs, action)

    @torch.no_grad()
    def shift(self, q: Tensor, recorded: Tensor, action: Tensor) -> Metrics:
        """Mean Q of the policy's actions [B] less that of the recorded ones [B], and the share of the policy's outside the data."""
        return {"critic/overestimation": q.mean() - recorded.mean(), "actor/outside_support": self.outside_support(action)}

    @torch.no_grad()
    def measured_shift(self, batch: Transition, q: Tensor, action: Tensor) -> Metrics:
        """`shift` of actions [B, A] or int64 [B] whose values are not known yet, on the first `MEASURED` rows; q [B]: of recorded ones."""
        few = slice(MEASURED)
        return self.shift(first_q(self.critics, batch.obs[few], action[few]), q[few], action[few])
