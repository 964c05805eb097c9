"""Soft actor-critic for discrete actions (Christodoulou 2019, arXiv:1910.07207): every expectation over actions is an exact sum.

V(s) = sum_a pi(a|s) (min_k Q_k(s, a) - alpha log pi(a|s)); with a prior, log(pi / pi0) stands in place of log pi.
Letters: B batch, A actions, K critics, O observation.
"""

import math
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mbkit.agents.actor_critic.sac import temperature_loss
from mbkit.agents.base import LearningAgent, descend, needs_discrete, regression_loss
from mbkit.agents.prior import PriorConfig, make_prior
from mbkit.errors import UserError
from mbkit.fields import at_least, between, positive
from mbkit.networks.distributions import Categorical
from mbkit.networks.heads import ActionValues, taken
from mbkit.networks.optimizers import polyak_
from mbkit.networks.policy import Logits
from mbkit.registry import agents
from mbkit.targets import one_step
from mbkit.types import EnvSpec, Metrics, TargetFn, Transition


@dataclass(frozen=True)
class SACDiscreteConfig(PriorConfig):
    """Networks, temperature and steps."""

    prior: str = "none"  # pi0 of log(pi/pi0); none: plain log pi, entropy. uniform, module:function, or the directory of a run
    hidden: tuple[int, ...] = at_least((256, 256), 1)  # widths of the hidden layers of policy and critics, ReLU between
    lr: float = positive(3e-4)  # Adam's step size, of policy, critics and temperature
    tau: float = between(0.005, 0, 1)  # weight of the new parameters in the slow critics
    critics: int = at_least(2, 1)  # K
    temperature: float | None = at_least(None, 0)  # alpha held fixed; None: learned
    initial_temperature: float = positive(1.0)  # alpha at the beginning, where it is learned
    target_entropy: float | None = None  # nats; None: 0.98 log A. With a prior: minus the divergence from it, None: -0.02 log A


def expected_value(q: Tensor, log_pi: Tensor, log_prior: Tensor | float, alpha: Tensor | float) -> tuple[Tensor, Tensor]:
    """V = sum_a pi (min_k Q_k - alpha log(pi/pi0)) of q [K, B, A], and sum_a pi log(pi/pi0), both [B]; log_prior 0: minus the entropy."""
    pi = log_pi.exp()
    divergence = (pi * (log_pi - log_prior)).sum(-1)
    return (pi * q.amin(0)).sum(-1) - alpha * divergence, divergence


@agents.register("sac_discrete", SACDiscreteConfig, env="CartPole-v1", steps=200_000, loop={"warmup_steps": 1000, "batch_size": 64})
class SACDiscrete(LearningAgent):
    """Soft actor-critic for discrete actions, with exact sums."""

    def __init__(self, spec: EnvSpec, cfg: SACDiscreteConfig, gamma: float = 0.99, target: TargetFn = one_step, prior: Any = None) -> None:
        needs_discrete("sac_discrete", spec.discrete, spec.action_dim)
        super().__init__()
        self.cfg, self.gamma, self.target = cfg, gamma, target
        self.policy = Logits(spec.obs_dim, spec.action_dim, cfg.hidden)
        self.critics = ActionValues(cfg.critics, spec.obs_dim, spec.action_dim, cfg.hidden)
        self.slow_critics = deepcopy(self.critics).requires_grad_(False)
        start = cfg.initial_temperature if cfg.temperature is None else cfg.temperature
        self.log_alpha = nn.Parameter(torch.tensor(start).log(), requires_grad=cfg.temperature is None)
        self.to(spec.device)
        self.add_optimizers(cfg.lr, policy=self.policy, critics=self.critics)
        if cfg.temperature is None:
            self.add_optimizers(cfg.lr, alpha=self.log_alpha)
        self.prior = None if cfg.prior == "none" and prior is None else make_prior(cfg, spec, prior)
        most = 0.98 if self.prior is None else -0.02
        self.target_entropy = most * math.log(spec.action_dim) if cfg.target_entropy is None else cfg.target_entropy
        limit = math.log(spec.action_dim) if self.prior is None else 0.0
        if self.target_entropy > limit:  # the temperature would rise without end
            why = f"no policy of {spec.action_dim} actions has more" if self.prior is None else "minus the divergence from a prior"
            raise UserError(f"agent.target_entropy={cfg.target_entropy:g}: expected at most {limit:.3g} nats, {why}; or null")

    def log_prior(self, obs: Tensor) -> Tensor | float:
        """log pi0 [B, A], or 0 where entropy is counted."""
        return 0.0 if self.prior is None else self.prior.log_probs(obs)  # type: ignore[no-any-return]

    @torch.no_grad()
    def log_probs(self, obs: Tensor) -> Tensor:
        """log pi of every action, [B, A]."""
        log_pi: Tensor = self.policy(obs)
        return log_pi

    def act(self, obs: Tensor, explore: bool = True) -> Tensor:
        """obs [M, O] -> int64 [M]: a sample of the policy, or its likeliest action."""
        log_pi = self.log_probs(obs.to(self.log_alpha.device))
        return Categorical(log_pi).sample() if explore else log_pi.argmax(-1)

    def sample(self, obs: Tensor) -> Tensor:
        """obs [B, O] -> actions int64 [B] of the policy."""
        return Categorical(self.log_probs(obs)).sample()

    @torch.no_grad()
    def value(self, obs: Tensor) -> Tensor:
        """Soft value [B] of obs [B, O] under the slow critics."""
        return expected_value(self.slow_critics(obs), self.policy(obs), self.log_prior(obs), self.log_alpha.exp())[0]

    @torch.no_grad()
    def backup_action(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """a' ~ pi(.|s'), int64 [B], and V(s') - min_k Q_k(s', a'), [B], so that the backup is V(s'), whatever a'."""
        q, log_pi = self.slow_critics(obs), self.policy(obs)
        action = Categorical(log_pi).sample()
        value, _ = expected_value(q, log_pi, self.log_prior(obs), self.log_alpha.exp())
        return action, value - taken(q, action).amin(0)

    @torch.no_grad()
    def backup_q(self, obs: Tensor, action: Tensor) -> Tensor:
        """The slow critics at these actions, [K, B]."""
        return taken(self.slow_critics(obs), action)

    @torch.no_grad()
    def path_bonus(self, obs: Tensor, action: Tensor) -> Tensor:
        """What an n-step backup adds to the reward of a later state, obs [B, O]: alpha times the entropy, or minus the divergence, [B]."""
        log_pi: Tensor = self.policy(obs)
        return -self.log_alpha.exp() * (log_pi.exp() * (log_pi - self.log_prior(obs))).sum(-1)

    def update(self, batch: Transition) -> Metrics:
        """One step on the critics, one on policy and temperature, then one on the slow critics."""
        y = self.target(self, batch, self.gamma)
        q = taken(self.critics(y.obs), y.action)
        critic_loss = descend(self.optimizers["critics"], regression_loss(q, y))
        with torch.no_grad():
            every = self.critics(batch.obs)
        value, divergence = expected_value(every, self.policy(batch.obs), self.log_prior(batch.obs), self.log_alpha.detach().exp())
        policy_loss = descend(self.optimizers["policy"], -value.mean())
        if "alpha" in self.optimizers:
            descend(self.optimizers["alpha"], temperature_loss(self.log_alpha, divergence, self.target_entropy))
        polyak_(self.slow_critics, self.critics, self.cfg.tau)
        kind = "actor/entropy" if self.prior is None else "actor/prior_kl"
        measured = -divergence if self.prior is None else divergence
        actor = {"actor/loss": policy_loss, kind: measured.detach().mean(), "alpha": self.log_alpha.detach().exp()}
        return {"critic/loss": critic_loss, "critic/q": q.detach().mean(), **actor}
