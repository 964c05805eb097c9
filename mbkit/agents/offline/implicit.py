"""What IQL and XQL share: Q bootstraps from V, the policy is cloned with weights exp(A / temperature); they differ in the loss of V.

Implicit Q-learning (Kostrikov, Nair and Levine 2022, arXiv:2110.06169). Letters: B batch, O observation, A action, K critics.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from mbkit.agents.base import critic_metrics
from mbkit.agents.critics import normalized_inputs
from mbkit.agents.offline.base import CriticConfig, OfflineActorCritic, episode_returns, stochastic_policy
from mbkit.agents.offline.cloning import exp_weights, weighted_log_likelihood_loss
from mbkit.errors import UserError
from mbkit.fields import positive
from mbkit.networks.heads import StateValue
from mbkit.networks.optimizers import polyak_
from mbkit.networks.passes import LikelihoodPass, Pass, q_pass
from mbkit.networks.policy import StochasticPolicy
from mbkit.types import EnvSpec, Metrics, Recorded, TargetFn, Targets, Transition

RETURN_RANGE = 1000.0  # range of the episodes' returns after scaling, as in the authors' code


@dataclass(frozen=True)
class ImplicitConfig(CriticConfig):
    """Networks, learning rate, weights, scale of rewards."""

    temperature: float = positive(1 / 3)  # temperature of the policy's weights exp(A / temperature). IQL's paper: its inverse, beta = 3
    weight_clip: float = positive(100.0)  # largest weight
    reward_scale: Literal["none", "return_range"] = "none"  # scale of rewards; return_range: 1000 / (largest - smallest return)


@torch.no_grad()
def implicit_target(batch: Transition, reward: Tensor, next_value: Tensor, gamma: float) -> Targets:
    """IQL, eq. 6: y = r + gamma d V(s'), of rewards and V(s') [B]."""
    return Targets(batch.obs, batch.action, reward + gamma * batch.discount * next_value, batch.weight)


def return_range_factor(data: Recorded) -> Tensor:
    """RETURN_RANGE / (largest - smallest return of an episode), 0-d; UserError where all episodes of the whole data set have the same."""
    low, high = episode_returns(data)[0].aminmax()
    if high == low:
        raise UserError(f"agent.reward_scale=return_range: expected episodes of different returns, but all have {float(low):g}")
    return RETURN_RANGE / (high - low)


class ImplicitActorCritic(OfflineActorCritic):
    """V of the recorded actions by `value_loss`, critics that bootstrap from it, a policy cloned by advantage."""

    computes_targets = True
    cfg: ImplicitConfig
    policy: StochasticPolicy
    reward_factor: Tensor  # 0-d, what `reward_scale` multiplies rewards by

    def __init__(self, spec: EnvSpec, cfg: ImplicitConfig, gamma: float, target: TargetFn) -> None:
        super().__init__(spec, cfg, gamma, target)  # `target` has no part in the updates, since V alone makes them
        self.cfg = cfg
        self.policy = stochastic_policy(spec, cfg.hidden)
        self.v = StateValue(spec.obs_dim, cfg.hidden)
        self.add_critics(spec, cfg)
        self.register_buffer("reward_factor", torch.ones(()))
        self.normalize_inputs(spec.obs_dim, normalized_inputs(cfg))
        self.to(spec.device)
        self.add_optimizers(cfg.lr, policy=self.policy, v=self.v, critics=self.critics)
        self.annealed = {"policy": cfg.lr}

    def value_loss(self, advantage: Tensor) -> Tensor:
        """The loss of V, 0-d, of advantages min_k Q_target,k(s, a) - V(s), [B]."""
        raise TypeError(f"{type(self).__name__} has no loss of V")

    def value_slope(self, advantage: Tensor) -> Tensor:
        """The gradient of that loss in V, [B]."""
        raise TypeError(f"{type(self).__name__} has no loss of V")

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
        v, policy = Pass(self.v.net, self.v.inputs(batch.obs)), LikelihoodPass(self.policy, batch.obs)
        value, distribution = v.out[0, :, 0], policy.distribution
        advantage = target_q - value
        weight = exp_weights(advantage, cfg.temperature, cfg.weight_clip)
        q = q_pass(self.critics, y)
        shift = self.measured_shift(batch, q.q[0], distribution.mode()) if self.measures else {}
        self.optimizers["v"].descend(v.gradients(self.value_slope(advantage)[None, :, None]))
        self.optimizers["critics"].descend(q.regression(y))
        self.optimizers["policy"].descend(policy.gradients(batch.action, weight))
        polyak_(self.target_critics, self.critics, cfg.tau)
        if not self.measures:
            return {}
        actor_loss = weighted_log_likelihood_loss(distribution.log_prob(batch.action), weight)
        critic = {**critic_metrics(q.q, y, self.critics), "critic/v": value.mean(), "critic/v_loss": self.value_loss(advantage)}
        return {**critic, "actor/loss": actor_loss, "actor/weight": weight.mean(), **shift}
