"""Deterministic policy gradient, on-policy: neither replay nor target networks (Silver et al. 2014, "DPG algorithms", ICML, section 4).

Every transition is used once, in the newest batch, and the critic bootstraps from itself. Letters: B batch, O observation, A action.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from mbkit.agents.actor_critic.ddpg import climb
from mbkit.agents.base import LearningAgent, critic_metrics, needs_continuous, regress
from mbkit.fields import at_least, positive
from mbkit.networks.heads import Critics
from mbkit.networks.policy import Deterministic
from mbkit.registry import agents
from mbkit.targets import one_step
from mbkit.types import EnvSpec, Metrics, TargetFn, Transition


@dataclass(frozen=True)
class DPGConfig:
    """Networks, learning rates and noise. Paper: linear function approximation; here: networks and Adam, as everywhere in mbkit."""

    hidden: tuple[int, ...] = at_least((64, 64), 1)  # widths of the hidden layers of policy and critic, ReLU between
    lr: float = positive(1e-3)  # Adam learning rate of the critic
    policy_lr: float = positive(1e-4)  # Adam learning rate of the policy; smaller, so that the critic can follow it
    noise_scale: float = at_least(0.3, 0)  # exploration noise's standard deviation, in units of the box [-1, 1]


# Paper: one update for each transition; here: one for each 8 (Adam's step from a single row is mostly noise)
@agents.register(
    "dpg",
    DPGConfig,
    learns_from="fresh",
    defaults={
        "env": "InvertedPendulum-v5",
        "steps": 40_000,
        "loop": {"batch_size": 8, "updates_per_step": 1 / 8, "num_envs": 8},
    },
)
class DPG(LearningAgent):
    """Deterministic policy gradient on the newest transitions: neither replay nor target networks."""

    acts_by_sampling = True

    def __init__(self, spec: EnvSpec, cfg: DPGConfig, gamma: float = 0.99, target: TargetFn = one_step) -> None:
        needs_continuous("dpg", spec)
        super().__init__()
        self.cfg, self.gamma, self.target, self.device = cfg, gamma, target, spec.device
        self.policy = Deterministic(spec.obs_dim, spec.action_dim, cfg.hidden)
        self.critics = Critics(1, spec.obs_dim, spec.action_dim, cfg.hidden)
        self.to(spec.device)
        self.add_optimizers(cfg.lr, critics=self.critics)
        self.add_optimizers(cfg.policy_lr, policy=self.policy)

    @torch.no_grad()
    def act(self, obs: Tensor, explore: bool = True) -> Tensor:
        """obs [M, O] -> [M, A]: the policy's action, with Gaussian noise where exploring."""
        obs = obs.to(self.device)
        return self.sample(obs) if explore else self.policy(obs)

    @torch.no_grad()
    def sample(self, obs: Tensor) -> Tensor:
        """obs [B, O] -> actions [B, A] with Gaussian noise."""
        action: Tensor = self.policy(obs)
        return (action + self.cfg.noise_scale * torch.randn_like(action)).clamp(-1, 1)

    @torch.no_grad()
    def value(self, obs: Tensor) -> Tensor:
        """Value [B] of the policy at obs [B, O] under the critic."""
        return self.backup_q(obs, self.policy(obs))[0]

    @torch.no_grad()
    def backup_action(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """a' = mu(s') [B, A], and no bonus [B]."""
        return self.policy(obs), obs.new_zeros(len(obs))

    @torch.no_grad()
    def backup_q(self, obs: Tensor, action: Tensor) -> Tensor:
        """The critic, [1, B], which is its own target network."""
        q: Tensor = self.critics(obs, action)
        return q

    def update(self, batch: Transition) -> Metrics:
        """One step on the critic (Q-learning, as in eq. 16 and 17) and one on the policy (eq. 18), on its newest transitions."""
        y = self.target(self, batch, self.gamma)
        q = regress(self.optimizers["critics"], self.critics, y)
        actor_loss = climb(self.optimizers["policy"], self.policy, self.critics, batch.obs)
        return {**critic_metrics(q, y), "actor/loss": actor_loss}
