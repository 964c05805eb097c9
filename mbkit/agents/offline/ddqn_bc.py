"""Double DQN beside behaviour cloning: it acts greedily among the actions that the data's behaviour would take.

Discrete batch-constrained Q-learning (Fujimoto et al. 2019, arXiv:1910.01708) with networks of their own for values and behaviour, and the
additive form of TD3+BC (arXiv:2106.06860) for discrete actions. Letters: B batch, O observation, A actions, K critics.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from mbkit.agents.base import critic_metrics, descend, descend_each, needs_discrete
from mbkit.agents.offline.base import CriticConfig, OfflineActorCritic
from mbkit.agents.offline.cloning import log_likelihood_loss
from mbkit.fields import at_least, between
from mbkit.networks.distributions import Categorical
from mbkit.networks.heads import ActionValues, taken
from mbkit.networks.optimizers import polyak_
from mbkit.networks.plain import GreedyRule
from mbkit.networks.policy import Logits
from mbkit.networks.values import regression_slope
from mbkit.registry import agents
from mbkit.targets import one_step
from mbkit.types import EnvSpec, Metrics, TargetFn, Transition


@dataclass(frozen=True)
class DDQNBCConfig(CriticConfig):
    """Networks, learning rate and the rule by which values and cloned behaviour choose."""

    critics: int = at_least(1, 1)  # number of critics, K; their minimum chooses and makes targets
    rule: Literal["likely", "sum"] = "likely"  # best Q among likely actions, or largest Q / mean |Q| + alpha log p
    threshold: float = between(0.3, 0, 1, when="rule=likely")  # least p / max p of the cloned behaviour p. Paper: 0.3
    alpha: float = at_least(1.0, 0, when="rule=sum")  # weight of log p beside Q in mean |Q|


def likely(log_prob: Tensor, threshold: float) -> Tensor:
    """Actions with p / max p > threshold, and always the most likely one, bool [B, A], by log p [B, A]."""
    ratio = (log_prob - log_prob.amax(-1, keepdim=True)).exp()
    return (ratio > threshold) | (ratio >= 1)


def best_of_likely(q: Tensor, log_prob: Tensor, threshold: float) -> Tensor:
    """Discrete BCQ (arXiv:1910.01708): argmax of Q over the likely actions, int64 [B]; q and log p [B, A]."""
    return q.masked_fill(~likely(log_prob, threshold), -torch.inf).argmax(-1)


def best_of_sum(q: Tensor, log_prob: Tensor, scale: Tensor, alpha: float) -> Tensor:
    """argmax of Q / scale + alpha log p, int64 [B]; q and log p [B, A], scale = mean |Q|, 0-d."""
    return (q / scale.clamp(min=1e-8) + alpha * log_prob).argmax(-1)


@agents.register("ddqn_bc", DDQNBCConfig, learns_from="dataset", defaults={"env": "CartPole-v1", "steps": 50_000})
class DDQNBC(OfflineActorCritic):
    """Double DQN that chooses among actions of a cloned behaviour."""

    critics: ActionValues
    scale: Tensor  # 0-d, moving average of mean |Q| over batches
    updates: Tensor  # 0-d, updates so far

    def __init__(self, spec: EnvSpec, cfg: DDQNBCConfig, gamma: float = 0.99, target: TargetFn = one_step) -> None:
        needs_discrete("ddqn_bc", spec)
        super().__init__(spec, cfg, gamma, target)
        self.cfg = cfg
        self.behaviour = Logits(spec.obs_dim, spec.action_dim, cfg.hidden)
        self.add_critics(spec, cfg)
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        self.normalize_inputs(spec.obs_dim, cfg.normalize_obs)
        self.to(spec.device)
        self.add_optimizers(cfg.lr, behaviour=self.behaviour, critics=self.critics)

    def greedy_module(self) -> GreedyRule:
        """The rule with its networks, as exports need it."""
        cfg = self.cfg
        if cfg.rule == "likely":
            return GreedyRule(
                lambda obs, critics, behaviour: best_of_likely(critics(obs).amin(0), behaviour(obs), cfg.threshold),
                critics=self.critics,
                behaviour=self.behaviour,
            )
        return GreedyRule(
            lambda obs, critics, behaviour, scale: best_of_sum(critics(obs).amin(0), behaviour(obs), scale, cfg.alpha),
            critics=self.critics,
            behaviour=self.behaviour,
            scale=self.scale,
        )

    def chosen(self, q: Tensor, log_prob: Tensor) -> Tensor:
        """The actions of the rule, int64 [B], by q and log p [B, A]."""
        cfg = self.cfg
        return best_of_likely(q, log_prob, cfg.threshold) if cfg.rule == "likely" else best_of_sum(q, log_prob, self.scale, cfg.alpha)

    def greedy(self, obs: Tensor) -> Tensor:
        """The action of the rule, int64 [B]."""
        return self.chosen(self.critics(obs).amin(0), self.behaviour(obs))

    @torch.no_grad()
    def sample(self, obs: Tensor) -> Tensor:
        """obs [B, O] -> int64 [B]: actions of the cloned behaviour, of its likely ones alone with rule=likely."""
        log_prob = self.behaviour(obs)
        if self.cfg.rule == "likely":
            log_prob = log_prob.masked_fill(~likely(log_prob, self.cfg.threshold), -torch.inf)
        return Categorical(log_prob).sample()

    @torch.no_grad()
    def backup_action(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """The action of the rule by the critics, int64 [B], which the target critics evaluate, and no bonus [B]."""
        return self.greedy(obs), obs.new_zeros(len(obs))

    def update(self, batch: Transition) -> Metrics:
        """One step each on critics and cloned behaviour, then one on the target critics."""
        y = self.target(self, batch, self.gamma)
        values, log_prob = self.critics(batch.obs), self.behaviour(batch.obs)
        q = taken(values, batch.action)
        action = self.chosen(values.detach().amin(0), log_prob.detach())
        shift = self.shift(taken(values[0], action), q[0], action)
        self.updates += 1
        self.scale.lerp_(values.detach().abs().mean(), (1 / self.updates).clamp(min=self.cfg.tau))
        descend_each((self.optimizers["critics"], [(q, regression_slope(q, y))]))
        cloning_loss = descend(self.optimizers["behaviour"], log_likelihood_loss(taken(log_prob, batch.action)))
        polyak_(self.target_critics, self.critics, self.cfg.tau)
        return {**critic_metrics(q, y), "actor/loss": cloning_loss, **shift}
