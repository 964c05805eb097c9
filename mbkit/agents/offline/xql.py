"""Extreme Q-learning (Garg, Hejna, Geist and Ermon 2023, arXiv:2301.02328): the soft maximum over recorded actions by regression.

V(s) minimises the Gumbel loss of Q(s, a) - V(s) over the recorded actions a, and so is scale log E_b exp(Q / scale): the mean where `scale`
is large, the best of them where it is small. Else it is IQL: Q bootstraps from V, the policy is cloned with weights exp(A / temperature).
Letters: B batch, O observation, A action, K critics.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from mbkit.agents.base import descend_each, needs_one_action, regression_loss
from mbkit.agents.offline.base import CriticConfig, OfflineActorCritic, q_of, stochastic_policy
from mbkit.agents.offline.cloning import exp_weights, weighted_log_likelihood_loss
from mbkit.agents.offline.iql import implicit_target, return_range_factor
from mbkit.fields import positive
from mbkit.networks.heads import StateValue
from mbkit.networks.optimizers import polyak_
from mbkit.registry import agents
from mbkit.targets import one_step
from mbkit.types import EnvSpec, Metrics, Recorded, TargetFn, Transition


@dataclass(frozen=True)
class XQLConfig(CriticConfig):
    """Networks, learning rate, scale of the Gumbel loss, weights. The defaults are those of the authors' code for locomotion."""

    scale: float = positive(2.0)  # scale of the Gumbel loss, in units of reward: V = scale log E_b exp(Q / scale). Paper: beta
    clip: float = positive(7.0)  # largest exponent (Q - V) / scale of the gradient
    temperature: float = positive(1 / 3)  # temperature of the policy's weights exp(A / temperature)
    weight_clip: float = positive(100.0)  # largest weight
    reward_scale: Literal["none", "return_range"] = "none"  # scale of rewards; return_range: 1000 / (largest - smallest return)


def gumbel_loss(advantage: Tensor, scale: float, clip: float) -> Tensor:
    """Gumbel regression: E [exp z - z - 1], z = (Q - V) / scale, [B]; above the clip the loss is a line, its gradient that at the clip.

    Authors' code: a constant there, so that V stays where it is while every z is above the clip.
    """
    z = advantage / scale
    inside = z.clamp(max=clip)
    return (inside.exp() * (1 + z - inside) - z - 1).mean()


@agents.register("xql", XQLConfig, learns_from="dataset", defaults={"env": "Pendulum-v1", "steps": 50_000})
class XQL(OfflineActorCritic):
    """Extreme Q-learning: soft maxima of recorded actions' values, and a policy cloned by advantage; continuous and discrete actions."""

    computes_targets = True
    reward_factor: Tensor  # 0-d, what `reward_scale` multiplies rewards by

    def __init__(self, spec: EnvSpec, cfg: XQLConfig, gamma: float = 0.99, target: TargetFn = one_step) -> None:
        needs_one_action("xql", spec)
        super().__init__(spec, cfg, gamma, target)  # `target` has no part in the updates, since V alone makes them
        self.cfg = cfg
        self.policy = stochastic_policy(spec, cfg.hidden)
        self.v = StateValue(spec.obs_dim, cfg.hidden)
        self.add_critics(spec, cfg)
        self.register_buffer("reward_factor", torch.ones(()))
        self.normalize_inputs(spec.obs_dim, cfg.normalize_obs)
        self.to(spec.device)
        self.add_optimizers(cfg.lr, policy=self.policy, v=self.v, critics=self.critics)
        self.annealed = {"policy": cfg.lr}

    @torch.no_grad()
    def prepare(self, data: Recorded) -> None:
        """As every offline agent's, and the factor of the rewards; UserError where all episodes have the same return."""
        super().prepare(data)
        if self.cfg.reward_scale == "return_range":
            self.reward_factor.copy_(return_range_factor(data))

    @torch.no_grad()
    def value(self, obs: Tensor) -> Tensor:
        """V at obs [B, O] in units of the recorded rewards, [B]."""
        value: Tensor = self.v(obs)
        return value / self.reward_factor

    def update(self, batch: Transition) -> Metrics:
        """One step on V, critics and policy each, all from V before its step, then one on the target critics."""
        cfg = self.cfg
        with torch.no_grad():
            next_value = self.v(batch.next_obs)
            target_q = self.backup_q(batch.obs, batch.action).amin(0)
        y = implicit_target(batch, self.reward_factor * batch.reward, next_value, self.gamma)
        value, q, policy = self.v(batch.obs), q_of(self.critics, batch.obs, batch.action), self.policy(batch.obs)
        advantage = target_q - value
        weight = exp_weights(advantage, cfg.temperature, cfg.weight_clip)
        shift = self.measured_shift(batch, q[0], policy.mode())
        value_loss, critic_loss, actor_loss = descend_each(
            (self.optimizers["v"], gumbel_loss(advantage, cfg.scale, cfg.clip)),
            (self.optimizers["critics"], regression_loss(q, y)),
            (self.optimizers["policy"], weighted_log_likelihood_loss(policy.log_prob(batch.action), weight)),
        )
        polyak_(self.target_critics, self.critics, cfg.tau)
        critic = {"critic/loss": critic_loss, "critic/q": q.detach().mean(), "critic/v": value.detach().mean(), "critic/v_loss": value_loss}
        return {**critic, "actor/loss": actor_loss, "actor/weight": weight.mean(), **shift}
