"""Q-learning whose greedy action is searched by the cross-entropy method (QT-Opt, Kalashnikov et al. 2018, arXiv:1806.10293).

Paper: noise is drawn anew in every search; here: once, when the agent is made, so that the greedy action of an observation is always the
same. Letters: M environments, B batch, I iterations, N candidates, E elites, K critics, O observation, A action.
"""

from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mbkit.agents.base import LearningAgent, descend, needs_continuous, regression_loss
from mbkit.fields import at_least, between, positive
from mbkit.networks.heads import Critics
from mbkit.networks.optimizers import polyak_
from mbkit.networks.plain import GreedyRule
from mbkit.registry import agents
from mbkit.targets import one_step
from mbkit.types import EnvSpec, Metrics, TargetFn, Transition


@dataclass(frozen=True)
class QTOptConfig:
    """Search, network and learning rate; a comment here is the help that `mbkit config qt_opt` prints."""

    candidates: int = at_least(32, 2)  # number of actions that an iteration of the search compares, N. Paper: 64
    elites: int = at_least(6, 1)  # number of best actions that the next iteration is drawn around, E
    iterations: int = at_least(2, 1)  # number of iterations of the search. Paper: 2
    hidden: tuple[int, ...] = at_least((128, 128), 1)  # widths of the critics' hidden layers, ReLU between
    lr: float = positive(1e-3)  # Adam learning rate
    tau: float = between(0.005, 0, 1)  # weight of the new parameters in the target critics
    noise_scale: float = at_least(0.1, 0)  # standard deviation of the exploration noise, in units of the box [-1, 1]


def greedy(obs: Tensor, critics: nn.Module, noise: Tensor, elites: int) -> Tensor:
    """The action [B, A] of the highest value, by the smaller of the critics, that the search meets at obs [B, O]; noise [I, N, A]."""
    (b, o), (_, n, a) = obs.shape, noise.shape
    rows = obs[:, None].expand(b, n, o).reshape(b * n, o)
    mean, std = obs.new_zeros(b, 1, a), obs.new_ones(b, 1, a)
    for standard in noise:
        action = (mean + std * standard).clamp(-1, 1)  # [B, N, A]
        q = critics(rows, action.reshape(b * n, a)).amin(0).view(b, n)
        best = action.take_along_dim(q.topk(elites).indices[..., None], 1)  # [B, E, A], best first
        mean, std = best.mean(1, keepdim=True), best.std(1, correction=0, keepdim=True)
    return best[:, 0]


@agents.register("qt_opt", QTOptConfig, defaults={"env": "Pendulum-v1", "steps": 10_000, "loop": {"warmup_steps": 1000}})
class QTOpt(LearningAgent):
    """QT-Opt: Q-learning for continuous actions, whose maximum over actions is searched by the cross-entropy method."""

    noise: Tensor

    def __init__(self, spec: EnvSpec, cfg: QTOptConfig, gamma: float = 0.99, target: TargetFn = one_step) -> None:
        needs_continuous("qt_opt", spec)
        super().__init__()
        self.cfg, self.gamma, self.target = cfg, gamma, target
        self.register_buffer("noise", torch.randn(cfg.iterations, cfg.candidates, spec.action_dim))
        self.critics = Critics(2, spec.obs_dim, spec.action_dim, cfg.hidden)
        self.target_critics = deepcopy(self.critics).requires_grad_(False)
        self.to(spec.device)
        self.add_optimizers(cfg.lr, critics=self.critics)

    @torch.no_grad()
    def greedy(self, obs: Tensor) -> Tensor:
        """The greedy action [B, A] at obs [B, O]."""
        return greedy(obs, self.critics, self.noise, self.cfg.elites)

    def greedy_module(self) -> nn.Module:
        """`greedy` as a module of its parts, for `mbkit export`."""
        return GreedyRule(greedy, critics=self.critics, noise=self.noise, elites=self.cfg.elites)

    def act(self, obs: Tensor, explore: bool = True) -> Tensor:
        """obs [M, O] -> [M, A] in [-1, 1]."""
        obs = obs.to(self.noise.device)
        return self.sample(obs) if explore else self.greedy(obs)

    def sample(self, obs: Tensor) -> Tensor:
        """obs [B, O] -> [B, A]: the greedy action with Gaussian noise."""
        action = self.greedy(obs)
        return (action + self.cfg.noise_scale * torch.randn_like(action)).clamp(-1, 1)

    def value(self, obs: Tensor) -> Tensor:
        """Value [B] of the greedy action under the target critics."""
        return self.backup_q(obs, self.greedy(obs)).amin(0)

    def backup_action(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """The greedy action [B, A], and no bonus [B]."""
        return self.greedy(obs), obs.new_zeros(len(obs))

    @torch.no_grad()
    def backup_q(self, obs: Tensor, action: Tensor) -> Tensor:
        """The target critics, [K, B]."""
        q: Tensor = self.target_critics(obs, action)
        return q

    def update(self, batch: Transition) -> Metrics:
        """One step on the critics, then on the target critics."""
        y = self.target(self, batch, self.gamma)
        q = self.critics(y.obs, y.action)
        loss = descend(self.optimizers["critics"], regression_loss(q, y))
        polyak_(self.target_critics, self.critics, self.cfg.tau)
        return {"critic/loss": loss, "critic/q": q.detach().mean()}
