"""Proximal policy optimisation (Schulman et al. 2017, arXiv:1707.06347): several epochs on each trajectory, near the policy that acted.

The clipped objective and the adaptive KL penalty can be used together. Letters: T steps, M environments, N = T M rows.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mbkit.agents.base import descend
from mbkit.agents.policy_gradient.on_policy import AdvantageBatch, NetworkConfig, OnPolicyAgent, in_minibatches, standardized, value_loss
from mbkit.errors import UserError
from mbkit.fields import at_least, between, positive
from mbkit.networks.distributions import Distribution, detached
from mbkit.registry import agents
from mbkit.types import EnvSpec, Metrics, Trajectory

BETA = (2.0**-20, 2.0**20)  # range of beta. Paper: none; here: one, since a beta of 0 could not be doubled any more


@dataclass(frozen=True)
class PPOConfig(NetworkConfig):
    """Networks, optimizer, objective and loss coefficients; defaults are those of the paper's MuJoCo runs."""

    lr: float = positive(3e-4)  # Adam learning rate
    anneal_lr: bool = False  # linear decay of the learning rate to 0 by the end of the run. Paper, Atari: True
    epochs: int = at_least(10, 1)  # passes over each trajectory
    minibatch: int = at_least(64, 1)  # minibatch size in rows
    gae_lambda: float = between(0.95, 0, 1)  # GAE lambda
    clip: float | None = positive(0.2)  # clipping range epsilon of probability ratios; null: no clipping
    kl_target: float | None = positive(None)  # target D_KL(old | new) of the KL penalty, in nats; null: no penalty. Paper: 0.003 to 0.03
    kl_coef: float = positive(1.0, when="kl_target!=null")  # initial KL-penalty coefficient beta
    entropy_coef: float = at_least(0.0, 0)  # entropy coefficient. Paper, Atari: 0.01
    value_coef: float = positive(0.5)  # value-loss coefficient
    max_grad_norm: float = positive(0.5)  # maximum gradient norm
    normalize_advantage: bool = True  # standardisation of the advantages of every minibatch


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


@agents.register(
    "ppo", PPOConfig, learns_from="trajectories", defaults={"env": "CartPole-v1", "steps": 100_000, "loop": {"rollout_steps": 2048}}
)
class PPO(OnPolicyAgent):
    """Proximal policy optimisation: clipped ratios, an adaptive KL penalty, or both."""

    cfg: PPOConfig
    beta: Tensor  # 0-d, coefficient of the penalty

    def __init__(self, spec: EnvSpec, cfg: PPOConfig, gamma: float = 0.99) -> None:
        if cfg.clip is None and cfg.kl_target is None:
            raise UserError("agent.clip=null and agent.kl_target=null: ppo needs at least one of them to stay near the old policy")
        if cfg.normalize_advantage and cfg.minibatch < 2:
            raise UserError("agent.minibatch=1: expected at least 2 with agent.normalize_advantage=true, which makes a single advantage 0")
        super().__init__(spec, cfg, gamma)
        self.register_buffer("beta", torch.tensor(cfg.kl_coef, device=spec.device))
        self.add_optimizers(cfg.lr, networks=nn.ModuleList([self.policy, self.critic]))
        self.annealed = {"networks": cfg.lr} if cfg.anneal_lr else {}

    def loss(self, rows: AdvantageBatch, old: Distribution) -> tuple[Tensor, Tensor, Tensor]:
        """Surrogate, KL penalty, entropy and value error in one loss (eq. 8 and 9). Returns it, value error and entropy, 0-d."""
        new = self.policy(rows.obs)
        advantage = standardized(rows.advantage) if self.cfg.normalize_advantage else rows.advantage
        gain = clipped_surrogate(new.log_prob(rows.action) - rows.log_prob, advantage, self.cfg.clip).mean()
        if self.cfg.kl_target is not None:
            gain = gain - self.beta * old.kl(new).mean()
        error = value_loss(self.critic.normalized(rows.obs), self.critic.normalizer(rows.target))
        entropy = new.entropy().mean()
        return -gain - self.cfg.entropy_coef * entropy + self.cfg.value_coef * error, error, entropy

    def update(self, trajectory: Trajectory) -> Metrics:
        """Epochs of minibatches over the trajectory, then the penalty's coefficient, then the normalisers."""
        rows = self.with_advantages(trajectory, self.cfg.gae_lambda)
        with torch.no_grad():
            old = detached(self.policy(rows.obs))
        for _ in range(self.cfg.epochs):
            for part in in_minibatches((*rows, *old), self.cfg.minibatch):
                loss, error, entropy = self.loss(AdvantageBatch(*part[:5]), type(old)(*part[5:]))
                descend(self.optimizers["networks"], loss, self.cfg.max_grad_norm)
        with torch.no_grad():
            new = self.policy(rows.obs)
            kl = old.kl(new).mean()
            change = (new.log_prob(rows.action) - rows.log_prob).exp() - 1
            clipped = (change.abs() > (self.cfg.clip or torch.inf)).float().mean()
        self.update_normalizers(trajectory, rows.target)
        metrics = {"critic/loss": error.detach(), "critic/value": rows.target.mean()}
        metrics |= {"actor/kl": kl, "actor/entropy": entropy.detach(), "actor/clipped": clipped}
        if self.cfg.kl_target is not None:
            self.beta.copy_(adapted(self.beta, kl, self.cfg.kl_target))
            metrics["actor/beta"] = self.beta.clone()
        return metrics
