"""Actor-critic on Retrace(lambda) (Munos et al. 2016, arXiv:1606.02647): Q is learned from trajectories of any earlier policy.

The policy climbs E_pi[Q] - alpha D_KL(pi | pi0) at the states of the trajectory; the expectation is its own, whoever acted. Letters:
T steps, M environments, N = T M rows, O observation, A choices or dimensions of an action, K actions for each row: all choices, or drawn.
"""

from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mbkit.agents.base import descend
from mbkit.agents.policy_gradient.a2c import value_loss
from mbkit.agents.policy_gradient.on_policy import NetworkConfig, OnPolicyAgent, flat
from mbkit.agents.policy_gradient.soft_pg import divergence
from mbkit.agents.prior import PriorConfig, make_prior
from mbkit.fields import at_least, between, positive
from mbkit.networks.distributions import Categorical
from mbkit.networks.heads import ValueNetwork
from mbkit.networks.optimizers import polyak_
from mbkit.registry import agents
from mbkit.returns import expected_value, retrace
from mbkit.types import EnvSpec, Metrics, Trajectory


@dataclass(frozen=True)
class RetraceConfig(PriorConfig, NetworkConfig):
    """Trace, temperature, prior and steps; the loop's `replays` and `rollouts_kept` say how much is replayed."""

    trace_lambda: float = between(1.0, 0, 1)  # of the traces c = lambda min(1, pi / mu). Paper: 1
    alpha: float = at_least(0.01, 0)  # temperature: the price of a nat of divergence from the prior; 0: plain Retrace, as in the paper
    samples: int = at_least(8, 2)  # K, actions drawn for an expectation over numbers; choices are summed over
    lr: float = positive(1e-3)  # Adam's step size of the critic
    policy_lr: float = positive(3e-4)  # and of the policy
    anneal_lr: bool = False  # both, linearly to 0 at the end of the run
    tau: float = between(0.01, 0, 1)  # weight of the new parameters in the slow critic
    max_norm: float = positive(1.0)  # of each gradient


class QNetwork(ValueNetwork):
    """(obs, action) -> Q in raw units; a choice enters as a vector of zeros and a one."""

    def __init__(self, spec: EnvSpec, cfg: NetworkConfig) -> None:
        super().__init__(spec.obs_dim + spec.action_dim, cfg.hidden, cfg.activation)
        self.choices = spec.action_dim if spec.discrete else 0

    def pairs(self, obs: Tensor, action: Tensor) -> Tensor:
        """What the network takes, [K, N, O + A], of obs [N, O] and actions [K, N, A] or int64 [K, N]; without K, likewise."""
        own = torch.eye(self.choices, dtype=obs.dtype, device=obs.device)[action] if self.choices else action
        return torch.cat((obs.expand(*own.shape[:-1], obs.shape[-1]), own), -1)


def score_loss(log_prob: Tensor, q: Tensor) -> Tensor:
    """-E_pi Q by K actions of the present policy, [K, N] each: every one is compared with the mean of the others, which costs no bias."""
    k = len(q)
    return -(log_prob * (q - q.mean(0)).detach()).sum(0).mean() / (k - 1)


@agents.register(
    "retrace",
    RetraceConfig,
    env="CartPole-v1",
    steps=300_000,
    loop={"warmup_steps": 0, "num_envs": 8, "rollout_steps": 32, "rollouts_kept": 64, "replays": 4},
)
class Retrace(OnPolicyAgent):
    """Actor-critic on Retrace(lambda): an off-policy Q-critic, fresh and remembered trajectories, and a price on leaving the prior."""

    replays = True
    critic: QNetwork

    def __init__(self, spec: EnvSpec, cfg: RetraceConfig, gamma: float = 0.99, prior: Any = None) -> None:
        super().__init__(spec, cfg, gamma)
        self.cfg = cfg
        self.critic = QNetwork(spec, cfg).to(spec.device)
        self.slow_critic = deepcopy(self.critic).requires_grad_(False)
        self.add_optimizers(cfg.lr, critic=self.critic)
        self.add_optimizers(cfg.policy_lr, policy=self.policy)
        self.falling = {"critic": cfg.lr, "policy": cfg.policy_lr} if cfg.anneal_lr else {}
        self.prior = make_prior(cfg, spec, prior)

    def considered(self, found: Any) -> Tensor:
        """The actions an expectation is made of: all A choices, int64 [A, N], or K drawn ones, [K, N, A]."""
        if isinstance(found, Categorical):
            rows, choices = found.logits.shape
            return torch.arange(choices, device=found.logits.device)[:, None].expand(choices, rows)
        return torch.stack([found.sample() for _ in range(self.cfg.samples)])

    @torch.no_grad()
    def value(self, obs: Tensor) -> Tensor:
        """V [N] = E_pi Q - alpha D_KL of the slow critic at raw obs [N, O]."""
        seen, found = self.normalizer(obs), self.distribution(obs)
        q = self.slow_critic(self.slow_critic.pairs(seen, self.considered(found))).T  # [N, K]
        weight = found.log_probs().exp() if isinstance(found, Categorical) else torch.full_like(q, 1 / q.shape[1])
        return expected_value(weight, q, divergence(found, self.prior, obs), self.cfg.alpha)

    @torch.no_grad()
    def targets(self, trajectory: Trajectory, pairs: Tensor, log_ratio: Tensor) -> Tensor:
        """Retrace's targets [N] of Q (eq. 4), from log pi / mu [N] of the steps."""
        t = trajectory
        q, log_ratio = self.slow_critic(pairs).view_as(t.reward), log_ratio.view_as(t.reward)
        next_value = self.value(flat(t.next_obs)).view_as(t.reward)
        return flat(retrace(t.reward, t.discount, t.ended, q, next_value, log_ratio, self.gamma, self.cfg.trace_lambda))

    def policy_loss(self, raw: Tensor, obs: Tensor, found: Any) -> tuple[Tensor, Tensor]:
        """-(E_pi Q - alpha D_KL), exactly for choices, by its score for numbers, at obs [N, O]; and D_KL, 0-d each."""
        action, kl = self.considered(found), divergence(found, self.prior, raw).mean()
        with torch.no_grad():
            q = self.critic(self.critic.pairs(obs, action))
        if isinstance(found, Categorical):
            return -(found.log_probs().exp().T * q).sum(0).mean() + self.cfg.alpha * kl, kl
        return score_loss(found.log_prob(action), q) + self.cfg.alpha * kl, kl

    def update(self, trajectory: Trajectory) -> Metrics:
        """One step on the critic, one on the policy, one on the slow critic, then the normalisers."""
        raw, action = flat(trajectory.obs), flat(trajectory.action)
        obs = self.normalizer(raw)
        found, pairs = self.policy(obs), self.critic.pairs(obs, action)
        log_ratio = found.log_prob(action).detach() - flat(trajectory.log_prob)
        target = self.targets(trajectory, pairs, log_ratio)
        critic = value_loss(self.critic.normalized(pairs), self.critic.in_units(target))
        descend(self.optimizers["critic"], critic, self.cfg.max_norm)
        actor, kl = self.policy_loss(raw, obs, found)
        descend(self.optimizers["policy"], actor, self.cfg.max_norm)
        polyak_(self.slow_critic, self.critic, self.cfg.tau)
        self.observe(trajectory, target)
        trace, entropy = log_ratio.clamp(max=0).exp().mean(), found.entropy().detach().mean()
        learner = {"actor/loss": actor.detach(), "actor/entropy": entropy, "actor/prior_kl": kl.detach(), "actor/trace": trace}
        return {"critic/loss": critic.detach(), "critic/q": target.mean(), **learner}

    def observe(self, trajectory: Trajectory, target: Tensor, weight: Tensor | None = None) -> None:
        """As every agent; the slow critic's units stay those of the critic."""
        super().observe(trajectory, target, weight)
        if self.networks.normalize_value:
            self.slow_critic.rescale(target, weight)
