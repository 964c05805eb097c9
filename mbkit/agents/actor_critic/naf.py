"""Normalised advantage functions (Gu et al. 2016, arXiv:1603.00748): Q-learning whose best action is an output of the network.

Q(s, a) = V(s) - 1/2 (a - mu(s))^T L(s) L(s)^T (a - mu(s)). Letters: B batch, O observation, A action, M environments, N rows of targets.
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mbkit.agents.base import LearningAgent, descend, needs_continuous
from mbkit.fields import at_least, between, option, positive
from mbkit.networks.mlp import EnsembleMLP
from mbkit.networks.optimizers import polyak_
from mbkit.networks.values import regression_loss
from mbkit.registry import agents
from mbkit.targets import one_step
from mbkit.types import EnvSpec, Metrics, TargetFn, Transition

LOG_DIAGONAL = (-5.0, 5.0)  # range of log diag L: curvatures between 5e-5 and 2e4, neither flat nor singular in float32


@dataclass(frozen=True)
class NAFConfig:
    """Network, learning rate and noise. Model rollouts, the paper's extension, are another recipe (`mba`)."""

    hidden: tuple[int, ...] = at_least((200, 200), 1)  # widths of the hidden layers, shared by V, mu and L, ReLU between
    lr: float = positive(1e-3)  # Adam learning rate. Paper: searched between 1e-5 and 1e-2
    tau: float = between(0.005, 0, 1)  # weight of the new parameters in the target network. Paper: 0.001
    layer_norm: bool = False  # layer normalisation of the hidden layers. Paper: of the batch; here: of the layer, for batches of one
    saturation_penalty: float = at_least(1.0, 0)  # weight of the penalty where tanh of mu saturates. Paper: no penalty
    noise: Literal["gaussian", "precision"] = option("gaussian", when="noise_scale!=0")  # exploration noise; precision: wide if Q is flat
    noise_scale: float = at_least(0.1, 0)  # exploration noise's standard deviation, in units of the box [-1, 1]
    normalize_obs: bool = False  # normalisation of observations by mean and standard deviation of the warm-up, then fixed


class Quadratic(NamedTuple):
    """The network's outputs at B states."""

    value: Tensor  # V, [B]
    raw: Tensor  # mu before tanh, [B, A]
    factor: Tensor  # L, [B, A, A], lower triangular with a positive diagonal

    @property
    def mode(self) -> Tensor:
        """mu, [B, A] in [-1, 1]."""
        return self.raw.tanh()


def factor(entries: Tensor, where: Tensor, actions: int) -> Tensor:
    """L [B, A, A] of its entries [B, A (A + 1) / 2], which lie at `where` in each flattened matrix; exp on the diagonal."""
    flat = entries.new_zeros(entries.shape[0], actions * actions).index_copy(1, where, entries)
    raw = flat.view(-1, actions, actions)
    diagonal = raw.diagonal(dim1=1, dim2=2).clamp(*LOG_DIAGONAL).exp()
    return raw.tril(-1) + diagonal.diag_embed()


def action_value(terms: Quadratic, action: Tensor) -> Tensor:
    """Eq. 5 and 6: Q(s, a) = V - 1/2 |L^T (a - mu)|^2, [B]. Its maximum over a is V, at mu.

    Paper: mu is any vector, so V is the maximum over R^A; here: mu lies in the box (tanh), so V is the maximum over the box as well.
    """
    distance = (terms.factor.mT @ (action - terms.mode)[..., None])[..., 0]
    return terms.value - 0.5 * distance.square().sum(-1)


def saturation(raw: Tensor) -> Tensor:
    """mean(max(|raw| - 2, 0)^2): a penalty where tanh is flat, so that gradients can move mu out of a corner of the box again."""
    # while Q is still above its targets, regression drives mu away from all actions that were tried, into a corner
    return F.relu(raw.abs() - 2).square().mean()


class QuadraticNet(nn.Module):
    """obs [B, O] -> V, mu and L."""

    where: Tensor

    def __init__(self, obs_dim: int, action_dim: int, hidden: Sequence[int], layer_norm: bool) -> None:
        super().__init__()
        self.action_dim, (rows, columns) = action_dim, torch.tril_indices(action_dim, action_dim)
        self.register_buffer("where", rows * action_dim + columns, persistent=False)
        self.net = EnsembleMLP(1, (obs_dim, *hidden, 1 + action_dim + len(rows)), layer_norm=layer_norm)
        self.inputs: nn.Module = nn.Identity()  # or the agent's normaliser of observations

    def forward(self, obs: Tensor) -> Quadratic:
        """Shapes as in `Quadratic`."""
        value, raw, entries = self.net(self.inputs(obs))[0].split_with_sizes((1, self.action_dim, len(self.where)), -1)
        return Quadratic(value[:, 0], raw, factor(entries, self.where, self.action_dim))

    def mode(self, obs: Tensor) -> Tensor:
        """mu, [B, A]: the action without exploration."""
        return self.forward(obs).mode


@agents.register("naf", NAFConfig, defaults={"env": "InvertedPendulum-v5", "steps": 20_000, "loop": {"warmup_steps": 1000}})
class NAF(LearningAgent):
    """Normalised advantage functions: Q-learning for continuous actions, with Q quadratic in the action."""

    acts_by_sampling = True

    def __init__(self, spec: EnvSpec, cfg: NAFConfig, gamma: float = 0.99, target: TargetFn = one_step) -> None:
        needs_continuous("naf", spec)
        super().__init__()
        self.cfg, self.gamma, self.target, self.device = cfg, gamma, target, spec.device
        self.critic = QuadraticNet(spec.obs_dim, spec.action_dim, cfg.hidden, cfg.layer_norm)
        self.target_critic = deepcopy(self.critic).requires_grad_(False)
        self.normalize_inputs(spec.obs_dim, cfg.normalize_obs)
        self.to(spec.device)
        self.add_optimizers(cfg.lr, critic=self.critic)

    @torch.no_grad()
    def act(self, obs: Tensor, explore: bool = True) -> Tensor:
        """obs [M, O] -> [M, A]: mu, with noise where exploring."""
        return self.sample(obs.to(self.device)) if explore else self.critic(obs.to(self.device)).mode

    @torch.no_grad()
    def sample(self, obs: Tensor) -> Tensor:
        """obs [B, O] -> actions [B, A]: mu with white noise, or noise shaped by the curvature of Q (section 4)."""
        terms: Quadratic = self.critic(obs)
        noise = torch.randn_like(terms.mode)
        if self.cfg.noise == "precision":
            noise = torch.linalg.solve_triangular(terms.factor.mT, noise[..., None], upper=True)[..., 0]
        return (terms.mode + self.cfg.noise_scale * noise).clamp(-1, 1)

    @torch.no_grad()
    def value(self, obs: Tensor) -> Tensor:
        """V [B] of obs [B, O] by the target network."""
        return self.target_critic.forward(obs).value

    @torch.no_grad()
    def backup_action(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """The target network's best action mu(s') [B, A], and no bonus [B]."""
        return self.target_critic(obs).mode, obs.new_zeros(len(obs))

    @torch.no_grad()
    def backup_q(self, obs: Tensor, action: Tensor) -> Tensor:
        """Q of the target network, [1, B]; at its own mu(s') it is its V(s')."""
        return action_value(self.target_critic(obs), action)[None]

    def update(self, batch: Transition) -> Metrics:
        """One step on V, mu and L together, then on the target network. `actor/loss` is -V, what the loss of a policy would be."""
        y = self.target(self, batch, self.gamma)
        q = action_value(terms := self.critic(y.obs), y.action)[None]
        critic_loss = descend(self.optimizers["critic"], regression_loss(q, y) + self.cfg.saturation_penalty * saturation(terms.raw))
        polyak_(self.target_critic, self.critic, self.cfg.tau)
        return {"critic/loss": critic_loss, "critic/q": q.detach().mean(), "actor/loss": -terms.value.detach().mean()}
