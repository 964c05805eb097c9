"""What learners from fresh trajectories share: a stochastic policy, a value network, and normalisers that travel with them.

Letters: T steps, M environments, N = T M rows, O observation, A action.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mbkit.agents.base import LearningAgent
from mbkit.fields import at_least
from mbkit.networks.distributions import Distribution
from mbkit.networks.heads import ValueNetwork
from mbkit.networks.mlp import Nonlinearity
from mbkit.networks.normalizer import RunningNormalizer
from mbkit.networks.policy import make_policy
from mbkit.returns import gae
from mbkit.types import EnvSpec, Trajectory


@dataclass(frozen=True)
class NetworkConfig:
    """Policy, value network and normalisers."""

    hidden: tuple[int, ...] = at_least((64, 64), 1)  # widths of the hidden layers, of policy and value network each
    activation: Nonlinearity = "tanh"  # of the hidden layers
    log_std: float = 0.0  # of continuous actions at the beginning; the box is [-1, 1]
    normalize_obs: bool = False  # observations by the mean and deviation of all those seen in training
    normalize_value: bool = False  # regress values in standard deviations of all past targets


class Rows(NamedTuple):
    """N steps without their order, as losses want them."""

    obs: Tensor  # [N, O] normalised
    action: Tensor  # [N, A] or [N]
    log_prob: Tensor  # [N] of who acted
    advantage: Tensor  # [N]
    target: Tensor  # [N] of the value network, raw units


def flat(trajectory_field: Tensor) -> Tensor:
    """[T, M, ...] -> [T M, ...]."""
    return trajectory_field.flatten(0, 1)


def standardized(advantage: Tensor) -> Tensor:
    """Mean 0 and standard deviation 1."""
    centred = advantage - advantage.mean()
    return centred / (centred.square().mean().sqrt() + 1e-8)


def shuffled(rows: int, size: int, device: torch.device) -> tuple[Tensor, ...]:
    """All rows in random order, int64, in minibatches of `size` (the last may be smaller); can be captured in a CUDA graph."""
    return torch.rand(rows, device=device).argsort().tensor_split(tuple(range(size, rows, size)))


def in_minibatches(fields: Sequence[Tensor], size: int) -> Iterator[tuple[Tensor, ...]]:
    """The same for the rows themselves, [N, ...] of every field: put in order once, so that a minibatch is but a view of it."""
    order = torch.rand(len(fields[0]), device=fields[0].device).argsort()
    return zip(*(torch.split(x[order], size) for x in fields), strict=True)


class OnPolicyAgent(LearningAgent):
    """An agent that acts by sampling its policy; what it sees goes through a normaliser that is frozen outside `update`."""

    on_policy = True
    replays = False  # whether trajectories of older policies may be learned from
    policy: nn.Module  # obs [B, O] -> Distribution
    critic: ValueNetwork

    def __init__(self, spec: EnvSpec, cfg: NetworkConfig, gamma: float) -> None:
        super().__init__()
        self.falling: dict[str, float] = {}  # step sizes, by optimizer, that fall linearly to 0 at the end of the run
        self.gamma, self.networks = gamma, cfg
        self.policy = make_policy(spec, cfg.hidden, cfg.activation, cfg.log_std)
        self.critic = ValueNetwork(spec.obs_dim, cfg.hidden, cfg.activation)
        self.normalizer: Any = RunningNormalizer(spec.obs_dim) if cfg.normalize_obs else nn.Identity()
        self.to(spec.device)
        self.device = spec.device

    def distribution(self, obs: Tensor) -> Distribution:
        """Of the action at raw observations [B, O]."""
        found: Distribution = self.policy(self.normalizer(obs))
        return found

    @torch.no_grad()
    def act(self, obs: Tensor, explore: bool = True) -> Tensor:
        """obs [M, O] -> [M, A] or int64 [M]: a sample of the policy, or its likeliest action."""
        found = self.distribution(obs.to(self.device))
        return found.sample() if explore else found.mode()

    def sample(self, obs: Tensor) -> Tensor:
        """obs [B, O] -> actions of the policy."""
        return self.act(obs)

    @torch.no_grad()
    def value(self, obs: Tensor) -> Tensor:
        """Value [B] of the policy at obs [B, O]."""
        value: Tensor = self.critic(self.normalizer(obs))
        return value

    @torch.no_grad()
    def log_prob(self, obs: Tensor, action: Tensor) -> Tensor:
        """Of actions at raw observations, [B]."""
        return self.distribution(obs).log_prob(action)

    @torch.no_grad()
    def evaluated(self, trajectory: Trajectory, gae_lambda: float) -> Rows:
        """Generalised advantages and value targets of a trajectory [T, M], as N rows."""
        t, obs = trajectory, self.normalizer(trajectory.obs)
        value, next_value = self.critic(obs), self.value(t.next_obs)
        advantage = gae(t.reward, t.discount, t.ended, value, next_value, self.gamma, gae_lambda)
        return Rows(flat(obs), flat(t.action), flat(t.log_prob), flat(advantage), flat(advantage + value))

    def anneal(self, remaining: float) -> None:
        """`remaining` of the run, from 1 to 0, lies ahead: so much is left of the step sizes that fall."""
        for name, lr in self.falling.items():
            self.optimizers[name].set_lr(lr * remaining)

    def observe(self, trajectory: Trajectory, target: Tensor, weight: Tensor | None = None) -> None:
        """The end of an update: take in what was seen, and targets [N] of the value network, weighted [N]."""
        if self.networks.normalize_obs:
            self.normalizer.update(flat(trajectory.obs))
        if self.networks.normalize_value:
            self.critic.rescale(target, weight)
