"""Soft actor-critic for continuous actions (Haarnoja et al. 2018, arXiv:1801.01290 and arXiv:1812.05905).

With ten critics of which two are drawn for each target it is REDQ (arXiv:2101.05982), with dropout and layer normalisation DroQ
(arXiv:2110.02034): settings, not other files. Letters: B batch, O observation, A action, K critics, N rows of targets.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from mbkit.agents.actor_critic.ascent import ascend_softly
from mbkit.agents.actor_critic.soft import TemperedAgent, log_temperature, policy_slopes, soft_value, temperature_loss
from mbkit.agents.base import critic_metrics, needs_continuous, regress
from mbkit.agents.critics import CriticOptions, check_form, check_subset
from mbkit.fields import at_least, between, option, positive
from mbkit.networks.heads import Critics, target_network
from mbkit.networks.optimizers import descend_together, learning_rate, polyak_
from mbkit.networks.passes import CriticPass
from mbkit.networks.policy import TanhGaussian
from mbkit.networks.squashed import SquashedPass
from mbkit.registry import agents
from mbkit.streams import uniform
from mbkit.targets import bootstrapped, one_step
from mbkit.types import EnvSpec, Metrics, PolicyObjective, TargetFn, Transition


@dataclass(frozen=True)
class SACConfig(CriticOptions):
    """Networks, learning rate and temperature; the defaults are those of arXiv:1812.05905."""

    hidden: tuple[int, ...] = at_least((256, 256), 1)  # widths of the hidden layers of policy and critics, ReLU between
    lr: float = positive(3e-4)  # Adam learning rate of policy, critics and temperature
    policy_lr: float | None = positive(None)  # Adam learning rate of policy and temperature; null: lr. OfflineRL-Kit: 1e-4
    final_lr: float | None = at_least(None, 0)  # lr at the end of the run, after a line; policy_lr in proportion; null: constant
    tau: float = between(0.005, 0, 1)  # weight of the new parameters in the target critics
    critics: int = at_least(2, 1)  # number of critics, K. REDQ: 10
    target_subset: int | None = at_least(None, 1, when="critics!=1")  # critics drawn for each target's minimum; null: all. REDQ: 2
    policy_every: int = at_least(1, 1)  # critic updates for each update of policy and temperature. REDQ, DroQ: 20
    policy_q: Literal["min", "mean"] = option("min", when="critics!=1")  # reduction over critics in the policy loss. REDQ, DroQ: mean
    backup_entropy: bool = True  # entropy bonus in the targets. MOBILE: false
    temperature: float | None = at_least(None, 0)  # fixed temperature alpha; null: learned. arXiv:1801.01290: fixed, mbrl-lib's MBPO: 0.2
    initial_temperature: float = positive(1.0, when="temperature=null")  # initial value of a learned temperature
    target_entropy: float | None = option(None, when="temperature=null")  # target entropy of the policy, nats; null: -A, as in the paper
    normalize_obs: bool = False  # normalisation of observations by mean and standard deviation of the warm-up, then fixed


@agents.register("sac", SACConfig, defaults={"env": "InvertedPendulum-v5", "steps": 20_000, "loop": {"warmup_steps": 1000}})
class SAC(TemperedAgent):
    """Soft actor-critic: a stochastic policy that maximises return plus entropy."""

    stackable = acts_by_sampling = takes_objective = True
    last: Tensor  # [2] loss and entropy of the policy at its last update

    def __init__(
        self, spec: EnvSpec, cfg: SACConfig, gamma: float = 0.99, target: TargetFn = one_step, objective: PolicyObjective | None = None
    ) -> None:
        needs_continuous("sac", spec)
        check_subset(cfg.target_subset, cfg.critics, cfg.critic_form)
        super().__init__()
        self.cfg, self.gamma, self.target, self.objective = cfg, gamma, target, objective
        self.device, self.cycle = spec.device, cfg.policy_every
        self.policy = TanhGaussian(spec.obs_dim, spec.action_dim, cfg.hidden)
        self.critics = Critics(cfg.critics, spec.obs_dim, spec.action_dim, cfg.hidden, check_form(cfg.critic_form, target))
        self.target_critics = target_network(self.critics)
        self.log_alpha = log_temperature(cfg.temperature, cfg.initial_temperature)
        self.target_entropy = -float(spec.action_dim) if cfg.target_entropy is None else cfg.target_entropy
        self.register_buffer("last", torch.zeros(2))
        self.normalize_inputs(spec.obs_dim, cfg.normalized_inputs)
        self.to(spec.device)
        self.add_optimizers(learning_rate(cfg.policy_lr or cfg.lr, self.device), policy=self.policy, alpha=self.log_alpha)
        self.add_optimizers(cfg.lr, critics=self.critics)
        self.let_rates_fall(cfg.lr, cfg.final_lr)

    @torch.no_grad()
    def act(self, obs: Tensor, explore: bool = True) -> Tensor:
        """obs [M, O] -> [M, A]: a sample of the policy, or tanh of its mean."""
        obs = obs.to(self.device)
        return self.sample(obs) if explore else self.policy.mode(obs)

    @torch.no_grad()
    def sample(self, obs: Tensor) -> Tensor:
        """obs [B, O] -> actions [B, A] of the policy."""
        return self.policy.rsample(obs)[0]

    @torch.no_grad()
    def value(self, obs: Tensor) -> Tensor:
        """Soft value [B] of obs [B, O] under the target critics, by one action each."""
        action, log_prob = self.policy.rsample(obs)
        return soft_value(self.target_critics(obs, action), log_prob, self.alpha)

    @torch.no_grad()
    def backup_action(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """a' ~ pi(.|s') [B, A] and its entropy bonus -alpha log pi(a'|s') [B], or none."""
        action, log_prob = self.policy.rsample(obs)
        return action, -self.alpha[..., None] * log_prob if self.cfg.backup_entropy else torch.zeros_like(log_prob)

    @torch.no_grad()
    def backup_q(self, obs: Tensor, action: Tensor) -> Tensor:
        """The target critics, [K, B], or those drawn for this target."""
        q: Tensor = self.target_critics(obs, action)
        if self.cfg.target_subset is None:
            return q
        drawn = uniform(len(q), q.device).argsort(-1)[..., : self.cfg.target_subset]  # Paper: one draw for each update, as here
        return q.take_along_dim(drawn.movedim(-1, 0)[..., None], 0)

    @torch.no_grad()
    def path_bonus(self, obs: Tensor, action: Tensor) -> Tensor:
        """The term that an n-step backup adds to the reward of a later state, [B]: -alpha log pi of a fresh action at obs [B, O]."""
        return self.backup_action(obs)[1]

    def update_policy(self, obs: Tensor, sample: SquashedPass, alpha: Tensor) -> None:
        """One step on policy and temperature each, by the policy's sample at obs [B, O]."""
        (action, log_prob), mean = sample.second, self.cfg.policy_q == "mean"
        forward = CriticPass(self.critics, obs, action, fixed=True)
        q_slope, log_prob_slope = policy_slopes(forward.q, alpha, mean)  # eq. 7
        steps = [(self.optimizers["policy"], sample.gradients(forward.action_gradient(q_slope), log_prob_slope))]
        if "alpha" in self.optimizers:
            steps.append((self.optimizers["alpha"], [temperature_loss(self.log_alpha.detach().exp(), log_prob, self.target_entropy)]))
        descend_together(*steps)
        if self.measures or self.cycle > 1:
            self.last.copy_(torch.stack((-soft_value(forward.q, log_prob, alpha, mean).mean(-1), -log_prob.mean(-1))))

    def update(self, batch: Transition) -> Metrics:
        """One step on the critics, where it is due one on policy and temperature, then one on the target critics."""
        cfg, alpha, sample = self.cfg, self.alpha, None
        self.count = (self.count + 1) % self.cycle
        plain = self.objective is None and cfg.backup_entropy and cfg.target_subset is None and self.backs_up_values
        if self.count == 0 and plain and self.target is one_step:  # `one_step`, by one pass of the policy that serves its own loss too
            sample = self.policy.sampled(batch.obs, before=batch.next_obs)
            action, log_prob = sample.first
            y = bootstrapped(batch, soft_value(self.backup_q(batch.next_obs, action), log_prob, alpha), self.gamma)
        else:
            y = self.targets(batch)
        q = regress(self.optimizers["critics"], self.critics, y)  # eq. 5
        if self.count == 0 and self.objective is not None:
            self.last.copy_(ascend_softly(self, self.objective, batch.obs, alpha, cfg.policy_q == "mean"))
        elif self.count == 0:
            self.update_policy(batch.obs, sample or self.policy.sampled(batch.obs), alpha)
        polyak_(self.target_critics, self.critics, cfg.tau)
        if not self.measures:
            return {}
        policy_loss, entropy = self.last.clone()
        return {**critic_metrics(q, y, self.critics), "actor/loss": policy_loss, "actor/entropy": entropy, "alpha": self.alpha}
