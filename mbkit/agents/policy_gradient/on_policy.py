"""The base of learners from trajectories: a stochastic policy, a value network, and normalisers that change only in `update`.

Letters: T steps, M environments, N = T M rows, O observation, A dimensions of an action or number of discrete actions.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from mbkit.agents.base import LearningAgent
from mbkit.fields import at_least, option
from mbkit.networks.distributions import Categorical, Categoricals, Distribution
from mbkit.networks.heads import ValueNetwork
from mbkit.networks.mlp import Nonlinearity
from mbkit.networks.normalizer import RunningNormalizer
from mbkit.networks.parts import as_vector
from mbkit.networks.plain import GreedyRule
from mbkit.networks.policy import StochasticPolicy
from mbkit.returns import gae
from mbkit.types import EnvSpec, Trajectory


@dataclass(frozen=True)
class NetworkConfig:
    """Policy, value network and normalisers."""

    hidden: tuple[int, ...] = at_least((64, 64), 1)  # hidden-layer widths, of the policy and of the value network
    activation: Nonlinearity = "tanh"  # activation function of the hidden layers
    log_std: float = option(0.0, when="actions=continuous")  # initial log standard deviation of the policy in the box [-1, 1]
    normalize_obs: bool = False  # normalisation of observations by the running mean and standard deviation
    normalize_value: bool = False  # value regression in standard deviations of all past targets (PopArt)


class AdvantageBatch(NamedTuple):
    """N steps in any order, with their advantages."""

    obs: Tensor  # [N, O] normalised
    action: Tensor  # [N, A], [N] or [N, P]
    log_prob: Tensor  # [N] of the behaviour policy
    advantage: Tensor  # [N]
    target: Tensor  # [N] of the value network, raw units


def flat(trajectory_field: Tensor) -> Tensor:
    """[T, M, ...] -> [T M, ...]."""
    return trajectory_field.flatten(0, 1)


def standardized(advantage: Tensor) -> Tensor:
    """Advantages shifted and scaled to mean 0 and standard deviation 1."""
    centred = advantage - advantage.mean()
    return centred / (centred.square().mean().sqrt() + 1e-8)


def value_loss(value: Tensor, target: Tensor) -> Tensor:
    """E[(y - V)^2], the target y a constant; [N] each."""
    return (target.detach() - value).square().mean()


def in_minibatches(fields: Sequence[Tensor], size: int) -> Iterator[tuple[Tensor, ...]]:
    """Rows [N, ...] of every field in random order, as minibatches of `size` (the last may be smaller)."""
    order = torch.rand(len(fields[0]), device=fields[0].device).argsort()
    return zip(*(torch.split(x[order], size) for x in fields), strict=True)


class OnPolicyAgent(LearningAgent):
    """An agent that acts by sampling its policy; observations pass through a normaliser that changes only in `update`."""

    acts_by_sampling = True
    cfg: NetworkConfig
    critic: ValueNetwork

    def __init__(self, spec: EnvSpec, cfg: NetworkConfig, gamma: float = 0.99) -> None:
        super().__init__()
        self.cfg, self.gamma, self.device, self.parts = cfg, gamma, spec.device, spec.parts
        self.annealed: dict[str, float] = {}  # initial learning rates, by optimizer, that fall linearly to 0 by the end of the run
        self.policy: nn.Module = StochasticPolicy(spec, cfg.hidden, cfg.activation, cfg.log_std)
        self.critic = ValueNetwork(spec.obs_dim, cfg.hidden, cfg.activation)
        self.normalizer: Any = RunningNormalizer(spec.obs_dim) if cfg.normalize_obs else nn.Identity()
        self.to(spec.device)

    def distribution(self, obs: Tensor) -> Distribution:
        """The policy's distribution over actions at raw observations [B, O]."""
        distribution: Distribution = self.policy(self.normalizer(obs))
        return distribution

    def greedy_module(self) -> nn.Module:
        """The most likely action at raw observations, for `mbkit export`."""
        return GreedyRule(lambda obs, policy, normalizer: policy.mode(normalizer(obs)), policy=self.policy, normalizer=self.normalizer)

    @torch.no_grad()
    def act(self, obs: Tensor, explore: bool = True) -> Tensor:
        """obs [M, O] -> [M, A], int64 [M] or [M, P]: a sample of the policy, or its most likely action."""
        distribution = self.distribution(obs.to(self.device))
        return distribution.sample() if explore else distribution.mode()

    def sample(self, obs: Tensor) -> Tensor:
        """obs [B, O] -> actions sampled from the policy."""
        return self.act(obs)

    @torch.no_grad()
    def value(self, obs: Tensor) -> Tensor:
        """State values [B] of the policy at raw observations [B, O]."""
        value: Tensor = self.critic(self.normalizer(obs))
        return value

    @torch.no_grad()
    def log_prob(self, obs: Tensor, action: Tensor) -> Tensor:
        """log pi [B] of actions at raw observations [B, O]."""
        return self.distribution(obs).log_prob(action)

    @torch.no_grad()
    def log_probs(self, obs: Tensor) -> Tensor:
        """log pi [B, A] of all discrete actions at raw observations [B, O]; of several taken at once side by side."""
        distribution = cast("Categorical | Categoricals", self.distribution(obs))
        return as_vector(distribution.log_probs(), self.parts) if self.parts else distribution.log_probs()

    @torch.no_grad()
    def with_advantages(self, trajectory: Trajectory, gae_lambda: float) -> AdvantageBatch:
        """A trajectory [T, M] as N rows with generalised advantages and value targets."""
        t, obs = trajectory, self.normalizer(trajectory.obs)
        value, next_value = self.critic(obs), self.value(t.next_obs)
        advantage = gae(t.reward, t.discount, t.ended, value, next_value, self.gamma, gae_lambda)
        return AdvantageBatch(flat(obs), flat(t.action), flat(t.log_prob), flat(advantage), flat(advantage + value))

    def anneal(self, remaining: float) -> None:
        """Scale every annealed learning rate to the share of the run that remains, from 1 to 0."""
        for name, lr in self.annealed.items():
            self.optimizers[name].set_lr(lr * remaining)

    def update_normalizers(self, trajectory: Trajectory, target: Tensor, weight: Tensor | None = None) -> None:
        """Add observations, and targets [N] weighted [N], to the statistics of the policy's input and of every value network."""
        if self.cfg.normalize_obs:
            self.normalizer.update(flat(trajectory.obs))
        if self.cfg.normalize_value:
            for network in self.children():
                if isinstance(network, ValueNetwork):
                    network.rescale(target, weight)
