"""Soft policy gradient (Schulman, Chen and Abbeel 2017, arXiv:1704.06440, section 3): every nat of divergence from a prior costs alpha.

V(s) = E_pi[Q(s, a)] - alpha D_KL(pi | pi0)(s), Q(s, a) = E[r + gamma V(s')]. Letters: T steps, M environments, N = T M rows, A choices or
dimensions of an action.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mbkit.agents.base import descend
from mbkit.agents.policy_gradient.a2c import policy_loss, value_loss
from mbkit.agents.policy_gradient.on_policy import NetworkConfig, OnPolicyAgent, flat
from mbkit.agents.prior import INSIDE, PriorConfig, make_prior
from mbkit.fields import at_least, between, positive
from mbkit.networks.distributions import Categorical
from mbkit.registry import agents
from mbkit.returns import kl_gae
from mbkit.types import EnvSpec, Metrics, Trajectory


@dataclass(frozen=True)
class SoftPGConfig(PriorConfig, NetworkConfig):
    """Networks, prior, temperature and steps."""

    alpha: float = at_least(0.01, 0)  # temperature: the price of a nat of divergence, in units of reward
    lr: float = positive(1e-3)  # Adam's step size
    anneal_lr: bool = False  # linearly to 0 at the end of the run
    gae_lambda: float = between(0.95, 0, 1)  # of the advantages
    value_weight: float = positive(0.5)  # of the value network's loss beside the policy's
    max_norm: float = positive(0.5)  # of the gradient


def divergence(policy: Any, prior: Any, obs: Tensor) -> Tensor:
    """D_KL(pi | pi0) at raw obs [N, O] of the distributions `policy` there, [N]; exact for choices and for the uniform prior.

    Numbers: D_KL = -H(pi) - E_pi log pi0, the entropy of the normal distribution in closed form, log pi0 of one reparameterised sample.
    """
    # Paper: choices alone. Here: of numbers, the normal distribution before it is clipped, and a prior that goes on beyond the box with its
    # value at the nearest side (clipped, pi has atoms there, whose divergence from any density is infinite)
    if isinstance(policy, Categorical):
        log_p = policy.log_probs()
        kl: Tensor = (log_p.exp() * (log_p - prior.log_probs(obs))).sum(-1)
        return kl
    drawn = policy.mean + policy.log_std.exp() * torch.randn_like(policy.mean)
    estimate: Tensor = -policy.entropy() - prior.log_prob(obs, drawn.clamp(-INSIDE, INSIDE))
    return estimate


def soft_policy_loss(log_prob: Tensor, advantage: Tensor, kl: Tensor, alpha: float) -> Tensor:
    """-(E[A log pi(a|s)] - alpha E[D_KL]), all [N]: A, a constant, does not contain the divergence of its own step (`kl_gae`)."""
    return policy_loss(log_prob, advantage) + alpha * kl.mean()


@agents.register("soft_pg", SoftPGConfig, env="CartPole-v1", steps=300_000, loop={"warmup_steps": 0, "num_envs": 8, "rollout_steps": 32})
class SoftPG(OnPolicyAgent):
    """Soft policy gradient: an actor-critic that pays for its divergence from a prior policy, now and later."""

    def __init__(self, spec: EnvSpec, cfg: SoftPGConfig, gamma: float = 0.99, prior: Any = None) -> None:
        super().__init__(spec, cfg, gamma)
        self.cfg = cfg
        self.add_optimizers(cfg.lr, networks=nn.ModuleList([self.policy, self.critic]))
        self.falling = {"networks": cfg.lr} if cfg.anneal_lr else {}
        self.prior = make_prior(cfg, spec, prior)

    @torch.no_grad()
    def advantage(self, trajectory: Trajectory, value: Tensor, kl: Tensor) -> Tensor:
        """A = Q - V [N]: KL-GAE from the values and divergences [N] of the steps' observations."""
        t, cfg = trajectory, self.cfg
        value, kl, next_value = value.view_as(t.reward), kl.view_as(t.reward), self.value(t.next_obs)
        return flat(kl_gae(t.reward, kl, t.discount, t.ended, value, next_value, self.gamma, cfg.gae_lambda, cfg.alpha))

    def update(self, trajectory: Trajectory) -> Metrics:
        """One step on policy and value network together, then the normalisers."""
        raw, action, alpha = flat(trajectory.obs), flat(trajectory.action), self.cfg.alpha
        obs = self.normalizer(raw)
        normalized, found = self.critic.normalized(obs), self.policy(obs)
        kl = divergence(found, self.prior, raw)
        value, paid = self.critic.in_raw_units(normalized.detach()), kl.detach()
        advantage = self.advantage(trajectory, value, paid)
        target = value + advantage - alpha * paid  # V pays for the divergence of its own step, Q and A do not
        actor = soft_policy_loss(found.log_prob(action), advantage, kl, alpha)
        critic = value_loss(normalized, self.critic.in_units(target))
        descend(self.optimizers["networks"], actor + self.cfg.value_weight * critic, self.cfg.max_norm)
        self.observe(trajectory, target)
        learner = {"actor/loss": actor.detach(), "actor/entropy": found.entropy().detach().mean(), "actor/prior_kl": paid.mean()}
        return {"critic/loss": critic.detach(), "critic/value": target.mean(), **learner}
