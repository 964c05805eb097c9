"""Proximal policy optimisation (Schulman et al. 2017, arXiv:1707.06347): several epochs on each trajectory, near the policy that acted.

The clipped objective and the adaptive KL penalty are both here and may be used together. Letters: T steps, M environments, N = T M rows.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mbkit.agents.base import descend
from mbkit.agents.policy_gradient.on_policy import NetworkConfig, OnPolicyAgent, Rows, in_minibatches, standardized
from mbkit.errors import UserError
from mbkit.fields import at_least, between, positive
from mbkit.networks.distributions import detached
from mbkit.registry import agents
from mbkit.types import EnvSpec, Metrics, Trajectory

BETA = (2.0**-20, 2.0**20)  # Paper: no bounds; here: some, since what was halved to 0 could not be doubled any more


@dataclass(frozen=True)
class PPOConfig(NetworkConfig):
    """Defaults are those of the paper's MuJoCo runs."""

    lr: float = positive(3e-4)  # Adam's step size
    anneal_lr: bool = False  # linearly to 0 at the end of the run. Paper, Atari: True
    epochs: int = at_least(10, 1)  # passes over each trajectory
    minibatch: int = at_least(64, 1)  # rows of one gradient step
    gae_lambda: float = between(0.95, 0, 1)  # of the advantages
    clip: float | None = positive(0.2)  # epsilon, how far a probability ratio counts; None: no clipping
    kl_target: float | None = positive(None)  # D_KL(old | new) that the penalty aims at, nats; None: no penalty. Paper: 0.003 to 0.03
    kl_coefficient: float = positive(1.0)  # beta at the beginning
    entropy: float = at_least(0.0, 0)  # weight of the policy's entropy. Paper, Atari: 0.01
    value_weight: float = positive(0.5)  # of the value network's loss beside the policy's
    max_norm: float = positive(0.5)  # of the gradient
    standardize: bool = True  # advantages, in every minibatch


def clipped_surrogate(log_ratio: Tensor, advantage: Tensor, clip: float | None) -> Tensor:
    """Eq. 7: min(rho A, clip(rho, 1 - eps, 1 + eps) A), [N]; eq. 6, rho A, without a clip."""
    ratio = log_ratio.exp()
    if clip is None:
        return ratio * advantage
    return torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)


def adapted(beta: Tensor, kl: Tensor, target: float) -> Tensor:
    """Section 4: the penalty's coefficient doubles where D_KL > 1.5 target, halves where it is < target / 1.5; all 0-d."""
    beta = torch.where(kl > 1.5 * target, 2 * beta, torch.where(kl < target / 1.5, beta / 2, beta))
    return beta.clamp(*BETA)


@agents.register("ppo", PPOConfig, env="CartPole-v1", steps=100_000, loop={"warmup_steps": 0, "rollout_steps": 2048})
class PPO(OnPolicyAgent):
    """Proximal policy optimisation: clipped ratios, an adaptive KL penalty, or both."""

    beta: Tensor  # 0-d, coefficient of the penalty

    def __init__(self, spec: EnvSpec, cfg: PPOConfig, gamma: float = 0.99) -> None:
        if cfg.clip is None and cfg.kl_target is None:
            raise UserError("agent.clip=null and agent.kl_target=null: ppo needs one of them, or nothing would keep it near the old policy")
        if cfg.standardize and cfg.minibatch < 2:
            raise UserError("agent.minibatch=1: one advantage alone is standardised to 0; expected at least 2, or agent.standardize=false")
        super().__init__(spec, cfg, gamma)
        self.cfg = cfg
        self.register_buffer("beta", torch.tensor(cfg.kl_coefficient, device=spec.device))
        self.add_optimizers(cfg.lr, networks=nn.ModuleList([self.policy, self.critic]))
        self.falling = {"networks": cfg.lr} if cfg.anneal_lr else {}

    def loss(self, rows: Rows, old: Any) -> tuple[Tensor, Tensor, Tensor]:
        """What is descended: surrogate, KL penalty, entropy and value error (eq. 8 and 9). Returns it, value error and entropy, 0-d."""
        new = self.policy(rows.obs)
        advantage = standardized(rows.advantage) if self.cfg.standardize else rows.advantage
        gain = clipped_surrogate(new.log_prob(rows.action) - rows.log_prob, advantage, self.cfg.clip).mean()
        if self.cfg.kl_target is not None:
            gain = gain - self.beta * old.kl(new).mean()
        error = (self.critic.normalized(rows.obs) - self.critic.in_units(rows.target)).square().mean()
        entropy = new.entropy().mean()
        return -gain - self.cfg.entropy * entropy + self.cfg.value_weight * error, error, entropy

    def update(self, trajectory: Trajectory) -> Metrics:
        """Epochs of minibatches over the trajectory, then the penalty's coefficient, then the normalisers."""
        rows = self.evaluated(trajectory, self.cfg.gae_lambda)
        with torch.no_grad():
            old = detached(self.policy(rows.obs))
        for _ in range(self.cfg.epochs):
            for part in in_minibatches((*rows, *old), self.cfg.minibatch):
                loss, error, entropy = self.loss(Rows(*part[:5]), type(old)(*part[5:]))
                descend(self.optimizers["networks"], loss, self.cfg.max_norm)
        with torch.no_grad():
            new = self.policy(rows.obs)
            kl = old.kl(new).mean()
            moved = (new.log_prob(rows.action) - rows.log_prob).exp() - 1
            if self.cfg.kl_target is not None:
                self.beta.copy_(adapted(self.beta, kl, self.cfg.kl_target))
        self.observe(trajectory, rows.target)
        clipped = (moved.abs() > (self.cfg.clip or torch.inf)).float().mean()
        actor = {"actor/kl": kl, "actor/entropy": entropy.detach(), "actor/clipped": clipped}
        penalty = {} if self.cfg.kl_target is None else {"actor/beta": self.beta.clone()}
        return {"critic/loss": error.detach(), "critic/value": rows.target.mean(), **actor, **penalty}
