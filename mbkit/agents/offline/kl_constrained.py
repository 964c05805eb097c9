"""Policy improvement within a divergence delta of the behaviour policy b: max E_pi A subject to D_KL(pi | b) or D_KL(b | pi) <= delta.

Reverse: pi = b exp(A / temperature) / Z (REPS, Peters et al. 2010; MPO, arXiv:1806.06920; AWR, arXiv:1910.00177). Forward: pi = temperature
b / (nu - A). Explicit: gradient steps on the Lagrangian; implicit: cloning with the solution's weights.
Letters: B batch, O observation, A action, K critics, N actions of b in a state.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from mbkit.agents.actor_critic.soft import log_temperature
from mbkit.agents.base import critic_metrics, descend, descend_each, needs_one_action
from mbkit.agents.offline.base import CriticConfig, OfflineActorCritic, first_q, stochastic_policy
from mbkit.agents.offline.behaviour import bisected_temperature, following_action, objective, soft_value, tilted_kl, values_under
from mbkit.agents.offline.cloning import exp_weights, log_likelihood_loss, weighted_log_likelihood_loss
from mbkit.agents.offline.implicit import implicit_target
from mbkit.agents.offline.one_step import improvement_loss
from mbkit.errors import UserError
from mbkit.fields import at_least, positive
from mbkit.networks.distributions import detached
from mbkit.networks.heads import q_of
from mbkit.networks.optimizers import polyak_
from mbkit.networks.values import regression_slope
from mbkit.registry import agents
from mbkit.targets import one_step
from mbkit.types import EnvSpec, Metrics, TargetFn, Targets, Transition


@dataclass(frozen=True)
class KLConstrainedConfig(CriticConfig):
    """Networks, learning rate, constraint."""

    direction: Literal["reverse", "forward"] = "reverse"  # direction of the divergence; reverse: D_KL(pi | b), forward: D_KL(b | pi)
    form: Literal["explicit", "implicit"] = "explicit"  # form of the improvement; explicit: the Lagrangian, implicit: cloning with
    # weights exp(A / temperature) / Z
    critic: Literal["sarsa", "q_pi"] = "sarsa"  # values of the behaviour policy, or of the policy
    temperature: float = positive(1.0)  # multiplier of the divergence, in units of value; with delta only the first one of `explicit`
    delta: float | None = positive(None)  # bound of the mean divergence, nats, for which the temperature is found; null: it is fixed
    weight_clip: float = positive(100.0, when="form=implicit")  # largest weight
    samples: int = at_least(10, 1, when="form=implicit")  # actions of b that stand for all, N, if actions are continuous


def multiplier_loss(log_temperature: Tensor, divergence: Tensor, delta: float) -> Tensor:
    """temperature (delta - D_KL) as a function of the temperature, which rises while the mean of the divergences [B] exceeds delta."""
    return log_temperature.exp() * (delta - divergence.detach().mean())


def check_constraint(cfg: KLConstrainedConfig, spec: EnvSpec) -> None:
    """UserError where the form does not suit the direction, or no N samples can reach the divergence."""
    if (cfg.direction, cfg.form) == ("forward", "implicit"):
        raise UserError(
            "agent.form=implicit has no meaning with agent.direction=forward, whose weights temperature / (nu - A) are infinite where "
            "A reaches nu; expected agent.form=explicit, or agent.direction=reverse"
        )
    if cfg.form == "implicit" and not spec.discrete and cfg.delta is not None and cfg.delta >= math.log(cfg.samples):
        raise UserError(f"agent.delta={cfg.delta:g}: expected less than log agent.samples = {math.log(cfg.samples):.3g} nats")


@agents.register("kl_constrained", KLConstrainedConfig, learns_from="dataset", defaults={"env": "Pendulum-v1", "steps": 50_000})
class KLConstrained(OfflineActorCritic):
    """KL-constrained policy improvement: the best policy within a divergence of the behaviour policy; continuous and discrete actions."""

    def __init__(self, spec: EnvSpec, cfg: KLConstrainedConfig, gamma: float = 0.99, target: TargetFn = one_step) -> None:
        needs_one_action("kl_constrained", spec)
        check_constraint(cfg, spec)
        super().__init__(spec, cfg, gamma, target)
        self.cfg, self.computes_targets = cfg, cfg.critic != "q_pi"
        self.policy = stochastic_policy(spec, cfg.hidden)
        self.behaviour = stochastic_policy(spec, cfg.hidden)
        self.add_critics(spec, cfg)
        learned = cfg.delta is not None and cfg.form == "explicit"
        self.log_temperature = log_temperature(None if learned else cfg.temperature, cfg.temperature)
        self.normalize_inputs(spec.obs_dim, cfg.normalize_obs)
        self.to(spec.device)
        self.add_optimizers(cfg.lr, policy=self.policy, behaviour=self.behaviour, critics=self.critics, temperature=self.log_temperature)

    def targets(self, batch: Transition) -> Targets:
        """What the critics are regressed on: values of the behaviour policy by SARSA, or of the policy."""
        if self.cfg.critic == "q_pi":
            return self.target(self, batch, self.gamma)
        with torch.no_grad():
            next_value = self.backup_q(batch.next_obs, following_action(batch, self.behaviour(batch.next_obs))).amin(0)
        return implicit_target(batch, batch.reward, next_value, self.gamma)

    def explicit_step(self, batch: Transition, policy: Any, b: Any) -> Metrics:
        """One step on the policy's Lagrangian, and one on the temperature where it is found."""
        value, temperature = objective(self.critics, batch.obs, policy), self.log_temperature.detach().exp()
        divergence = policy.kl(b) if self.cfg.direction == "reverse" else b.kl(policy)
        loss = descend(self.optimizers["policy"], improvement_loss(value, divergence, temperature))
        if self.cfg.delta is not None:
            descend(self.optimizers["temperature"], multiplier_loss(self.log_temperature, divergence, self.cfg.delta))
        return {"actor/loss": loss, "actor/kl": divergence.detach().mean(), "actor/temperature": temperature}

    def implicit_step(self, batch: Transition, policy: Any, b: Any, q: Tensor) -> Metrics:
        """One step on the policy, cloned with the weights of the solution; q [B] of the recorded actions."""
        values, log_prob, _ = values_under(self.critics, batch.obs, b, self.cfg.samples)
        values, delta = values.amin(0), self.cfg.delta
        temperature = self.log_temperature.detach().exp() if delta is None else bisected_temperature(values, log_prob, delta)
        weight = exp_weights(q - soft_value(values, log_prob, temperature), temperature, self.cfg.weight_clip)
        loss = descend(self.optimizers["policy"], weighted_log_likelihood_loss(policy.log_prob(batch.action), weight))
        actor = {"actor/loss": loss, "actor/kl": tilted_kl(values, log_prob, temperature).mean(), "actor/temperature": temperature}
        return {**actor, "actor/weight": weight.mean()}

    def update(self, batch: Transition) -> Metrics:
        """One step on policy, b and critics each, all from the critics before their step, then one on the target critics."""
        y, policy, b = self.targets(batch), self.policy(batch.obs), self.behaviour(batch.obs)
        q, action = q_of(self.critics, y.obs, y.action), policy.mode().detach()
        shift = self.shift(first_q(self.critics, batch.obs, action), q[0], action)
        constant = detached(b)
        explicit = self.cfg.form == "explicit"
        actor = self.explicit_step(batch, policy, constant) if explicit else self.implicit_step(batch, policy, constant, q.detach().amin(0))
        behaviour_loss = descend(self.optimizers["behaviour"], log_likelihood_loss(b.log_prob(batch.action)))
        descend_each((self.optimizers["critics"], [(q, regression_slope(q, y))]))
        polyak_(self.target_critics, self.critics, self.cfg.tau)
        return {**critic_metrics(q, y), "behaviour/loss": behaviour_loss, **actor, **shift}
