"""Discrete conservative Q-learning (Kumar et al. 2020, arXiv:2006.04779), and critic regularisation by cross-entropy (arXiv:2307.12968).

loss=mse: double DQN whose values are pushed down on all actions and up on the recorded ones, with exact sums. loss=cross_entropy (Eysenbach
et al. 2023): Q = exp(u) is the odds of a classifier, and an actor climbs log Q; at weight 1 it comes to one-step RL, beta Q^beta / V^beta.
Letters: B batch, O observation, A actions, K critics.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from mbkit.agents.base import descend, needs_discrete
from mbkit.agents.offline.base import CriticConfig, OfflineActorCritic
from mbkit.agents.offline.conservative import conservative_gap, conservative_loss
from mbkit.errors import UserError
from mbkit.fields import at_least, option, positive
from mbkit.networks.distributions import Categorical
from mbkit.networks.heads import ActionValues, taken
from mbkit.networks.optimizers import polyak_
from mbkit.networks.policy import Logits
from mbkit.networks.values import regression_loss
from mbkit.registry import agents
from mbkit.targets import one_step
from mbkit.types import EnvSpec, Metrics, Recorded, TargetFn, Transition

SMALLEST = 1e-6  # least target of cross-entropy; where rewards are > 0 none is as small


@dataclass(frozen=True)
class CQLDiscreteConfig(CriticConfig):
    """Networks, learning rates, loss of the critics and weight of the conservative term."""

    loss: Literal["mse", "cross_entropy"] = "mse"  # loss of the critics; cross_entropy: needs rewards > 0, and learns an actor
    conservative_weight: float = at_least(1.0, 0)  # weight w of the gap beside the full squared error or the cross-entropy
    push: Literal["logsumexp", "policy", "uniform"] = option("logsumexp", when="loss=mse")  # what is pushed down; policy: max_a Q
    policy_lr: float = positive(1e-4, when="loss=cross_entropy")  # Adam learning rate of the actor
    reward_shift: float = option(0.0, when="loss=cross_entropy")  # number added to every reward; it changes the policy


def pushed_down(q: Tensor, push: str) -> Tensor:
    """What is pushed down of q [..., A]: log sum_a exp Q, max_a Q or the mean over actions, [...]."""
    return q.logsumexp(-1) if push == "logsumexp" else q.amax(-1) if push == "policy" else q.mean(-1)


def cross_entropy_loss(u: Tensor, action: Tensor, target: Tensor, pi: Tensor, weight: float) -> Tensor:
    """Critic of arXiv:2307.12968 with Q = exp(u): mean of -y log C + log(1 + Q) + w (E_pi log(1 + Q) - log(1 + Q(s, a))), C = Q / (1 + Q).

    u [K, B, A], actions int64 [B], targets [B], pi [B, A]; summed over critics. The minimum is y beta / ((1 - w) beta + w pi).
    """
    log1p = F.softplus(u)
    chosen = taken(log1p, action)
    fit = (1 + target) * chosen - target * taken(u, action)
    return (fit + weight * ((pi * log1p).sum(-1) - chosen)).mean(1).sum()


def log_q_loss(u: Tensor, log_pi: Tensor) -> Tensor:
    """-E_pi log Q, mean over rows: u = log Q as constants and log pi, both [B, A]."""
    return -(log_pi.exp() * u.detach()).sum(-1).mean()


@agents.register("cql_discrete", CQLDiscreteConfig, learns_from="dataset", defaults={"env": "CartPole-v1", "steps": 50_000})
class CQLDiscrete(OfflineActorCritic):
    """Conservative Q-learning for discrete actions, with exact sums over actions, and its cross-entropy form."""

    critics: ActionValues
    pessimistic = True

    def __init__(self, spec: EnvSpec, cfg: CQLDiscreteConfig, gamma: float = 0.99, target: TargetFn = one_step) -> None:
        needs_discrete("cql_discrete", spec)
        crossed = cfg.loss == "cross_entropy"
        if crossed and cfg.conservative_weight > 1:
            weight = f"agent.conservative_weight={cfg.conservative_weight:g}"
            raise UserError(f"{weight}: expected at most 1 with agent.loss=cross_entropy, whose loss has no minimum beyond")
        super().__init__(spec, cfg, gamma, target)
        self.cfg, self.crossed, self.contrasts = cfg, crossed, not crossed  # cross-entropy does not tell recorded rows from a model's
        self.add_critics(spec, cfg)
        if crossed:
            self.policy = Logits(spec.obs_dim, spec.action_dim, cfg.hidden)
        self.normalize_inputs(spec.obs_dim, cfg.normalize_obs)
        self.to(spec.device)
        self.add_optimizers(cfg.lr, critics=self.critics)
        if crossed:
            self.add_optimizers(cfg.policy_lr, policy=self.policy)

    @torch.no_grad()
    def prepare(self, data: Recorded) -> None:
        """As every offline agent's; UserError where cross-entropy meets rewards <= 0."""
        super().prepare(data)
        smallest = float(data.reward.min())
        if self.crossed and smallest + self.cfg.reward_shift <= 0:
            shift, advice = self.cfg.reward_shift, f"agent.reward_shift={0.1 - smallest:.4g}"
            shifted = f" (agent.reward_shift={shift:g} added)" if shift else ""
            raise UserError(
                f"agent.loss=cross_entropy needs rewards > 0, but the smallest of the data is {smallest + shift:g}{shifted}; "
                f"{advice} makes it 0.1 and changes the policy with it, agent.loss=mse takes any rewards"
            )

    def log_pi(self, obs: Tensor) -> Tensor:
        """log pi of all actions, [B, A]: of the actor, or of softmax of the smallest of the critics."""
        log_pi: Tensor = self.policy(obs) if self.crossed else self.critics(obs).amin(0).log_softmax(-1)
        return log_pi

    def greedy(self, obs: Tensor) -> Tensor:
        """The actor's most likely action, or the best by the smallest of the critics, int64 [B]."""
        return self.log_pi(obs).argmax(-1)

    @torch.no_grad()
    def sample(self, obs: Tensor) -> Tensor:
        """obs [B, O] -> int64 [B] of the actor, or of softmax of the smallest of the critics."""
        return Categorical(self.log_pi(obs)).sample()

    @torch.no_grad()
    def backup_action(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """The best action by the critics, int64 [B], and no bonus; with an actor E_pi min_k Q_k of the targets less its Q."""
        action = self.greedy(obs)
        if not self.crossed:
            return action, obs.new_zeros(len(obs))
        q = self.target_critics(obs).exp().amin(0)
        return action, (self.log_pi(obs).exp() * q).sum(-1) - taken(q, action)

    @torch.no_grad()
    def backup_q(self, obs: Tensor, action: Tensor) -> Tensor:
        """The target critics, [K, B]."""
        q = taken(self.target_critics(obs), action)
        return q.exp() if self.crossed else q

    def update(self, batch: Transition) -> Metrics:
        """One step on the critics and the actor, if there is one, then one on the target critics."""
        cfg = self.cfg
        y = self.target(self, batch._replace(reward=batch.reward + cfg.reward_shift) if self.crossed else batch, self.gamma)
        outputs = self.critics(batch.obs)
        q = taken(outputs, batch.action)
        action = self.greedy(batch.obs).detach()
        values = (outputs.exp() if self.crossed else outputs).detach()
        recorded, metrics = taken(values, batch.action), self.shift(taken(values[0], action), taken(values, batch.action)[0], action)
        if self.crossed:
            log_pi = self.log_pi(batch.obs)
            loss = cross_entropy_loss(outputs, batch.action, y.target.clamp(min=SMALLEST), log_pi.exp().detach(), cfg.conservative_weight)
            metrics["actor/loss"] = descend(self.optimizers["policy"], log_q_loss(outputs.amin(0), log_pi))
            metrics["critic/reward_shift"] = recorded.new_full((), cfg.reward_shift)
        else:
            gap = conservative_gap(pushed_down(outputs, cfg.push), q, batch.real)
            loss = conservative_loss(regression_loss(q, y), gap, cfg.conservative_weight)
            metrics["critic/gap"] = gap.detach().mean()
        critic_loss = descend(self.optimizers["critics"], loss)
        polyak_(self.target_critics, self.critics, cfg.tau)
        return {"critic/loss": critic_loss, "critic/q": recorded.mean(), **metrics}
