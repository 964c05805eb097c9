"""What learners of the values of discrete actions share: epsilon-greedy acting, a slow network, one step of regression.

Letters: B batch, O observation, A actions, M environments, N rows of targets, K critics.
"""

from copy import deepcopy
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mbkit.agents.base import LearningAgent, descend, needs_discrete
from mbkit.fields import at_least, between, positive
from mbkit.networks.heads import ActionValues, taken
from mbkit.networks.kernels import TakenRegression
from mbkit.networks.optimizers import copy_when_, polyak_
from mbkit.targets import one_step
from mbkit.types import EnvSpec, Metrics, State, TargetFn, Targets, Transition


@dataclass(frozen=True)
class EpsilonGreedyConfig:
    """Network, step size and exploration."""

    hidden: tuple[int, ...] = at_least((128, 128), 1)  # widths of the hidden layers, ReLU between
    lr: float = positive(1e-3)  # Adam's step size
    error: Literal["mse", "huber"] = "huber"  # of the regression; huber: quadratic to 1, then linear
    max_norm: float = positive(10.0)  # of the gradient
    epsilon: float = between(1.0, 0, 1)  # probability of a uniformly random action at the beginning, after the warm-up
    final_epsilon: float = between(0.05, 0, 1)  # and in the end
    epsilon_steps: int = at_least(10_000, 1)  # environment steps after the warm-up in which it falls, linearly


@dataclass(frozen=True)
class ValueConfig(EpsilonGreedyConfig):
    """The same with a slow network that follows."""

    target_every: int = at_least(500, 0)  # updates between two copies of the network into the slow one; 0: Polyak averaging
    tau: float = between(0.005, 0, 1)  # weight of the new parameters in the slow network, where it is an average


def regression(q: Tensor, y: Targets, error: str) -> Tensor:
    """Half the squared error, or Huber's with delta 1, of q [K, N] against targets [N]: weighted mean over rows, summed over critics."""
    target = y.target.expand_as(q)
    each = F.huber_loss(q, target, reduction="none") if error == "huber" else 0.5 * (q - target).square()
    return (y.weight * each).mean(1).sum()


def taken_regression(values: Tensor, y: Targets, error: str) -> tuple[Tensor, Tensor]:
    """`regression(taken(values, y.action), y, error)` of values [K, N, A], and those values [K, N] without gradient."""
    out: tuple[Tensor, Tensor] = TakenRegression.apply(values, y.action, y.target, y.weight, error == "huber")  # type: ignore[no-untyped-call]
    return out


def falling(begin: float, end: float, steps: int, now: int) -> float:
    """From `begin` to `end` in `steps`, linearly; `end` afterwards."""
    return begin + (end - begin) * min(now / steps, 1.0)


class EpsilonGreedy(LearningAgent):
    """Acts epsilon-greedily on Q, and judges by a slow copy of it; how the two change is the algorithm's matter.

    Raises:
        UserError: the environment's actions are continuous; `name` is the culprit.
    """

    cfg: EpsilonGreedyConfig

    def __init__(self, name: str, spec: EnvSpec, cfg: EpsilonGreedyConfig, gamma: float = 0.99, target: TargetFn = one_step) -> None:
        needs_discrete(name, spec.discrete, spec.action_dim)
        super().__init__()
        self.cfg, self.gamma, self.target, self.actions, self.device = cfg, gamma, target, spec.action_dim, spec.device
        self.q = self.make_network(spec)
        self.slow_q = deepcopy(self.q).requires_grad_(False)
        self.acted = 0  # exploring steps so far, over all environments
        self.to(spec.device)
        self.add_optimizers(cfg.lr, q=self.q)

    def make_network(self, spec: EnvSpec) -> nn.Module:
        """obs [B, O] -> values [K, B, A]."""
        return ActionValues(1, spec.obs_dim, spec.action_dim, self.cfg.hidden)

    @property
    def epsilon(self) -> float:
        """The present probability of a random action."""
        return falling(self.cfg.epsilon, self.cfg.final_epsilon, self.cfg.epsilon_steps, self.acted)

    @torch.no_grad()
    def act(self, obs: Tensor, explore: bool = True) -> Tensor:
        """obs [M, O] -> int64 [M]: the best action, or where exploring, with probability epsilon, any."""
        obs = obs.to(self.device)
        if not explore:
            return self.greedy(obs)
        action = self.sample(obs)
        self.acted += len(obs)
        return action

    def greedy(self, obs: Tensor) -> Tensor:
        """The best action, int64 [B]."""
        q: Tensor = self.q(obs)
        return q.amin(0).argmax(-1)

    @torch.no_grad()
    def sample(self, obs: Tensor) -> Tensor:
        """obs [B, O] -> int64 [B], epsilon-greedy."""
        anything = torch.randint(self.actions, (len(obs),), device=obs.device)
        return torch.where(torch.rand(len(obs), device=obs.device) < self.epsilon, anything, self.greedy(obs))

    @torch.no_grad()
    def value(self, obs: Tensor) -> Tensor:
        """max_a Q(s, a) of the slow network, [B]."""
        q: Tensor = self.slow_q(obs)
        return q.amin(0).amax(-1)

    @torch.no_grad()
    def backup_action(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """a' = argmax_a Q_slow(s', a), int64 [B], and no bonus [B]."""
        q: Tensor = self.slow_q(obs)
        return q.amin(0).argmax(-1), obs.new_zeros(len(obs))

    @torch.no_grad()
    def backup_q(self, obs: Tensor, action: Tensor) -> Tensor:
        """The slow network at these actions, [K, B]."""
        return taken(self.slow_q(obs), action)

    def targets(self, batch: Transition) -> Targets:
        """What Q is regressed on."""
        return self.target(self, batch, self.gamma)

    def get_extra_state(self) -> State:
        """The optimizer, and how far exploration has fallen."""
        return {**super().get_extra_state(), "acted": self.acted}

    def set_extra_state(self, state: State) -> None:
        """Inverse of `get_extra_state`."""
        super().set_extra_state(state)
        self.acted = int(state["acted"])


class ValueAgent(EpsilonGreedy):
    """One step of regression on targets of the slow copy in each update; the copy follows, at once every so often or a little each time."""

    cfg: ValueConfig
    count: Tensor  # 0-d, updates so far

    def __init__(self, name: str, spec: EnvSpec, cfg: ValueConfig, gamma: float = 0.99, target: TargetFn = one_step) -> None:
        super().__init__(name, spec, cfg, gamma, target)
        self.register_buffer("count", torch.zeros((), dtype=torch.int64, device=spec.device))

    def update(self, batch: Transition) -> Metrics:
        """One step of regression, and where it is due one on the slow network."""
        y = self.targets(batch)
        loss, q = taken_regression(self.q(y.obs), y, self.cfg.error)
        loss = descend(self.optimizers["q"], loss, self.cfg.max_norm)
        self.follow()
        return {"critic/loss": loss, "critic/q": q.mean(), "critic/target": y.target.mean()}

    def follow(self) -> None:
        """The slow network becomes a copy every so many updates, or moves a little with each."""
        if not self.cfg.target_every:
            polyak_(self.slow_q, self.q, self.cfg.tau)
            return
        self.count += 1
        copy_when_(self.slow_q, self.q, self.count % self.cfg.target_every == 0)
