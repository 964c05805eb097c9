"""Soft actor-critic for discrete actions (Christodoulou 2019, arXiv:1910.07207): every expectation over actions is an exact sum.

V(s) = sum_a pi(a|s) (min_k Q_k(s, a) - alpha log pi(a|s)); with a prior, log(pi / pi0) stands in place of log pi.
Letters: B batch, A actions, K critics, O observation, M environments.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mbkit.agents.actor_critic.soft import TemperedAgent, log_temperature, temperature_loss
from mbkit.agents.base import critic_metrics, descend, needs_discrete, regress
from mbkit.agents.critics import CriticOptions, check_form
from mbkit.agents.prior import PriorConfig, PriorPolicy, make_prior
from mbkit.errors import UserError
from mbkit.fields import at_least, between, option, positive
from mbkit.networks.distributions import Categorical
from mbkit.networks.heads import ActionValues, taken, target_network
from mbkit.networks.optimizers import polyak_
from mbkit.networks.policy import Logits
from mbkit.registry import agents
from mbkit.targets import one_step
from mbkit.types import EnvSpec, Metrics, TargetFn, Transition


@dataclass(frozen=True)
class SACDiscreteConfig(PriorConfig, CriticOptions):
    """Networks, learning rate, temperature and prior."""

    prior: str = "none"  # prior pi0 of log(pi/pi0); none: entropy, log pi. uniform, module:function, or the directory of a run
    prior_uniform: float = between(0.0, 0, 1, when="prior!=none, prior!=uniform")  # share of the uniform distribution in the prior
    hidden: tuple[int, ...] = at_least((256, 256), 1)  # widths of the hidden layers of policy and critics, ReLU between
    lr: float = positive(3e-4)  # Adam learning rate of policy, critics and temperature
    tau: float = between(0.005, 0, 1)  # weight of the new parameters in the target critics
    critics: int = at_least(2, 1)  # number of critics, K
    policy_every: int = at_least(1, 1)  # critic updates for each update of policy and temperature
    temperature: float | None = at_least(None, 0)  # fixed temperature alpha; null: learned
    initial_temperature: float = positive(1.0, when="temperature=null")  # initial value of a learned temperature
    target_entropy: float | None = option(None, when="temperature=null")  # target entropy of the policy, nats; null: 0.98 log A. With a
    # prior: minus the target divergence from it; null: -0.02 log A
    normalize_obs: bool = False  # normalisation of observations by mean and standard deviation of the warm-up, then fixed


def expected_value(q: Tensor, log_pi: Tensor, log_prior: Tensor | float, alpha: Tensor | float) -> tuple[Tensor, Tensor]:
    """V = sum_a pi (min_k Q_k - alpha log(pi/pi0)) of q [K, B, A], and sum_a pi log(pi/pi0), both [B]; log_prior 0: minus the entropy."""
    pi = log_pi.exp()
    divergence = (pi * (log_pi - log_prior)).sum(-1)
    return (pi * q.amin(0)).sum(-1) - alpha * divergence, divergence


@agents.register(
    "sac_discrete", SACDiscreteConfig, defaults={"env": "CartPole-v1", "steps": 200_000, "loop": {"warmup_steps": 1000, "batch_size": 64}}
)
class SACDiscrete(TemperedAgent):
    """Soft actor-critic for discrete actions, with exact sums."""

    acts_by_sampling = True

    last: Tensor  # [2] loss of the policy and divergence from the prior, or minus the entropy, at its last update

    def __init__(
        self, spec: EnvSpec, cfg: SACDiscreteConfig, gamma: float = 0.99, target: TargetFn = one_step, prior: PriorPolicy | None = None
    ) -> None:
        needs_discrete("sac_discrete", spec)
        super().__init__()
        self.cfg, self.gamma, self.target, self.device = cfg, gamma, target, spec.device
        self.cycle = cfg.policy_every
        self.policy = Logits(spec.obs_dim, spec.action_dim, cfg.hidden)
        self.critics = ActionValues(cfg.critics, spec.obs_dim, spec.action_dim, cfg.hidden, check_form(cfg.critic_form, target))
        self.target_critics = target_network(self.critics)
        self.log_alpha = log_temperature(cfg.temperature, cfg.initial_temperature)
        self.register_buffer("last", torch.zeros(2))
        self.normalize_inputs(spec.obs_dim, cfg.normalized_inputs)
        self.to(spec.device)
        self.add_optimizers(cfg.lr, policy=self.policy, critics=self.critics, alpha=self.log_alpha)
        self.prior = None if cfg.prior == "none" and prior is None else make_prior(cfg, spec, prior)
        usual, limit, why = 0.98, math.log(spec.action_dim), f"no policy of {spec.action_dim} actions has more"
        if self.prior is not None:
            usual, limit, why = -0.02, 0.0, "minus the divergence from a prior"
        self.target_entropy = usual * math.log(spec.action_dim) if cfg.target_entropy is None else cfg.target_entropy
        if self.target_entropy > limit:  # the temperature would rise without end
            raise UserError(f"agent.target_entropy={cfg.target_entropy:g}: expected at most {limit:.3g} nats, {why}; or null")

    def log_prior(self, obs: Tensor) -> Tensor | float:
        """log pi0 [B, A], or 0 without a prior, whose divergence is minus the entropy."""
        return 0.0 if self.prior is None else self.prior.log_probs(obs)

    @torch.no_grad()
    def log_probs(self, obs: Tensor) -> Tensor:
        """log pi of all actions, [B, A]."""
        log_pi: Tensor = self.policy(obs)
        return log_pi

    def act(self, obs: Tensor, explore: bool = True) -> Tensor:
        """obs [M, O] -> int64 [M]: a sample of the policy, or its most likely action."""
        obs = obs.to(self.device)
        return self.sample(obs) if explore else self.log_probs(obs).argmax(-1)

    def sample(self, obs: Tensor) -> Tensor:
        """obs [B, O] -> actions int64 [B] of the policy."""
        return Categorical(self.log_probs(obs)).sample()

    @torch.no_grad()
    def value(self, obs: Tensor) -> Tensor:
        """Soft value [B] of obs [B, O] under the target critics."""
        return expected_value(self.target_critics(obs), self.policy(obs), self.log_prior(obs), self.alpha)[0]

    @torch.no_grad()
    def backup_action(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """a' ~ pi(.|s'), int64 [B], and V(s') - min_k Q_k(s', a'), [B], so that the backup is V(s') for any a'."""
        q, log_pi = self.target_critics(obs), self.policy(obs)
        action = Categorical(log_pi).sample()
        value, _ = expected_value(q, log_pi, self.log_prior(obs), self.alpha)
        return action, value - taken(q, action).amin(0)

    @torch.no_grad()
    def backup_q(self, obs: Tensor, action: Tensor) -> Tensor:
        """The target critics at these actions, [K, B]."""
        return taken(self.target_critics(obs), action)

    @torch.no_grad()
    def path_bonus(self, obs: Tensor, action: Tensor) -> Tensor:
        """The term that an n-step backup adds to the reward of a later state, [B]: alpha times the entropy, or minus the divergence."""
        log_pi: Tensor = self.policy(obs)
        return -self.alpha * (log_pi.exp() * (log_pi - self.log_prior(obs))).sum(-1)

    def update_policy(self, obs: Tensor) -> Tensor:
        """One step on policy and temperature each; `last`."""
        with torch.no_grad():
            q = self.critics(obs)
        value, divergence = expected_value(q, self.policy(obs), self.log_prior(obs), self.alpha)
        loss = descend(self.optimizers["policy"], -value.mean())
        if "alpha" in self.optimizers:
            self.optimizers["alpha"].descend([temperature_loss(self.log_alpha.detach().exp(), divergence, self.target_entropy)])
        return torch.stack((loss, divergence.detach().mean()))

    def update(self, batch: Transition) -> Metrics:
        """One step on the critics, where it is due one on policy and temperature, then one on the target critics."""
        y = self.targets(batch)
        q = regress(self.optimizers["critics"], self.critics, y)
        self.count = (self.count + 1) % self.cycle
        if self.count == 0:
            self.last.copy_(self.update_policy(batch.obs))
        polyak_(self.target_critics, self.critics, self.cfg.tau)
        loss, divergence = self.last.clone()
        measure = {"actor/entropy": -divergence} if self.prior is None else {"actor/prior_kl": divergence}
        return {**critic_metrics(q, y, self.critics), "actor/loss": loss, **measure, "alpha": self.alpha}
