"""Soft actor-critic that stays near a prior pi0, of continuous or discrete actions: log(pi / pi0) stands wherever SAC has log pi.

V(s) = E_pi[min_k Q_k(s, a) - alpha log(pi(a|s) / pi0(a|s))]; SAC: arXiv:1812.05905, the prior: Galashov et al. 2019, arXiv:1905.01240.
With the uniform prior it is SAC whose Q is lower by a constant. Letters: B batch, O observation, A dimensions or choices, K critics.
"""

import math
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mbkit.agents.actor_critic.sac import temperature_loss
from mbkit.agents.actor_critic.sac_discrete import expected_value
from mbkit.agents.base import LearningAgent, descend, regression_loss
from mbkit.agents.prior import INSIDE, PriorConfig, make_prior
from mbkit.fields import at_least, between, positive
from mbkit.networks.distributions import Categorical
from mbkit.networks.heads import ActionValues, Critics, taken
from mbkit.networks.optimizers import polyak_
from mbkit.networks.policy import Logits, TanhGaussian
from mbkit.registry import agents
from mbkit.targets import one_step
from mbkit.types import EnvSpec, Metrics, TargetFn, Transition


@dataclass(frozen=True)
class KLSACConfig(PriorConfig):
    """Networks, temperature, prior; what SAC has too is as in SAC."""

    hidden: tuple[int, ...] = at_least((256, 256), 1)  # widths of the hidden layers of policy and critics, ReLU between
    lr: float = positive(3e-4)  # Adam's step size, of policy, critics and temperature
    tau: float = between(0.005, 0, 1)  # weight of the new parameters in the slow critics
    critics: int = at_least(2, 1)  # K
    temperature: float | None = at_least(None, 0)  # alpha held fixed; None: learned, so that the divergence is near its target
    initial_temperature: float = positive(1.0)  # alpha at the beginning, where it is learned
    target_kl: float | None = at_least(None, 0)  # nats from the prior; None: as SAC from the uniform one, A (1 + log 2), or 0.02 log A


def usual_divergence(spec: EnvSpec) -> float:
    """How far from the uniform prior SAC's usual target entropy is, nats: A log 2 - (-A), or log A - 0.98 log A."""
    return 0.02 * math.log(spec.action_dim) if spec.discrete else spec.action_dim * (1 + math.log(2))


def log_ratio(policy: TanhGaussian, prior: Any, obs: Tensor) -> tuple[Tensor, Tensor]:
    """a ~ pi(.|s), reparameterised [B, A], and log(pi(a|s) / pi0(a|s)) [B], a sample of the divergence; gradients pass through both."""
    action, log_prob = policy.rsample(obs)
    return action, log_prob - prior.log_prob(obs, action.clamp(-INSIDE, INSIDE))


@agents.register("kl_sac", KLSACConfig, env="InvertedPendulum-v5", steps=20_000, loop={"warmup_steps": 1000})
class KLSAC(LearningAgent):
    """Soft actor-critic that pays for its divergence from a prior policy."""

    def __init__(self, spec: EnvSpec, cfg: KLSACConfig, gamma: float = 0.99, target: TargetFn = one_step, prior: Any = None) -> None:
        super().__init__()
        self.cfg, self.gamma, self.target, self.discrete = cfg, gamma, target, spec.discrete
        self.policy: Any = (Logits if spec.discrete else TanhGaussian)(spec.obs_dim, spec.action_dim, cfg.hidden)
        self.critics: Any = (ActionValues if spec.discrete else Critics)(cfg.critics, spec.obs_dim, spec.action_dim, cfg.hidden)
        self.slow_critics: Any = deepcopy(self.critics).requires_grad_(False)
        start = cfg.initial_temperature if cfg.temperature is None else cfg.temperature
        self.log_alpha = nn.Parameter(torch.tensor(start).log(), requires_grad=cfg.temperature is None)
        self.target_kl = usual_divergence(spec) if cfg.target_kl is None else cfg.target_kl
        self.to(spec.device)
        self.add_optimizers(cfg.lr, policy=self.policy, critics=self.critics)
        if cfg.temperature is None:
            self.add_optimizers(cfg.lr, alpha=self.log_alpha)
        self.prior = make_prior(cfg, spec, prior)

    @torch.no_grad()
    def act(self, obs: Tensor, explore: bool = True) -> Tensor:
        """obs [M, O] -> [M, A], or int64 [M]: a sample of the policy, or tanh of its mean, the likeliest choice."""
        obs = obs.to(self.log_alpha.device)
        if explore:
            return self.sample(obs)
        action: Tensor = self.policy(obs).argmax(-1) if self.discrete else self.policy.mode(obs)
        return action

    @torch.no_grad()
    def sample(self, obs: Tensor) -> Tensor:
        """obs [B, O] -> actions of the policy, [B, A] or int64 [B]."""
        action: Tensor = Categorical(self.policy(obs)).sample() if self.discrete else self.policy.rsample(obs)[0]
        return action

    @torch.no_grad()
    def log_probs(self, obs: Tensor) -> Tensor:
        """log pi of every choice, [B, A]; discrete actions only."""
        log_pi: Tensor = self.policy(obs)
        return log_pi

    def soft_value(self, critics: Any, obs: Tensor) -> tuple[Tensor, Tensor]:
        """V(s) = E_pi[min_k Q_k - alpha log(pi/pi0)] of constant critics, and the divergence, both [B]; an exact sum, or one sample."""
        alpha = self.log_alpha.detach().exp()
        if self.discrete:
            with torch.no_grad():
                q = critics(obs)
            return expected_value(q, self.policy(obs), self.prior.log_probs(obs), alpha)
        action, divergence = log_ratio(self.policy, self.prior, obs)
        return critics(obs, action, fixed=True).amin(0) - alpha * divergence, divergence

    @torch.no_grad()
    def value(self, obs: Tensor) -> Tensor:
        """Soft value [B] of obs [B, O] under the slow critics; of one action each where they are continuous."""
        return self.soft_value(self.slow_critics, obs)[0]

    @torch.no_grad()
    def backup_action(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """a' ~ pi(.|s') and its bonus -alpha log(pi/pi0)(a') [B]; choices: V(s') - min_k Q_k(s', a'), so that the backup is V(s')."""
        if self.discrete:
            action = Categorical(self.policy(obs)).sample()
            return action, self.value(obs) - self.backup_q(obs, action).amin(0)
        action, divergence = log_ratio(self.policy, self.prior, obs)
        return action, -self.log_alpha.exp() * divergence

    @torch.no_grad()
    def backup_q(self, obs: Tensor, action: Tensor) -> Tensor:
        """The slow critics, [K, B]."""
        q: Tensor = taken(self.slow_critics(obs), action) if self.discrete else self.slow_critics(obs, action)
        return q

    @torch.no_grad()
    def path_bonus(self, obs: Tensor, action: Tensor) -> Tensor:
        """What an n-step backup adds to the reward of a later state, obs [B, O]: -alpha times the divergence, of a fresh action, [B]."""
        return -self.log_alpha.exp() * self.soft_value(self.slow_critics, obs)[1]

    def update(self, batch: Transition) -> Metrics:
        """One step on the critics, one on policy and temperature, then one on the slow critics."""
        y = self.target(self, batch, self.gamma)
        q = taken(self.critics(y.obs), y.action) if self.discrete else self.critics(y.obs, y.action)
        critic_loss = descend(self.optimizers["critics"], regression_loss(q, y))
        value, divergence = self.soft_value(self.critics, batch.obs)
        policy_loss = descend(self.optimizers["policy"], -value.mean())
        if "alpha" in self.optimizers:
            descend(self.optimizers["alpha"], temperature_loss(self.log_alpha, divergence, -self.target_kl))
        polyak_(self.slow_critics, self.critics, self.cfg.tau)
        actor = {"actor/loss": policy_loss, "actor/prior_kl": divergence.detach().mean(), "alpha": self.log_alpha.detach().exp()}
        return {"critic/loss": critic_loss, "critic/q": q.detach().mean(), **actor}
