"""What learners of the values of discrete actions share: epsilon-greedy acting, a target network, one step of regression.

Letters: B batch, O observation, A actions, M environments, N rows of targets, K critics.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from mbkit.agents.base import needs_discrete, support_metrics
from mbkit.agents.critics import CriticAgent, check_form, normalized_inputs
from mbkit.agents.value_based.regression import regress_taken, regression
from mbkit.fields import at_least, between, positive
from mbkit.networks.form import PLAIN, CriticForm
from mbkit.networks.heads import ActionValues, taken, target_network
from mbkit.networks.optimizers import copy_when_, polyak_
from mbkit.targets import one_step
from mbkit.types import EnvSpec, Metrics, State, TargetFn, Targets, Transition


@dataclass(frozen=True)
class EpsilonGreedyConfig:
    """Network, regression and exploration."""

    hidden: tuple[int, ...] = at_least((128, 128), 1)  # widths of the hidden layers, ReLU between
    lr: float = positive(1e-3)  # Adam learning rate
    loss: Literal["mse", "huber"] = "huber"  # regression loss; huber: quadratic up to an error of 1, then linear
    max_grad_norm: float = positive(10.0)  # maximum gradient norm
    epsilon: float = between(1.0, 0, 1)  # initial probability of a uniformly random action, after the warm-up
    final_epsilon: float = between(0.05, 0, 1)  # final probability of a uniformly random action
    epsilon_steps: int = at_least(10_000, 1, when="epsilon!=final_epsilon")  # steps after the warm-up of epsilon's linear decay
    normalize_obs: bool = False  # normalisation of observations by mean and standard deviation of the warm-up, then fixed

    @property
    def critic_form(self) -> CriticForm:
        """Of the network."""
        return PLAIN


@dataclass(frozen=True)
class ValueConfig(EpsilonGreedyConfig):
    """Network, regression, exploration and target network."""

    final_lr: float | None = at_least(None, 0)  # learning rate at the end of the run, to which lr falls along a line; null: lr throughout
    target_every: int = at_least(500, 0)  # updates between two copies of the network into the target network; 0: Polyak averaging
    tau: float = between(0.005, 0, 1, when="target_every=0")  # weight of the new parameters in the target network


def gradient_scaled(x: Tensor, scale: float) -> Tensor:
    """x itself, with a gradient that is multiplied by `scale`."""
    return x.detach().lerp(x, scale) if scale != 1 else x


def linear_decay(begin: float, end: float, steps: int, now: int) -> float:
    """The value at step `now` of a line from `begin` at step 0 to `end` at step `steps`; `end` afterwards."""
    return begin + (end - begin) * min(now / steps, 1.0)


class EpsilonGreedy(CriticAgent):
    """An agent that acts epsilon-greedily on Q and bootstraps from a target network; a subclass defines how the two change.

    Raises:
        UserError: the environment's actions are continuous.
    """

    name: str  # of the algorithm, for errors
    cfg: EpsilonGreedyConfig

    def __init__(self, spec: EnvSpec, cfg: EpsilonGreedyConfig, gamma: float = 0.99, target: TargetFn = one_step) -> None:
        needs_discrete(self.name, spec)
        super().__init__()
        self.cfg, self.gamma, self.target, self.actions, self.device = cfg, gamma, target, spec.action_dim, spec.device
        self.q = self.make_network(spec)
        self.target_q = target_network(self.q)
        self.explored = 0  # exploratory steps so far, over all environments
        self.normalize_inputs(spec.obs_dim, normalized_inputs(cfg))
        self.to(spec.device)
        self.add_optimizers(cfg.lr, q=self.q)

    def make_network(self, spec: EnvSpec) -> ActionValues:
        """obs [B, O] -> values [K, B, A]."""
        return ActionValues(1, spec.obs_dim, spec.action_dim, self.cfg.hidden, check_form(self.cfg.critic_form, self.target))

    @property
    def bootstrap(self) -> ActionValues:
        """The target network."""
        return self.target_q

    @property
    def epsilon(self) -> float:
        """The present probability of a uniformly random action."""
        return linear_decay(self.cfg.epsilon, self.cfg.final_epsilon, self.cfg.epsilon_steps, self.explored)

    @torch.no_grad()
    def act(self, obs: Tensor, explore: bool = True) -> Tensor:
        """obs [M, O] -> int64 [M]: the best action; where exploring, with probability epsilon, a uniformly random one."""
        obs = obs.to(self.device)
        if not explore:
            return self.greedy(obs)
        action = self.sample(obs)
        self.explored += len(obs)
        return action

    def greedy(self, obs: Tensor) -> Tensor:
        """The best action, int64 [B]."""
        q: Tensor = self.q(obs)
        return q.amin(0).argmax(-1)

    @torch.no_grad()
    def sample(self, obs: Tensor) -> Tensor:
        """obs [B, O] -> int64 [B], epsilon-greedy."""
        random_action = torch.randint(self.actions, (len(obs),), device=obs.device)
        return torch.where(torch.rand(len(obs), device=obs.device) < self.epsilon, random_action, self.greedy(obs))

    @torch.no_grad()
    def value(self, obs: Tensor) -> Tensor:
        """max_a Q(s, a) of the target network, [B]."""
        q: Tensor = self.target_q(obs)
        return q.amin(0).amax(-1)

    @torch.no_grad()
    def backup_action(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """The target network's best action, int64 [B], and no bonus [B]."""
        q: Tensor = self.target_q(obs)
        return q.amin(0).argmax(-1), obs.new_zeros(obs.shape[:-1])

    @torch.no_grad()
    def backup_q(self, obs: Tensor, action: Tensor) -> Tensor:
        """The target network at these actions, [K, B]."""
        return taken(self.target_q(obs), action)

    def get_extra_state(self) -> State:
        """The optimizer, and the number of exploratory steps."""
        return {**super().get_extra_state(), "explored": self.explored}

    def set_extra_state(self, state: State) -> None:
        """Inverse of `get_extra_state`."""
        super().set_extra_state(state)
        self.explored = int(state["explored"])


class ValueAgent(EpsilonGreedy):
    """An agent that makes one step of regression in each update; its target network is a periodic copy or a moving average of Q."""

    cfg: ValueConfig
    updates: Tensor  # 0-d, updates so far

    def __init__(self, spec: EnvSpec, cfg: ValueConfig, gamma: float = 0.99, target: TargetFn = one_step) -> None:
        super().__init__(spec, cfg, gamma, target)
        self.let_rates_fall(cfg.lr, cfg.final_lr)
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64, device=spec.device))

    def update(self, batch: Transition) -> Metrics:
        """One step of regression, then the target network."""
        y = self.targets(batch)
        q = regress_taken(self.optimizers["q"], self.q, y, self.cfg.loss, self.cfg.max_grad_norm)
        self.update_target()
        return self.metrics(q, y) if self.measures else {}

    def metrics(self, q: Tensor, y: Targets) -> Metrics:
        """The loss, and the means of taken values [K, N] and targets [N]."""
        loss = {"critic/loss": regression(q, y, self.cfg.loss), "critic/q": q.mean((0, -1)), "critic/target": y.target.mean(-1)}
        return loss | support_metrics(self.q, y)

    def update_target(self) -> None:
        """Copy the network into the target network every `target_every` updates, or average the two at each."""
        if not self.cfg.target_every:
            polyak_(self.target_q, self.q, self.cfg.tau)
            return
        self.updates += 1
        copy_when_(self.target_q, self.q, self.updates % self.cfg.target_every == 0)
