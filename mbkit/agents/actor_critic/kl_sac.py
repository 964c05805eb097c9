"""Soft actor-critic that stays near a prior pi0, of continuous or discrete actions: log(pi / pi0) stands wherever SAC has log pi.

V(s) = E_pi[min_k Q_k(s, a) - alpha log(pi(a|s) / pi0(a|s))]; SAC: arXiv:1812.05905, the prior: Galashov et al. 2019, arXiv:1905.01240.
With the uniform prior it is SAC whose Q is lower by a constant. Letters: B batch, O observation, A dimensions of an action or number of
discrete actions, K critics, M environments.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mbkit.agents.actor_critic.sac_discrete import expected_value
from mbkit.agents.actor_critic.soft import TemperedAgent, log_temperature, temperature_loss
from mbkit.agents.base import critic_metrics, descend, needs_one_action, regress
from mbkit.agents.critics import CriticOptions, check_form
from mbkit.agents.prior import INSIDE, ContinuousPrior, PriorConfig, PriorPolicy, make_prior
from mbkit.fields import at_least, between, positive
from mbkit.networks.distributions import Categorical
from mbkit.networks.heads import ActionValues, Critics, q_of, target_network
from mbkit.networks.optimizers import polyak_
from mbkit.networks.policy import Logits, TanhGaussian
from mbkit.registry import agents
from mbkit.targets import one_step
from mbkit.types import EnvSpec, Metrics, TargetFn, Transition


@dataclass(frozen=True)
class KLSACConfig(PriorConfig, CriticOptions):
    """Networks, learning rate, temperature and prior; options that SAC has too are SAC's."""

    hidden: tuple[int, ...] = at_least((256, 256), 1)  # widths of the hidden layers of policy and critics, ReLU between
    lr: float = positive(3e-4)  # Adam learning rate of policy, critics and temperature
    tau: float = between(0.005, 0, 1)  # weight of the new parameters in the target critics
    critics: int = at_least(2, 1)  # number of critics, K
    policy_every: int = at_least(1, 1)  # critic updates for each update of policy and temperature
    temperature: float | None = at_least(None, 0)  # fixed temperature alpha; null: learned, so that the divergence is near its target
    initial_temperature: float = positive(1.0, when="temperature=null")  # initial value of a learned temperature
    target_kl: float | None = at_least(None, 0, when="temperature=null")  # target divergence from the prior, nats; null: that of SAC's
    # target entropy from the uniform prior, A (1 + log 2) for continuous actions, 0.02 log A for discrete ones
    normalize_obs: bool = False  # normalisation of observations by mean and standard deviation of the warm-up, then fixed


def default_target_kl(spec: EnvSpec) -> float:
    """The divergence from the uniform prior at SAC's default target entropy, nats: A log 2 - (-A), or log A - 0.98 log A."""
    return 0.02 * math.log(spec.action_dim) if spec.discrete else spec.action_dim * (1 + math.log(2))


def log_ratio(policy: TanhGaussian, prior: ContinuousPrior, obs: Tensor) -> tuple[Tensor, Tensor]:
    """a ~ pi(.|s), reparameterised [B, A], and log(pi(a|s) / pi0(a|s)) [B], a sample of the divergence; gradients pass through both."""
    action, log_prob = policy.rsample(obs)
    return action, log_prob - prior.log_prob(obs, action.clamp(-INSIDE, INSIDE))


@agents.register("kl_sac", KLSACConfig, defaults={"env": "InvertedPendulum-v5", "steps": 20_000, "loop": {"warmup_steps": 1000}})
class KLSAC(TemperedAgent):
    """Soft actor-critic with a cost of divergence from a prior policy."""

    acts_by_sampling = True

    last: Tensor  # [2] loss of the policy and divergence from the prior at its last update

    def __init__(
        self, spec: EnvSpec, cfg: KLSACConfig, gamma: float = 0.99, target: TargetFn = one_step, prior: PriorPolicy | None = None
    ) -> None:
        super().__init__()
        needs_one_action("kl_sac", spec)
        self.cfg, self.gamma, self.target, self.device = cfg, gamma, target, spec.device
        sizes = spec.obs_dim, spec.action_dim, cfg.hidden
        self.policy: Logits | TanhGaussian = Logits(*sizes) if spec.discrete else TanhGaussian(*sizes)
        self.critics: ActionValues | Critics = (ActionValues if spec.discrete else Critics)(
            cfg.critics, *sizes, check_form(cfg.critic_form, target)
        )
        self.target_critics = target_network(self.critics)
        self.log_alpha = log_temperature(cfg.temperature, cfg.initial_temperature)
        self.target_kl = default_target_kl(spec) if cfg.target_kl is None else cfg.target_kl
        self.cycle = cfg.policy_every
        self.register_buffer("last", torch.zeros(2))
        self.normalize_inputs(spec.obs_dim, cfg.normalized_inputs)
        self.to(spec.device)
        self.add_optimizers(cfg.lr, policy=self.policy, critics=self.critics, alpha=self.log_alpha)
        self.prior = make_prior(cfg, spec, prior)

    @torch.no_grad()
    def act(self, obs: Tensor, explore: bool = True) -> Tensor:
        """obs [M, O] -> [M, A], or int64 [M]: a sample of the policy; without exploration tanh of its mean, or its most likely action."""
        obs = obs.to(self.device)
        if explore:
            return self.sample(obs)
        return self.log_probs(obs).argmax(-1) if isinstance(self.policy, Logits) else self.policy.mode(obs)

    @torch.no_grad()
    def sample(self, obs: Tensor) -> Tensor:
        """obs [B, O] -> actions of the policy, [B, A] or int64 [B]."""
        return Categorical(self.policy(obs)).sample() if isinstance(self.policy, Logits) else self.policy.rsample(obs)[0]

    @torch.no_grad()
    def log_probs(self, obs: Tensor) -> Tensor:
        """log pi of all discrete actions, [B, A]."""
        log_pi: Tensor = self.policy(obs)
        return log_pi

    def soft_value(self, critics: ActionValues | Critics, obs: Tensor) -> tuple[Tensor, Tensor]:
        """V(s) = E_pi[min_k Q_k - alpha log(pi/pi0)] of constant critics, and the divergence, both [B]; an exact sum, or one sample."""
        alpha = self.alpha
        if isinstance(self.policy, Logits):
            with torch.no_grad():
                q = critics(obs)
            return expected_value(q, self.policy(obs), self.prior.log_probs(obs), alpha)
        action, divergence = log_ratio(self.policy, self.prior, obs)
        return critics(obs, action, fixed=True).amin(0) - alpha * divergence, divergence

    @torch.no_grad()
    def value(self, obs: Tensor) -> Tensor:
        """Soft value [B] of obs [B, O] under the target critics; of one action each where actions are continuous."""
        return self.soft_value(self.target_critics, obs)[0]

    @torch.no_grad()
    def backup_action(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """a' ~ pi(.|s') and its bonus -alpha log(pi/pi0)(a') [B]; discrete: V(s') - min_k Q_k(s', a'), so that the backup is V(s')."""
        if isinstance(self.policy, Logits):
            action = self.sample(obs)
            return action, self.value(obs) - self.backup_q(obs, action).amin(0)
        action, divergence = log_ratio(self.policy, self.prior, obs)
        return action, -self.alpha * divergence

    @torch.no_grad()
    def backup_q(self, obs: Tensor, action: Tensor) -> Tensor:
        """The target critics, [K, B]."""
        return q_of(self.target_critics, obs, action)

    @torch.no_grad()
    def path_bonus(self, obs: Tensor, action: Tensor) -> Tensor:
        """The term that an n-step backup adds to the reward of a later state, obs [B, O]: minus alpha times the divergence, [B]."""
        return -self.alpha * self.soft_value(self.target_critics, obs)[1]

    def update(self, batch: Transition) -> Metrics:
        """One step on the critics, where it is due one on policy and temperature, then one on the target critics."""
        y = self.targets(batch)
        q = regress(self.optimizers["critics"], self.critics, y)
        self.count = (self.count + 1) % self.cycle
        if self.count == 0:
            value, divergence = self.soft_value(self.critics, batch.obs)
            self.last.copy_(torch.stack((descend(self.optimizers["policy"], -value.mean()), divergence.detach().mean())))
            if "alpha" in self.optimizers:
                self.optimizers["alpha"].descend([temperature_loss(self.log_alpha.detach().exp(), divergence, -self.target_kl)])
        polyak_(self.target_critics, self.critics, self.cfg.tau)
        loss, divergence = self.last.clone()
        return {**critic_metrics(q, y, self.critics), "actor/loss": loss, "actor/prior_kl": divergence, "alpha": self.alpha}
