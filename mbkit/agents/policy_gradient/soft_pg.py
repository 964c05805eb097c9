"""Soft policy gradient (Schulman, Chen and Abbeel 2017, arXiv:1704.06440, section 3): every nat of divergence from a prior costs alpha.

V(s) = E_pi[Q(s, a)] - alpha D_KL(pi | pi0)(s), Q(s, a) = E[r + gamma V(s')]. Letters: T steps, M environments, N = T M rows,
A dimensions of an action or number of discrete actions.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mbkit.agents.base import descend
from mbkit.agents.policy_gradient.a2c import policy_loss
from mbkit.agents.policy_gradient.on_policy import NetworkConfig, OnPolicyAgent, flat, value_loss
from mbkit.agents.prior import INSIDE, Prior, PriorConfig, PriorPolicy, make_prior
from mbkit.fields import at_least, between, option, positive
from mbkit.networks.distributions import IMPOSSIBLE, Categorical, Categoricals, Distribution
from mbkit.networks.parts import as_table
from mbkit.registry import agents
from mbkit.returns import kl_gae
from mbkit.types import EnvSpec, Metrics, Trajectory


@dataclass(frozen=True)
class SoftPGConfig(PriorConfig, NetworkConfig):
    """Networks, prior, temperature, optimizer and loss coefficients."""

    prior: str = option("uniform", when="alpha>0")
    prior_uniform: float = between(0.0, 0, 1, when="alpha>0, prior!=uniform")
    alpha: float = at_least(0.01, 0)  # temperature alpha: the price of a nat of divergence from the prior, in units of reward
    lr: float = positive(1e-3)  # Adam learning rate
    anneal_lr: bool = False  # linear decay of the learning rate to 0 by the end of the run
    gae_lambda: float = between(0.95, 0, 1)  # GAE lambda
    value_coef: float = positive(0.5)  # value-loss coefficient
    max_grad_norm: float = positive(0.5)  # maximum gradient norm


def divergence(policy: Distribution, prior: Prior, obs: Tensor) -> Tensor:
    """D_KL(pi | pi0) [N] at raw obs [N, O] of a `policy` distribution; exact for discrete actions and for the uniform prior.

    Continuous actions: D_KL = -H(pi) - E_pi log pi0, the entropy of the normal distribution in closed form, log pi0 of one
    reparameterised sample.
    """
    # Paper: discrete actions only. Here, for continuous actions: the normal distribution before it is clipped, and a prior that beyond the
    # box has its value at the nearest side (clipped, pi has atoms there, whose divergence from any density is infinite)
    if isinstance(policy, Categorical):
        log_p = policy.log_probs()
        return (log_p.exp() * (log_p - prior.log_probs(obs))).sum(-1)
    if isinstance(policy, Categoricals):
        return policy.kl(Categoricals(as_table(prior.log_probs(obs), prior.parts, IMPOSSIBLE)))
    action = policy.mean + policy.log_std.exp() * torch.randn_like(policy.mean)
    return -policy.entropy() - prior.log_prob(obs, action.clamp(-INSIDE, INSIDE))


def soft_policy_loss(log_prob: Tensor, advantage: Tensor, kl: Tensor, alpha: float) -> Tensor:
    """-(E[A log pi(a|s)] - alpha E[D_KL]), all [N]: A, a constant, does not contain the divergence of its own step (`kl_gae`)."""
    return policy_loss(log_prob, advantage) + alpha * kl.mean()


@agents.register(
    "soft_pg",
    SoftPGConfig,
    learns_from="trajectories",
    defaults={"env": "CartPole-v1", "steps": 300_000, "loop": {"num_envs": 8, "rollout_steps": 32}},
)
class SoftPG(OnPolicyAgent):
    """Soft policy gradient: an actor-critic with a price on the divergence from a prior policy, now and later."""

    cfg: SoftPGConfig

    def __init__(self, spec: EnvSpec, cfg: SoftPGConfig, gamma: float = 0.99, prior: PriorPolicy | None = None) -> None:
        super().__init__(spec, cfg, gamma)
        self.add_optimizers(cfg.lr, networks=nn.ModuleList([self.policy, self.critic]))
        self.annealed = {"networks": cfg.lr} if cfg.anneal_lr else {}
        self.prior = make_prior(cfg, spec, prior)

    @torch.no_grad()
    def advantage(self, trajectory: Trajectory, value: Tensor, kl: Tensor) -> Tensor:
        """A = Q - V [N]: KL-GAE from the values and divergences [N] of the steps' observations."""
        t, cfg = trajectory, self.cfg
        value, kl, next_value = value.view_as(t.reward), kl.view_as(t.reward), self.value(t.next_obs)
        return flat(kl_gae(t.reward, kl, t.discount, t.ended, value, next_value, self.gamma, cfg.gae_lambda, cfg.alpha))

    def update(self, trajectory: Trajectory) -> Metrics:
        """One step on policy and value network together, then the normalisers."""
        raw_obs, action, alpha = flat(trajectory.obs), flat(trajectory.action), self.cfg.alpha
        obs = self.normalizer(raw_obs)
        normalized, distribution = self.critic.normalized(obs), self.policy(obs)
        kl = divergence(distribution, self.prior, raw_obs)
        value, constant_kl = self.critic.normalizer.inverse(normalized.detach()), kl.detach()
        advantage = self.advantage(trajectory, value, constant_kl)
        target = value + advantage - alpha * constant_kl  # V contains the divergence of its own step, Q and A do not
        actor = soft_policy_loss(distribution.log_prob(action), advantage, kl, alpha)
        critic = value_loss(normalized, self.critic.normalizer(target))
        descend(self.optimizers["networks"], actor + self.cfg.value_coef * critic, self.cfg.max_grad_norm)
        self.update_normalizers(trajectory, target)
        entropy = distribution.entropy().detach().mean()
        learner = {"actor/loss": actor.detach(), "actor/entropy": entropy, "actor/prior_kl": constant_kl.mean()}
        return {"critic/loss": critic.detach(), "critic/value": target.mean(), **learner}
