"""ReBRAC (Tarasov et al. 2023, arXiv:2305.09836): TD3+BC with a penalty in the critics' target, too, and deeper, normalised networks.

A target action pays for its distance from the recorded following action, the policy's action for that from the recorded one, with separate
weights. Critics and targets else are those of `td3.py`. Letters: B batch, O observation, A action, K critics, M environments.
"""

from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor

from mbkit.agents.actor_critic.td3 import smoothed
from mbkit.agents.base import descend, needs_continuous, regression_loss
from mbkit.agents.offline.base import CriticConfig, OfflineActorCritic
from mbkit.agents.offline.iql import implicit_target
from mbkit.agents.offline.td3_bc import q_weight
from mbkit.fields import at_least, positive
from mbkit.networks.heads import Critics
from mbkit.networks.optimizers import polyak_
from mbkit.networks.policy import Deterministic
from mbkit.registry import agents
from mbkit.targets import one_step
from mbkit.types import EnvSpec, Metrics, Recorded, TargetFn, Transition


@dataclass(frozen=True)
class ReBRACConfig(CriticConfig):
    """Networks, learning rate, penalties, noise and delay; noise is in units of the box [-1, 1]. The defaults are the paper's."""

    hidden: tuple[int, ...] = at_least((256, 256, 256), 1)  # widths of the hidden layers of policy and critics, ReLU between
    lr: float = positive(1e-3)  # Adam learning rate of policy and critics
    actor_penalty: float = at_least(0.01, 0)  # weight beta_1 of |mu(s) - a|^2 in the policy's loss. Paper: 0.001 to 0.1 by data set
    critic_penalty: float = at_least(0.01, 0)  # weight beta_2 of |mu(s') - a'|^2 in the target, in reward. Paper: 0 to 0.5 by data set
    layer_norm: bool = True  # layer normalisation of the critics
    delay: int = at_least(2, 1)  # critic updates for each update of the policy and the target networks
    target_noise: float = at_least(0.2, 0)  # standard deviation of the noise that smooths target actions
    noise_clip: float = at_least(0.5, 0, when="target_noise!=0")  # largest noise that is added to a target action
    noise_scale: float = at_least(0.1, 0)  # standard deviation of the exploration noise, where the agent learns on online


def squared_distance(action: Tensor, recorded: Tensor) -> Tensor:
    """|mu - a|^2, a sum over dimensions, [B]; both [B, A]."""
    return (action - recorded).square().sum(-1)


def penalized_policy_loss(q: Tensor, action: Tensor, recorded: Tensor, weight: float) -> Tensor:
    """mean beta_1 |mu(s) - a|^2 - mean Q / mean |Q|, Q = min_k Q_k(s, mu(s)) [B] of the policy's actions [B, A], recorded ones [B, A]."""
    return weight * squared_distance(action, recorded).mean() - q_weight(q, 1.0) * q.mean()


def penalty(batch: Transition | Recorded, action: Tensor) -> Tensor:
    """|a~ - a'|^2 of target actions [B, A] from the recorded following ones, [B]; 0 where a row has none."""
    if not isinstance(batch, Recorded):
        return torch.zeros_like(batch.reward)
    return batch.next_known * squared_distance(action, batch.next_action)


@agents.register(
    "rebrac", ReBRACConfig, learns_from="dataset", defaults={"env": "Pendulum-v1", "steps": 50_000, "loop": {"batch_size": 1024}}
)
class ReBRAC(OfflineActorCritic):
    """ReBRAC: a policy and targets that both pay for their distance from the recorded actions."""

    computes_targets = True
    critics: Critics
    last: Tensor  # [3] the metrics of the policy's last update, so that every update returns them

    def __init__(self, spec: EnvSpec, cfg: ReBRACConfig, gamma: float = 0.99, target: TargetFn = one_step) -> None:
        needs_continuous("rebrac", spec)
        super().__init__(spec, cfg, gamma, target)  # `target` has no part in the updates: it knows no recorded following action
        self.cfg, self.cycle, self.noise_scale = cfg, cfg.delay, cfg.noise_scale
        self.policy = Deterministic(spec.obs_dim, spec.action_dim, cfg.hidden)
        self.target_policy = deepcopy(self.policy).requires_grad_(False)
        self.critics = Critics(cfg.critics, spec.obs_dim, spec.action_dim, cfg.hidden, cfg.layer_norm)
        self.target_critics = deepcopy(self.critics).requires_grad_(False)
        self.register_buffer("last", torch.zeros(3))
        self.normalize_inputs(spec.obs_dim, cfg.normalize_obs)
        self.to(spec.device)
        self.add_optimizers(cfg.lr, policy=self.policy, critics=self.critics)

    @torch.no_grad()
    def backup_action(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """The target policy's action with clipped noise [B, A], and no bonus [B]."""
        action: Tensor = self.target_policy(obs)
        noise = self.cfg.target_noise * torch.randn_like(action)
        return smoothed(action, noise, self.cfg.noise_clip), obs.new_zeros(len(obs))

    def update_policy(self, batch: Transition, recorded_q: Tensor) -> Tensor:
        """One step on the policy; its loss and the measures of the shift, [3]. recorded_q: Q_1 of the recorded actions, [B]."""
        action = self.policy(batch.obs)
        q = self.critics(batch.obs, action, fixed=True)
        measures = self.shift(q[0], recorded_q, action).values()
        loss = penalized_policy_loss(q.amin(0), action, batch.action, self.cfg.actor_penalty)
        return torch.stack((descend(self.optimizers["policy"], loss), *measures))

    def update(self, batch: Transition) -> Metrics:
        """One step on the critics; with every `delay`-th, one on the policy and on all target networks."""
        action, _ = self.backup_action(batch.next_obs)
        distance = penalty(batch, action)
        next_value = self.backup_q(batch.next_obs, action).amin(0) - self.cfg.critic_penalty * distance
        y = implicit_target(batch, batch.reward, next_value, self.gamma)
        q = self.critics(y.obs, y.action)
        critic_loss = descend(self.optimizers["critics"], regression_loss(q, y))
        self.count = (self.count + 1) % self.cycle
        if self.count == 0:
            self.last.copy_(self.update_policy(batch, q[0].detach()))
            polyak_(self.target_critics, self.critics, self.cfg.tau)
            polyak_(self.target_policy, self.policy, self.cfg.tau)
        actor_loss, overestimation, outside = self.last.clone()
        shift = {"critic/overestimation": overestimation, "actor/outside_support": outside}
        critic = {"critic/loss": critic_loss, "critic/q": q.detach().mean(), "critic/penalty": distance.mean()}
        return {**critic, "actor/loss": actor_loss, **shift}
