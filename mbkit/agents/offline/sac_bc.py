"""SAC+BC: soft actor-critic whose policy also clones the recorded actions, with Q weighed as in TD3+BC.

SAC (arXiv:1812.05905) with the cloning term and the weight lambda of Fujimoto and Gu 2021 (arXiv:2106.06860). Critics, targets and
temperature are those of `sac.py`. Letters: B batch, O observation, A action, K critics.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from mbkit.agents.base import critic_metrics, descend, needs_continuous, regress
from mbkit.agents.offline.base import CriticConfig
from mbkit.agents.offline.cloning import log_likelihood_loss, squared_error
from mbkit.agents.offline.squashed import SquashedActorCritic
from mbkit.agents.offline.td3_bc import q_weight
from mbkit.fields import at_least, option, positive
from mbkit.networks.distributions import squashed_log_prob, unsquash
from mbkit.networks.optimizers import polyak_
from mbkit.registry import agents
from mbkit.targets import one_step
from mbkit.types import EnvSpec, Metrics, TargetFn, Transition

EDGE = 1 - 1e-3  # recorded actions on a side of the box count as if here, where tanh can still reach them


@dataclass(frozen=True)
class SACBCConfig(CriticConfig):
    """Networks, learning rate, cloning, temperature."""

    alpha: float = at_least(2.5, 0)  # weight alpha of Q, in mean |Q|, beside the cloning term; 0: cloning and entropy alone
    cloning: Literal["squared_error", "log_likelihood"] = "squared_error"  # cloning term: (tanh(mean) - a)^2 or -log pi(a|s)
    temperature: float | None = at_least(None, 0)  # fixed temperature of the entropy; null: learned
    initial_temperature: float = positive(1.0, when="temperature=null")  # initial value of a learned temperature
    target_entropy: float | None = option(None, when="temperature=null")  # target entropy of the policy, nats; null: -A, as in SAC


def cloned_soft_loss(q: Tensor, log_prob: Tensor, temperature: Tensor, alpha: float, cloning: Tensor) -> Tensor:
    """E [temperature log pi - lambda Q] + cloning, lambda = alpha / mean |Q|; Q = min_k Q_k(s, a) and log pi(a|s) of a ~ pi, [B]."""
    return temperature * log_prob.mean() - q_weight(q, alpha) * q.mean() + cloning


def cloning_loss(mean: Tensor, log_std: Tensor, recorded: Tensor, kind: str) -> Tensor:
    """Distance, 0-d, of the policy tanh(N(mean, std^2)) from the recorded actions: squared error of tanh(mean), or -log pi; all [B, A]."""
    if kind == "squared_error":
        return squared_error(mean.tanh(), recorded)
    return log_likelihood_loss(squashed_log_prob(mean, log_std, unsquash(recorded, EDGE)))


@agents.register("sac_bc", SACBCConfig, learns_from="dataset", defaults={"env": "Pendulum-v1", "steps": 50_000})
class SACBC(SquashedActorCritic):
    """SAC+BC: a stochastic policy that maximises value plus entropy and stays near the recorded actions."""

    def __init__(self, spec: EnvSpec, cfg: SACBCConfig, gamma: float = 0.99, target: TargetFn = one_step) -> None:
        needs_continuous("sac_bc", spec)
        super().__init__(spec, cfg, gamma, target)
        self.cfg = cfg
        self.add_policy(spec, cfg.hidden)
        self.add_critics(spec, cfg)
        self.add_temperature(spec, cfg.temperature, cfg.initial_temperature, cfg.target_entropy)
        self.normalize_inputs(spec.obs_dim, cfg.normalize_obs)
        self.to(spec.device)
        self.add_optimizers(cfg.lr, policy=self.policy, critics=self.critics, alpha=self.log_alpha)

    @torch.no_grad()
    def backup_action(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """a' ~ pi(.|s') [B, A] and its entropy bonus -temperature log pi(a'|s') [B]."""
        action, log_prob = self.policy.rsample(obs)
        return action, -self.log_alpha.exp() * log_prob

    def update(self, batch: Transition) -> Metrics:
        """One step each on the critics, the policy and the temperature, then one on the target critics."""
        cfg = self.cfg
        y = self.target(self, batch, self.gamma)
        q = regress(self.optimizers["critics"], self.critics, y)
        mean, log_std = self.policy(batch.obs)
        raw = torch.addcmul(mean, log_std.exp(), torch.randn_like(mean))
        action, log_prob = raw.tanh(), squashed_log_prob(mean, log_std, raw)
        policy_q = self.critics(batch.obs, action, fixed=True)
        cloning, temperature = cloning_loss(mean, log_std, batch.action, cfg.cloning), self.log_alpha.detach().exp()
        actor_loss = descend(self.optimizers["policy"], cloned_soft_loss(policy_q.amin(0), log_prob, temperature, cfg.alpha, cloning))
        self.update_temperature(log_prob)
        polyak_(self.target_critics, self.critics, cfg.tau)
        actor = {"actor/loss": actor_loss, "actor/entropy": -log_prob.detach().mean(), "actor/cloning": cloning.detach()}
        return {**critic_metrics(q, y), **actor, "alpha": temperature, **self.shift(policy_q[0], q[0], action.detach())}
