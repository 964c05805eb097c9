"""Advantage actor-critic (Mnih et al. 2016, arXiv:1602.01783), synchronous: one gradient step on each short trajectory.

Letters: T steps, M environments, N = T M rows.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mbkit.agents.base import descend
from mbkit.agents.policy_gradient.on_policy import NetworkConfig, OnPolicyAgent, flat, standardized, value_loss
from mbkit.fields import at_least, between, positive
from mbkit.registry import agents
from mbkit.returns import gae
from mbkit.types import EnvSpec, Metrics, Trajectory


@dataclass(frozen=True)
class A2CConfig(NetworkConfig):
    """Networks, optimizer, advantages and loss coefficients; the loop's `rollout_steps` is the paper's t_max."""

    lr: float = positive(1e-3)  # Adam learning rate. Paper: RMSProp, 1e-4 to 1e-2 drawn log-uniformly
    anneal_lr: bool = False  # linear decay of the learning rate to 0 by the end of the run. Paper: True
    gae_lambda: float = between(1.0, 0, 1)  # GAE lambda; 1 is the paper's return to the end of the trajectory
    entropy_coef: float = at_least(0.01, 0)  # entropy coefficient. Paper: 0.01, continuous actions: 1e-4
    value_coef: float = positive(0.5)  # value-loss coefficient c
    max_grad_norm: float = positive(0.5)  # maximum gradient norm. Paper: none
    normalize_advantage: bool = False  # standardisation of the advantages of every trajectory


def policy_loss(log_prob: Tensor, advantage: Tensor) -> Tensor:
    """-E[log pi(a|s) A], whose gradient is minus that of the return; [N] each. A is a constant."""
    return -(log_prob * advantage.detach()).mean()


@agents.register(
    "a2c",
    A2CConfig,
    learns_from="trajectories",
    defaults={"env": "CartPole-v1", "steps": 300_000, "loop": {"num_envs": 8, "rollout_steps": 5}},
)
class A2C(OnPolicyAgent):
    """Advantage actor-critic: a policy gradient with a learned baseline, one step per short trajectory."""

    cfg: A2CConfig

    def __init__(self, spec: EnvSpec, cfg: A2CConfig, gamma: float = 0.99) -> None:
        super().__init__(spec, cfg, gamma)
        self.add_optimizers(cfg.lr, networks=nn.ModuleList([self.policy, self.critic]))
        self.annealed = {"networks": cfg.lr} if cfg.anneal_lr else {}

    @torch.no_grad()
    def advantage(self, trajectory: Trajectory, value: Tensor) -> Tensor:
        """A [N] from the values [N] of the steps' observations; the last steps bootstrap from their successors."""
        t = trajectory
        value, next_value = value.view_as(t.reward), self.value(t.next_obs)
        return flat(gae(t.reward, t.discount, t.ended, value, next_value, self.gamma, self.cfg.gae_lambda))

    def update(self, trajectory: Trajectory) -> Metrics:
        """One step on policy and value network together, L_pi + c L_V - entropy, then the normalisers."""
        obs, action = self.normalizer(flat(trajectory.obs)), flat(trajectory.action)
        normalized = self.critic.normalized(obs)  # once, for the baseline and for the loss
        value = self.critic.normalizer.inverse(normalized.detach())
        advantage = self.advantage(trajectory, value)
        target = value + advantage
        distribution = self.policy(obs)
        weight = standardized(advantage) if self.cfg.normalize_advantage else advantage
        actor = policy_loss(distribution.log_prob(action), weight)
        critic = value_loss(normalized, self.critic.normalizer(target))
        entropy = distribution.entropy().mean()
        descend(self.optimizers["networks"], actor + self.cfg.value_coef * critic - self.cfg.entropy_coef * entropy, self.cfg.max_grad_norm)
        self.update_normalizers(trajectory, target)
        learner = {"actor/loss": actor.detach(), "actor/entropy": entropy.detach()}
        return {"critic/loss": critic.detach(), "critic/value": target.mean(), **learner}
