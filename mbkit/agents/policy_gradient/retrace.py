"""Actor-critic on Retrace(lambda) (Munos et al. 2016, arXiv:1606.02647): Q is learned from trajectories of any earlier policy.

The policy climbs E_pi[Q] - alpha D_KL(pi | pi0) at the states of the trajectory; the expectation is over the present policy, whichever
policy acted. Letters: T steps, M environments, N = T M rows, O observation, A dimensions of an action or number of discrete actions,
K actions for each row: all discrete actions, or samples of continuous ones and of several discrete ones taken at once.
"""

from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor

from mbkit.agents.base import descend
from mbkit.agents.policy_gradient.on_policy import NetworkConfig, OnPolicyAgent, flat, value_loss
from mbkit.agents.policy_gradient.soft_pg import divergence
from mbkit.agents.prior import PriorConfig, PriorPolicy, make_prior
from mbkit.fields import at_least, between, option, positive
from mbkit.networks.distributions import Categorical, Distribution
from mbkit.networks.heads import ValueNetwork
from mbkit.networks.optimizers import polyak_
from mbkit.networks.parts import one_hot_parts
from mbkit.registry import agents
from mbkit.returns import expected_value, retrace
from mbkit.types import EnvSpec, Metrics, Trajectory


@dataclass(frozen=True)
class RetraceConfig(PriorConfig, NetworkConfig):
    """Networks, traces, prior, temperature and optimizers; the loop's options set how many stored trajectories are replayed."""

    prior: str = option("uniform", when="alpha>0")
    prior_uniform: float = between(0.0, 0, 1, when="alpha>0, prior!=uniform")
    trace_lambda: float = between(1.0, 0, 1)  # trace decay lambda in c = lambda min(1, pi / mu). Paper: 1
    alpha: float = at_least(0.01, 0)  # temperature alpha: the price of a nat of divergence from the prior. Paper: 0
    samples: int = at_least(8, 2, when="actions!=discrete")  # number K of sampled actions per expectation
    lr: float = positive(1e-3)  # Adam learning rate of the critic
    policy_lr: float = positive(3e-4)  # Adam learning rate of the policy
    anneal_lr: bool = False  # linear decay of both learning rates to 0 by the end of the run
    tau: float = between(0.01, 0, 1)  # target-network update rate tau
    max_grad_norm: float = positive(1.0)  # maximum norm of each gradient


class QNetwork(ValueNetwork):
    """Action values: (obs, action) pairs -> Q in raw units; a discrete action enters as a one-hot vector."""

    def __init__(self, spec: EnvSpec, cfg: NetworkConfig) -> None:
        super().__init__(spec.obs_dim + spec.action_dim, cfg.hidden, cfg.activation)
        self.actions, self.parts = spec.action_dim if spec.discrete else 0, spec.parts

    def pairs(self, obs: Tensor, action: Tensor) -> Tensor:
        """The network's input [K, N, O + A] of obs [N, O] and actions [K, N, A], int64 [K, N] or [K, N, P]; without K: one per row."""
        if self.parts:
            encoded = one_hot_parts(action, self.parts).to(obs.dtype)
        else:
            encoded = torch.eye(self.actions, dtype=obs.dtype, device=obs.device)[action] if self.actions else action
        return torch.cat((obs.expand(*encoded.shape[:-1], obs.shape[-1]), encoded), -1)


def score_loss(log_prob: Tensor, q: Tensor) -> Tensor:
    """-E_pi Q by K sampled actions, [K, N] each; the baseline of every action is the mean of the others, which causes no bias."""
    k = len(q)
    return -(log_prob * (q - q.mean(0)).detach()).sum(0).mean() / (k - 1)


@agents.register(
    "retrace",
    RetraceConfig,
    learns_from=("trajectories", "old_trajectories"),
    defaults={
        "env": "CartPole-v1",
        "steps": 300_000,
        "loop": {"num_envs": 8, "rollout_steps": 32, "stored_rollouts": 64, "off_policy_updates": 4},
    },
)
class Retrace(OnPolicyAgent):
    """Actor-critic on Retrace(lambda): an off-policy Q-critic, new and stored trajectories, and a price on the divergence from a prior."""

    cfg: RetraceConfig
    critic: QNetwork

    def __init__(self, spec: EnvSpec, cfg: RetraceConfig, gamma: float = 0.99, prior: PriorPolicy | None = None) -> None:
        super().__init__(spec, cfg, gamma)
        self.critic = QNetwork(spec, cfg).to(spec.device)
        self.target_critic = deepcopy(self.critic).requires_grad_(False)
        self.add_optimizers(cfg.lr, critic=self.critic)
        self.add_optimizers(cfg.policy_lr, policy=self.policy)
        self.annealed = {"critic": cfg.lr, "policy": cfg.policy_lr} if cfg.anneal_lr else {}
        self.prior = make_prior(cfg, spec, prior)

    def expectation_actions(self, distribution: Distribution) -> Tensor:
        """The actions over which an expectation is taken: all A discrete ones, int64 [A, N], or K samples [K, N, ...]."""
        if isinstance(distribution, Categorical):
            rows, actions = distribution.logits.shape
            return torch.arange(actions, device=distribution.logits.device)[:, None].expand(actions, rows)
        return torch.stack([distribution.sample() for _ in range(self.cfg.samples)])

    @torch.no_grad()
    def value(self, obs: Tensor) -> Tensor:
        """V [N] = E_pi Q - alpha D_KL of the target critic at raw obs [N, O]."""
        normalized, distribution = self.normalizer(obs), self.distribution(obs)
        q = self.target_critic(self.target_critic.pairs(normalized, self.expectation_actions(distribution))).T  # [N, K]
        pi = distribution.log_probs().exp() if isinstance(distribution, Categorical) else torch.full_like(q, 1 / q.shape[1])
        return expected_value(pi, q, divergence(distribution, self.prior, obs), self.cfg.alpha)

    @torch.no_grad()
    def targets(self, trajectory: Trajectory, pairs: Tensor, log_ratio: Tensor) -> Tensor:
        """Retrace's targets [N] of Q (eq. 4), from log pi / mu [N] of the steps."""
        t = trajectory
        q, log_ratio = self.target_critic(pairs).view_as(t.reward), log_ratio.view_as(t.reward)
        next_value = self.value(flat(t.next_obs)).view_as(t.reward)
        return flat(retrace(t.reward, t.discount, t.ended, q, next_value, log_ratio, self.gamma, self.cfg.trace_lambda))

    def policy_loss(self, raw_obs: Tensor, obs: Tensor, distribution: Distribution) -> tuple[Tensor, Tensor]:
        """-(E_pi Q - alpha D_KL), exact for one discrete action, `score_loss` for others, at obs [N, O]; and D_KL, 0-d each."""
        action, kl = self.expectation_actions(distribution), divergence(distribution, self.prior, raw_obs).mean()
        with torch.no_grad():
            q = self.critic(self.critic.pairs(obs, action))
        if isinstance(distribution, Categorical):
            return -(distribution.log_probs().exp().T * q).sum(0).mean() + self.cfg.alpha * kl, kl
        return score_loss(distribution.log_prob(action), q) + self.cfg.alpha * kl, kl

    def update(self, trajectory: Trajectory) -> Metrics:
        """One step on the critic, one on the policy, one on the target critic, then the normalisers."""
        raw_obs, action = flat(trajectory.obs), flat(trajectory.action)
        obs = self.normalizer(raw_obs)
        distribution, pairs = self.policy(obs), self.critic.pairs(obs, action)
        log_ratio = distribution.log_prob(action).detach() - flat(trajectory.log_prob)
        target = self.targets(trajectory, pairs, log_ratio)
        critic = value_loss(self.critic.normalized(pairs), self.critic.normalizer(target))
        descend(self.optimizers["critic"], critic, self.cfg.max_grad_norm)
        actor, kl = self.policy_loss(raw_obs, obs, distribution)
        descend(self.optimizers["policy"], actor, self.cfg.max_grad_norm)
        polyak_(self.target_critic, self.critic, self.cfg.tau)
        self.update_normalizers(trajectory, target)
        trace, entropy = log_ratio.clamp(max=0).exp().mean(), distribution.entropy().detach().mean()
        learner = {"actor/loss": actor.detach(), "actor/entropy": entropy, "actor/prior_kl": kl.detach(), "actor/trace": trace}
        return {"critic/loss": critic.detach(), "critic/q": target.mean(), **learner}
