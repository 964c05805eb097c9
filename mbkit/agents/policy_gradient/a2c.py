"""Advantage actor-critic (Mnih et al. 2016, arXiv:1602.01783), its environments in step: one gradient step on each short trajectory.

Letters: T steps, M environments, N = T M rows.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mbkit.agents.base import descend
from mbkit.agents.policy_gradient.on_policy import NetworkConfig, OnPolicyAgent, flat, standardized
from mbkit.fields import at_least, between, positive
from mbkit.registry import agents
from mbkit.returns import gae
from mbkit.types import EnvSpec, Metrics, Trajectory


@dataclass(frozen=True)
class A2CConfig(NetworkConfig):
    """Networks, steps and the weights of what is summed; the loop's `rollout_steps` is the paper's t_max."""

    lr: float = positive(1e-3)  # Adam's step size. Paper: RMSProp, 1e-4 to 1e-2 drawn log-uniformly
    anneal_lr: bool = False  # linearly to 0 at the end of the run. Paper: True
    gae_lambda: float = between(1.0, 0, 1)  # of the advantages; 1 is the paper's return to the end of the trajectory
    entropy: float = at_least(0.01, 0)  # weight of the policy's entropy. Paper: 0.01, continuous actions: 1e-4
    value_weight: float = positive(0.5)  # c, of the value network's loss beside the policy's
    max_norm: float = positive(0.5)  # of the gradient. Paper: none
    standardize: bool = False  # advantages, in every trajectory


def policy_loss(log_prob: Tensor, advantage: Tensor) -> Tensor:
    """-E[log pi(a|s) A], whose gradient is minus that of the return; [N] each. A is a constant."""
    return -(log_prob * advantage.detach()).mean()


def value_loss(value: Tensor, target: Tensor) -> Tensor:
    """E[(y - V)^2], the target y a constant; [N] each."""
    return (target.detach() - value).square().mean()


@agents.register("a2c", A2CConfig, env="CartPole-v1", steps=300_000, loop={"warmup_steps": 0, "num_envs": 8, "rollout_steps": 5})
class A2C(OnPolicyAgent):
    """Advantage actor-critic: a policy gradient with a learned baseline, one step per short trajectory."""

    def __init__(self, spec: EnvSpec, cfg: A2CConfig, gamma: float = 0.99) -> None:
        super().__init__(spec, cfg, gamma)
        self.cfg = cfg
        self.add_optimizers(cfg.lr, networks=nn.ModuleList([self.policy, self.critic]))
        self.falling = {"networks": cfg.lr} if cfg.anneal_lr else {}

    @torch.no_grad()
    def advantage(self, trajectory: Trajectory, value: Tensor) -> Tensor:
        """A [N] from the values [N] of the steps' observations; the last steps bootstrap from their successors."""
        t = trajectory
        value, next_value = value.view_as(t.reward), self.value(t.next_obs)
        return flat(gae(t.reward, t.discount, t.ended, value, next_value, self.gamma, self.cfg.gae_lambda))

    def update(self, trajectory: Trajectory) -> Metrics:
        """One step on policy and value network together: L_pi + c L_V - entropy."""
        obs, action = self.normalizer(flat(trajectory.obs)), flat(trajectory.action)
        normalized = self.critic.normalized(obs)  # once, for the baseline and for the loss
        value = self.critic.in_raw_units(normalized.detach())
        advantage = self.advantage(trajectory, value)
        target = value + advantage
        found = self.policy(obs)
        weight = standardized(advantage) if self.cfg.standardize else advantage
        actor = policy_loss(found.log_prob(action), weight)
        critic = value_loss(normalized, self.critic.in_units(target))
        entropy = found.entropy().mean()
        descend(self.optimizers["networks"], actor + self.cfg.value_weight * critic - self.cfg.entropy * entropy, self.cfg.max_norm)
        self.observe(trajectory, target)
        learner = {"actor/loss": actor.detach(), "actor/entropy": entropy.detach()}
        return {"critic/loss": critic.detach(), "critic/value": target.mean(), **learner}
