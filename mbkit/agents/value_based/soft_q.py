"""Soft Q-learning with a prior pi0 (Haarnoja et al. 2017, arXiv:1702.08165; with a prior Schulman, Chen and Abbeel 2017, arXiv:1704.06440).

y = r + gamma V(s') with V = alpha log sum_a pi0 exp(Q / alpha): the best value of return minus alpha D_KL(pi | pi0), which
pi = pi0 exp((Q - V) / alpha) attains. Letters: B batch, K = 1 critic, A actions, O observation.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from mbkit.agents.base import descend_each
from mbkit.agents.prior import Prior, PriorConfig, PriorPolicy, make_prior
from mbkit.agents.value_based.base import ValueAgent, ValueConfig, gradient_scaled
from mbkit.agents.value_based.regression import taken_slope
from mbkit.fields import at_least, between, positive
from mbkit.networks.distributions import Categorical
from mbkit.networks.heads import ActionValues, taken
from mbkit.networks.plain import GreedyRule
from mbkit.registry import agents
from mbkit.targets import one_step
from mbkit.types import EnvSpec, Metrics, TargetFn, Transition


@dataclass(frozen=True)
class SoftQConfig(PriorConfig, ValueConfig):
    """Network, regression, temperature, prior and target network. The policy itself explores, so epsilon is 0 by default."""

    parameterization: Literal["naive", "dueling", "pgq"] = "naive"  # form of Q: Q, V + alpha log(pi/pi0), V + alpha (log(pi/pi0) - KL)
    temperature: float = positive(0.1)  # temperature alpha, in units of reward
    advantage_scale: float | None = at_least(None, 0, when="parameterization=dueling")  # gradient scale of log pi; null: 1/alpha
    value_scale: float = at_least(0.5, 0, when="parameterization=dueling")  # gradient scale of V, an actor-critic's value coefficient
    epsilon: float = between(0.0, 0, 1)  # initial probability of a uniformly random action, after the warm-up
    final_epsilon: float = between(0.0, 0, 1)  # final probability of a uniformly random action


def soft_value(q: Tensor, log_prior: Tensor, alpha: float) -> Tensor:
    """V = alpha log sum_a pi0 exp(Q / alpha), [..., A] -> [...]; log_prior 0 instead of -log A counts entropy instead of -KL."""
    return alpha * (log_prior + q / alpha).logsumexp(-1)


def soft_policy(q: Tensor, log_prior: Tensor, alpha: float) -> Tensor:
    """log pi = log pi0 + (Q - V) / alpha, [..., A]."""
    return (log_prior + q / alpha).log_softmax(-1)


def kl(log_pi: Tensor, log_prior: Tensor) -> Tensor:
    """D_KL(pi | pi0) = sum_a pi log(pi / pi0), [..., A] -> [...]."""
    return (log_pi.exp() * (log_pi - log_prior)).sum(-1)


def dueling(value: Tensor, log_pi: Tensor, log_prior: Tensor, alpha: float) -> Tensor:
    """Q = V + alpha log(pi / pi0), as in arXiv:1704.06440: V is then the soft value of Q."""
    return value[..., None] + alpha * (log_pi - log_prior)


def pgq(value: Tensor, log_pi: Tensor, log_prior: Tensor, alpha: float) -> Tensor:
    """Q = V + alpha (log(pi / pi0) - KL), so that <pi, Q> = V; O'Donoghue et al. 2017, arXiv:1611.01626, where pi0 is uniform."""
    return dueling(value - alpha * kl(log_pi, log_prior), log_pi, log_prior, alpha)


@agents.register("soft_q", SoftQConfig, defaults={"env": "CartPole-v1", "steps": 100_000, "loop": {"warmup_steps": 1000, "batch_size": 64}})
class SoftQ(ValueAgent):
    """Soft Q-learning: values of return minus the divergence from a prior."""

    name = "soft_q"
    cfg: SoftQConfig

    def __init__(
        self, spec: EnvSpec, cfg: SoftQConfig, gamma: float = 0.99, target: TargetFn = one_step, prior: PriorPolicy | None = None
    ) -> None:
        super().__init__(spec, cfg, gamma, target)
        self.alpha = cfg.temperature
        self.prior = make_prior(cfg, spec, prior)

    def make_network(self, spec: EnvSpec) -> ActionValues:
        """obs [B, O] -> Q [1, B, A]; dueling and pgq: logits of pi and V, [1, B, A + 1], from the same hidden layers."""
        return ActionValues(1, spec.obs_dim, spec.action_dim + (self.cfg.parameterization != "naive"), self.cfg.hidden)

    def values(self, network: nn.Module, obs: Tensor) -> tuple[Tensor, Tensor]:
        """Q of the network or the target network [1, B, A], and log pi0 [B, A]."""
        out, log_prior, cfg = network(obs), self.prior.log_probs(obs), self.cfg
        if cfg.parameterization == "naive":
            return out, log_prior
        logits, value = out[..., :-1], out[..., -1]
        if cfg.parameterization == "pgq":
            return pgq(value, logits.log_softmax(-1), log_prior, self.alpha), log_prior
        logits = gradient_scaled(logits, 1 / self.alpha if cfg.advantage_scale is None else cfg.advantage_scale)
        return dueling(gradient_scaled(value, cfg.value_scale), logits.log_softmax(-1), log_prior, self.alpha), log_prior

    @torch.no_grad()
    def log_probs(self, obs: Tensor) -> Tensor:
        """log pi of all actions, [B, A]."""
        q, log_prior = self.values(self.q, obs)
        return soft_policy(q[0], log_prior, self.alpha)

    def greedy(self, obs: Tensor) -> Tensor:
        """The policy's most likely action, int64 [B]."""
        return self.log_probs(obs).argmax(-1)

    def greedy_module(self) -> nn.Module:
        """`greedy` for `mbkit export`: the largest of log pi0 + Q / alpha, or of the policy's logits."""
        naive, alpha = self.cfg.parameterization == "naive", self.alpha  # numbers: a rule must not refer to the agent itself

        def most_likely(obs: Tensor, q: ActionValues, prior: Prior) -> Tensor:
            return (prior.log_probs(obs) + q.forward(obs)[0] / alpha if naive else q.forward(obs)[0, :, :-1]).argmax(-1)

        return GreedyRule(most_likely, q=self.q, prior=self.prior)

    @torch.no_grad()
    def sample(self, obs: Tensor) -> Tensor:
        """obs [B, O] -> int64 [B] of the policy, or with probability epsilon uniformly random."""
        action = Categorical(self.log_probs(obs)).sample()
        random_action = torch.randint(self.actions, (len(obs),), device=obs.device)
        return torch.where(torch.rand(len(obs), device=obs.device) < self.epsilon, random_action, action)

    @torch.no_grad()
    def value(self, obs: Tensor) -> Tensor:
        """The soft value of the target network, [B]."""
        q, log_prior = self.values(self.target_q, obs)
        return soft_value(q[0], log_prior, self.alpha)

    @torch.no_grad()
    def backup_action(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """a' ~ pi(.|s'), int64 [B], and V(s') - Q(s', a') = -alpha log(pi/pi0)(a'), [B], so that the backup is V(s') for any a'."""
        q, log_prior = self.values(self.target_q, obs)
        action = Categorical(soft_policy(q[0], log_prior, self.alpha)).sample()
        return action, soft_value(q[0], log_prior, self.alpha) - taken(q[0], action)

    @torch.no_grad()
    def backup_q(self, obs: Tensor, action: Tensor) -> Tensor:
        """The target network at these actions, [1, B]."""
        return taken(self.values(self.target_q, obs)[0], action)

    @torch.no_grad()
    def path_bonus(self, obs: Tensor, action: Tensor) -> Tensor:
        """The term that an n-step backup adds to the reward of a later state, obs [B, O]: -alpha D_KL(pi | pi0), [B]."""
        q, log_prior = self.values(self.target_q, obs)
        return -self.alpha * kl(soft_policy(q[0], log_prior, self.alpha), log_prior)

    def update(self, batch: Transition) -> Metrics:
        """One step of regression, then the target network."""
        y = self.targets(batch)
        q, log_prior = self.values(self.q, y.obs)
        slope, taken_q = taken_slope(q, y, self.cfg.loss)
        descend_each((self.optimizers["q"], [(q, slope)]), max_grad_norm=self.cfg.max_grad_norm)
        self.update_target()
        log_pi = soft_policy(q[0].detach(), log_prior, self.alpha)
        return {**self.metrics(taken_q, y), "actor/prior_kl": kl(log_pi, log_prior).mean()} if self.measures else {}
