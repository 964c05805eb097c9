"""TD3+BC (Fujimoto and Gu 2021, arXiv:2106.06860): TD3 whose policy also imitates the recorded actions.

The critics and their targets are those of `td3.py`. The policy's gradient is grad mu (lambda grad_a Q - 2 (mu - a)): lambda multiplies Q
alone. Letters: B batch, O observation, A action, K critics, M environments.
"""

from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor

from mbkit.agents.actor_critic.td3 import smoothed
from mbkit.agents.base import descend, needs_continuous, regression_loss
from mbkit.agents.offline.base import CriticConfig, OfflineActorCritic
from mbkit.agents.offline.cloning import squared_error
from mbkit.fields import at_least
from mbkit.networks.heads import Critics
from mbkit.networks.optimizers import polyak_
from mbkit.networks.policy import Deterministic
from mbkit.registry import agents
from mbkit.targets import one_step
from mbkit.types import EnvSpec, Metrics, TargetFn, Transition


@dataclass(frozen=True)
class TD3BCConfig(CriticConfig):
    """Networks, learning rate, weight of Q, noise and delay; noise is in units of the box [-1, 1]. The defaults are the paper's."""

    alpha: float = at_least(2.5, 0)  # weight alpha of Q, in mean |Q|, beside the cloning term; 0: cloning alone
    delay: int = at_least(2, 1)  # critic updates for each update of the policy and the target networks
    target_noise: float = at_least(0.2, 0)  # standard deviation of the noise that smooths target actions
    noise_clip: float = at_least(0.5, 0, when="target_noise!=0")  # largest noise that is added to a target action
    noise_scale: float = at_least(0.1, 0)  # standard deviation of the exploration noise, where the agent learns on online


def q_weight(q: Tensor, alpha: float) -> Tensor:
    """Eq. 5: lambda = alpha / mean |Q(s, mu(s))|, a constant, 0-d; q [B]."""
    return alpha / q.detach().abs().mean().clamp(min=1e-8)


def cloned_policy_loss(q: Tensor, action: Tensor, recorded: Tensor, alpha: float) -> Tensor:
    """Eq. 3: -lambda mean Q_1(s, mu(s)) + mean (mu(s) - a)^2; q [B] of the policy's actions [B, A], and the recorded ones [B, A]."""
    return squared_error(action, recorded) - q_weight(q, alpha) * q.mean()


@agents.register("td3_bc", TD3BCConfig, learns_from="dataset", defaults={"env": "Pendulum-v1", "steps": 50_000})
class TD3BC(OfflineActorCritic):
    """TD3+BC: a policy that climbs its critic and stays near the recorded actions."""

    critics: Critics
    last: Tensor  # [3] the metrics of the policy's last update, so that every update returns them

    def __init__(self, spec: EnvSpec, cfg: TD3BCConfig, gamma: float = 0.99, target: TargetFn = one_step) -> None:
        needs_continuous("td3_bc", spec)
        super().__init__(spec, cfg, gamma, target)
        self.cfg, self.cycle, self.noise_scale = cfg, cfg.delay, cfg.noise_scale
        self.policy = Deterministic(spec.obs_dim, spec.action_dim, cfg.hidden)
        self.target_policy = deepcopy(self.policy).requires_grad_(False)
        self.add_critics(spec, cfg)
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
        q = self.critics.first(batch.obs, action)
        measures = self.shift(q, recorded_q, action).values()
        loss = descend(self.optimizers["policy"], cloned_policy_loss(q, action, batch.action, self.cfg.alpha))
        return torch.stack((loss, *measures))

    def update(self, batch: Transition) -> Metrics:
        """One step on the critics; with every `delay`-th, one on the policy and on all target networks."""
        y = self.target(self, batch, self.gamma)
        q = self.critics(y.obs, y.action)
        critic_loss = descend(self.optimizers["critics"], regression_loss(q, y))
        self.count = (self.count + 1) % self.cycle
        if self.count == 0:
            self.last.copy_(self.update_policy(batch, q[0].detach()))
            polyak_(self.target_critics, self.critics, self.cfg.tau)
            polyak_(self.target_policy, self.policy, self.cfg.tau)
        actor_loss, overestimation, outside = self.last.clone()
        shift = {"critic/overestimation": overestimation, "actor/outside_support": outside}
        return {"critic/loss": critic_loss, "critic/q": q.detach().mean(), "actor/loss": actor_loss, **shift}
