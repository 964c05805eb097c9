"""What TD3+BC and ReBRAC share of TD3 (arXiv:1802.09477): a deterministic policy that learns every few updates of its critics.

The critics' targets are at actions of the target policy with clipped noise. Letters: B batch, O observation, A action, K critics.
"""

from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor

from mbkit.agents.actor_critic.td3 import smoothed
from mbkit.agents.critics import normalized_inputs
from mbkit.agents.offline.base import CriticConfig, OfflineActorCritic
from mbkit.fields import at_least
from mbkit.networks.form import CriticForm
from mbkit.networks.heads import Critics
from mbkit.networks.optimizers import polyak_
from mbkit.networks.passes import PolicyPass
from mbkit.networks.policy import Deterministic
from mbkit.types import EnvSpec, Metrics, TargetFn, Transition


@dataclass(frozen=True)
class DelayedConfig(CriticConfig):
    """Networks, learning rate, noise and delay; noise is in units of the box [-1, 1]. The defaults are TD3's."""

    delay: int = at_least(2, 1)  # critic updates for each update of the policy and the target networks
    target_noise: float = at_least(0.2, 0)  # standard deviation of the noise that smooths target actions
    noise_clip: float = at_least(0.5, 0, when="target_noise!=0")  # largest noise that is added to a target action
    noise_scale: float = at_least(0.1, 0)  # standard deviation of the exploration noise, where the agent learns on online


class DelayedActorCritic(OfflineActorCritic):
    """A deterministic policy, critics, target networks of both; the policy's loss is `policy_loss`."""

    cfg: DelayedConfig
    policy: Deterministic
    critics: Critics
    last: Tensor  # [3] the metrics of the policy's last update, so that every update returns them

    def __init__(self, spec: EnvSpec, cfg: DelayedConfig, gamma: float, target: TargetFn, form: CriticForm | None = None) -> None:
        super().__init__(spec, cfg, gamma, target)
        self.cfg, self.cycle, self.noise_scale = cfg, cfg.delay, cfg.noise_scale
        self.policy = Deterministic(spec.obs_dim, spec.action_dim, cfg.hidden)
        self.target_policy = deepcopy(self.policy).requires_grad_(False)
        self.add_critics(spec, cfg, form)
        self.register_buffer("last", torch.zeros(3))
        self.normalize_inputs(spec.obs_dim, normalized_inputs(cfg))
        self.to(spec.device)
        self.add_optimizers(cfg.lr, policy=self.policy, critics=self.critics)

    @torch.no_grad()
    def backup_action(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """The target policy's action with clipped noise [B, A], and no bonus [B]."""
        action: Tensor = self.target_policy(obs)
        noise = self.cfg.target_noise * torch.randn_like(action)
        return smoothed(action, noise, self.cfg.noise_clip), obs.new_zeros(len(obs))

    def policy_loss(self, batch: Transition, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The loss of the policy's actions [B, A], 0-d, its gradient in them [B, A], and the first critic's values of them, [B]."""
        raise TypeError(f"{type(self).__name__} has no loss of the policy")

    def update_policy(self, batch: Transition, recorded_q: Tensor) -> Tensor:
        """One step on the policy; its loss and the measures of the shift, [3]. recorded_q: Q_1 of the recorded actions, [B]."""
        mu = PolicyPass(self.policy, batch.obs)
        loss, slope, q = self.policy_loss(batch, mu.action)
        measures = self.shift(q, recorded_q, mu.action).values()
        self.optimizers["policy"].descend(mu.gradients(slope))
        return torch.stack((loss, *measures))

    def update_when_due(self, batch: Transition, recorded_q: Tensor) -> Metrics:
        """With every `delay`-th call, one step on the policy and on all target networks; the metrics of the last one."""
        self.count = (self.count + 1) % self.cycle
        if self.count == 0:
            self.last.copy_(self.update_policy(batch, recorded_q))
            polyak_(self.target_critics, self.critics, self.cfg.tau)
            polyak_(self.target_policy, self.policy, self.cfg.tau)
        actor_loss, overestimation, outside = self.last.clone()
        return {"actor/loss": actor_loss, "critic/overestimation": overestimation, "actor/outside_support": outside}
