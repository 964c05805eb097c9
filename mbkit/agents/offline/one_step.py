"""One-step RL (Brandfonbrener et al. 2021, arXiv:2106.08909): the value of the behaviour policy, and one improvement on it.

beta is cloned, Q^beta learned by SARSA, and neither depends on the policy: all learn in one update. # Paper: three phases. With log Q in
place of Q the improved policy is beta Q / V (Eysenbach et al. 2023, arXiv:2307.12968).
Letters: B batch, O observation, A action, K critics, N actions of a state.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mbkit.agents.base import critic_metrics, descend, descend_each, needs_one_action
from mbkit.agents.offline.base import CriticConfig, OfflineActorCritic, first_q, stochastic_policy
from mbkit.agents.offline.behaviour import Candidates, advantage, best_of, following_action, least_reward, objective, values_under
from mbkit.agents.offline.cloning import exp_weights, log_likelihood_loss, weighted_log_likelihood_loss
from mbkit.agents.offline.implicit import implicit_target
from mbkit.fields import at_least, option, positive
from mbkit.networks.distributions import detached
from mbkit.networks.heads import q_of
from mbkit.networks.optimizers import polyak_
from mbkit.networks.plain import GreedyRule, of_mode
from mbkit.networks.values import regression_slope
from mbkit.registry import agents
from mbkit.targets import one_step
from mbkit.types import EnvSpec, Metrics, Recorded, TargetFn, Transition

Improvement = Literal["reverse_kl", "exp", "bcq", "log_q", "greedy"]


@dataclass(frozen=True)
class OneStepConfig(CriticConfig):
    """Networks, learning rate, improvement."""

    critics: int = at_least(1, 1)  # number of critics of the behaviour policy, K; of several the smallest counts
    improvement: Improvement = "reverse_kl"  # improvement on the behaviour policy beta; bcq: best of N actions of beta
    temperature: float = positive(1.0, when="improvement!=bcq, improvement!=greedy")  # weight of D_KL(pi | beta); exp: divides advantages
    weight_clip: float = positive(100.0, when="improvement=exp")  # largest weight
    samples: int = at_least(10, 1, when="improvement!=reverse_kl, improvement!=log_q, improvement!=greedy")  # actions of beta, N: the
    # candidates of bcq; exp: those that V^beta is the mean of, if actions are continuous
    reward_shift: float = option(0.0, when="improvement=log_q")  # number added to every reward, all of which must then be > 0


def improvement_loss(value: Tensor, divergence: Tensor, temperature: float | Tensor) -> Tensor:
    """Reverse-KL improvement: -E_pi Q + temperature D_KL(pi | beta), the mean over rows; both [B]."""
    return (temperature * divergence - value).mean()


@agents.register("one_step", OneStepConfig, learns_from="dataset", defaults={"env": "Pendulum-v1", "steps": 50_000})
class OneStep(OfflineActorCritic):
    """One-step RL: a single improvement on the behaviour policy by its own values; continuous and discrete actions."""

    computes_targets = True
    least: Tensor  # 0-d, the smallest reward, below which no value of beta can lie if rewards are > 0

    def __init__(self, spec: EnvSpec, cfg: OneStepConfig, gamma: float = 0.99, target: TargetFn = one_step) -> None:
        needs_one_action("one_step", spec)
        super().__init__(spec, cfg, gamma, target)  # `target` has no part in the updates: SARSA makes them
        self.cfg = cfg
        self.chooses = cfg.improvement == "bcq" or (cfg.improvement == "greedy" and spec.discrete)  # by critics, without a policy
        self.behaviour = stochastic_policy(spec, cfg.hidden)
        self.add_critics(spec, cfg)
        self.register_buffer("least", torch.full((), 1e-6))
        if self.chooses:
            self.candidates = Candidates(spec, cfg.samples, every=cfg.improvement == "greedy")
        else:
            self.policy = stochastic_policy(spec, cfg.hidden)
        self.normalize_inputs(spec.obs_dim, cfg.normalize_obs)
        self.to(spec.device)
        self.add_optimizers(cfg.lr, behaviour=self.behaviour, critics=self.critics)
        if not self.chooses:
            self.add_optimizers(cfg.lr, policy=self.policy)

    @torch.no_grad()
    def prepare(self, data: Recorded) -> None:
        """As every offline agent's; UserError where log Q is wanted of rewards that are not all > 0."""
        super().prepare(data)
        if self.cfg.improvement == "log_q":
            self.least.fill_(least_reward(data.reward, self.cfg.reward_shift, "agent.improvement=log_q"))

    def greedy(self, obs: Tensor) -> Tensor:
        """The most likely action of the policy, or the best of always the same candidates, [B, A] or int64 [B]."""
        return best_of(obs, self.behaviour, self.critics, self.candidates.noise) if self.chooses else super().greedy(obs)

    def greedy_module(self) -> nn.Module:
        """`greedy` as a module, for export."""
        if not self.chooses:
            return of_mode(self.policy)
        return GreedyRule(best_of, behaviour=self.behaviour, critics=self.critics, noise=self.candidates.noise)

    @torch.no_grad()
    def sample(self, obs: Tensor) -> Tensor:
        """obs [B, O] -> actions [B, A] or int64 [B]: samples of the policy, or the best of fresh candidates."""
        return best_of(obs, self.behaviour, self.critics, self.candidates.fresh(len(obs))) if self.chooses else super().sample(obs)

    def update_policy(self, batch: Transition, beta: Any, q: Tensor) -> Metrics:
        """One step on the policy; beta at batch.obs and q [K, B] of the recorded actions are constants."""
        cfg, policy = self.cfg, self.policy(batch.obs)
        if cfg.improvement == "exp":
            beta_q, log_prob, _ = values_under(self.critics, batch.obs, beta, cfg.samples)
            weight = exp_weights(advantage(q, beta_q, log_prob), cfg.temperature, cfg.weight_clip)
            loss = weighted_log_likelihood_loss(policy.log_prob(batch.action), weight)
            return {"actor/loss": descend(self.optimizers["policy"], loss), "actor/weight": weight.mean()}
        logarithm = cfg.improvement == "log_q"
        value = objective(self.critics, batch.obs, policy, lambda q: q.clamp(min=self.least).log() if logarithm else q)
        divergence = policy.kl(beta)
        loss = improvement_loss(value, divergence, 0.0 if cfg.improvement == "greedy" else cfg.temperature)
        return {"actor/loss": descend(self.optimizers["policy"], loss), "actor/kl": divergence.detach().mean()}

    def update(self, batch: Transition) -> Metrics:
        """One step on beta, the critics, and the policy where there is one, then one on the target critics."""
        with torch.no_grad():
            next_action = following_action(batch, self.behaviour(batch.next_obs))
            next_value = self.backup_q(batch.next_obs, next_action).amin(0)
        y = implicit_target(batch, batch.reward + self.cfg.reward_shift, next_value, self.gamma)
        beta, q = self.behaviour(batch.obs), q_of(self.critics, batch.obs, batch.action)
        with torch.no_grad():
            action = self.greedy(batch.obs)
        shift = self.shift(first_q(self.critics, batch.obs, action), q[0], action)
        actor = {} if self.chooses else self.update_policy(batch, detached(beta), q.detach())
        behaviour_loss = descend(self.optimizers["behaviour"], log_likelihood_loss(beta.log_prob(batch.action)))
        descend_each((self.optimizers["critics"], [(q, regression_slope(q, y))]))
        polyak_(self.target_critics, self.critics, self.cfg.tau)
        return {**critic_metrics(q, y), "behaviour/loss": behaviour_loss, **actor, **shift}
