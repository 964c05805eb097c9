"""Conservative Q-learning (Kumar et al. 2020, arXiv:2006.04779): SAC whose critics are pushed down on actions that were not recorded.

What is pushed down is the log-integral of exp Q, estimated from exactly 3N samples, or the mean of Q under a distribution.
Letters: B batch, O observation, A action, K critics, N samples of a kind.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from mbkit.agents.actor_critic.soft import soft_value
from mbkit.agents.base import descend, needs_continuous, support_metrics
from mbkit.agents.critics import CriticOptions
from mbkit.agents.offline.base import MEASURED, CriticConfig
from mbkit.agents.offline.conservative import (
    conservative_gap,
    conservative_loss,
    multiplier,
    multiplier_loss,
    proposals,
    sampled_actions,
    shares,
    uniform_actions,
)
from mbkit.agents.offline.squashed import SquashedActorCritic
from mbkit.errors import UserError
from mbkit.fields import at_least, option, positive
from mbkit.networks.optimizers import polyak_
from mbkit.networks.values import unit_of
from mbkit.registry import agents
from mbkit.targets import one_step
from mbkit.types import EnvSpec, Metrics, TargetFn, Transition


@dataclass(frozen=True)
class CQLConfig(CriticOptions, CriticConfig):
    """Networks, learning rates, conservative term and temperature. Paper: networks of 3x256 on locomotion."""

    policy_lr: float = positive(1e-4)  # Adam learning rate of policy and temperature. Paper: 3e-5; d3rlpy, OfflineRL-Kit: 1e-4
    conservative_weight: float = at_least(5.0, 0)  # weight w of the gap beside the full squared error, twice the paper's alpha
    push: Literal["logsumexp", "policy", "uniform"] = "logsumexp"  # what is pushed down: CQL(H), or Q under the policy or at random
    push_down: Literal["all", "model"] = option("all", when="algo!=cql")  # states of the values pushed down; model: model rows alone
    samples: int = at_least(10, 1)  # actions drawn for each state, of each kind, N
    lagrange: int | float | str = "none"  # threshold of w times the gap, above which a learned multiplier rises; none: no multiplier
    backup: Literal["sample", "mean", "max"] = "sample"  # next action of the targets; mean: tanh of the mean, max: best of N samples
    bc_updates: int = at_least(0, 0)  # first updates, in which the policy is cloned. Paper's code: 40 000
    temperature: float | None = at_least(None, 0)  # fixed temperature alpha of the policy's entropy; null: learned
    initial_temperature: float = positive(1.0, when="temperature=null")  # initial value of a learned temperature
    target_entropy: float | None = option(None, when="temperature=null")  # target entropy of the policy, nats; null: -A
    precision: Literal["float32", "bfloat16"] = option("float32", when="critic=mlp, loss=mse")  # products of the sampled actions' critics
    # between hidden layers


def cloned_loss(log_prob: Tensor, recorded_log_prob: Tensor, alpha: Tensor) -> Tensor:
    """E[alpha log pi(a'|s) - log pi(a|s)], of a sampled and of the recorded action, both [B]: the policy's loss in the first updates."""
    return (alpha * log_prob - recorded_log_prob).mean()


@agents.register("cql", CQLConfig, learns_from="dataset", defaults={"env": "Pendulum-v1", "steps": 50_000})
class CQL(SquashedActorCritic):
    """Conservative Q-learning: a soft actor-critic with critics that are low where there are no data."""

    pessimistic = contrasts = True
    updates: Tensor  # 0-d, updates so far

    def __init__(self, spec: EnvSpec, cfg: CQLConfig, gamma: float = 0.99, target: TargetFn = one_step) -> None:
        needs_continuous("cql", spec)
        if isinstance(cfg.lagrange, str) and cfg.lagrange != "none":
            raise UserError(f"agent.lagrange={cfg.lagrange}: expected none or a number, the threshold of the gap")
        super().__init__(spec, cfg, gamma, target)
        self.cfg, self.dtype = cfg, torch.bfloat16 if cfg.precision == "bfloat16" else torch.float32
        self.add_policy(spec, cfg.hidden)
        self.add_critics(spec, cfg)
        self.add_temperature(spec, cfg.temperature, cfg.initial_temperature, cfg.target_entropy)
        self.log_multiplier = nn.Parameter(torch.zeros(()), requires_grad=cfg.lagrange != "none")  # log alpha'
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        self.normalize_inputs(spec.obs_dim, cfg.normalized_inputs)
        self.to(spec.device)
        self.add_optimizers(cfg.policy_lr, policy=self.policy, alpha=self.log_alpha)
        self.add_optimizers(cfg.lr, critics=self.critics, multiplier=self.log_multiplier)

    @torch.no_grad()
    def backup_action(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """The next action [B, A] by `backup`, and no bonus [B]: these targets hold no entropy, as in the paper's code."""
        bonus = obs.new_zeros(len(obs))
        if self.cfg.backup != "max":
            return (self.sample(obs) if self.cfg.backup == "sample" else self.greedy(obs)), bonus
        action, _ = sampled_actions(self.policy, obs, self.cfg.samples)
        q = self.backup_q(obs.repeat_interleave(self.cfg.samples, 0), action.flatten(0, 1)).amin(0)
        best = q.view(len(obs), -1).argmax(-1)
        return action.gather(1, best[:, None, None].expand(-1, 1, action.shape[-1]))[:, 0], bonus

    def level(self, batch: Transition) -> Tensor:
        """What is pushed down, by `push`: the mean over states of log-sum-exp, or of the mean Q of N actions, [K]."""
        weight = shares(1 - batch.real) if self.cfg.push_down == "model" and batch.real is not None else None
        if self.cfg.push == "logsumexp":
            action, log_density = proposals(self.policy, batch.obs, batch.next_obs, self.cfg.samples)
            return self.critics.level(batch.obs, action, log_density, self.dtype, weight)
        action, _ = sampled_actions(self.policy, batch.obs, self.cfg.samples)
        if self.cfg.push == "uniform":
            action, _ = uniform_actions(action)
        return self.critics.level(batch.obs, action, None, self.dtype, weight)

    def update_critics(self, batch: Transition) -> Metrics:
        """One step on the critics, and on the multiplier where there is one; all of the multiplier before its step."""
        cfg, metrics = self.cfg, {}
        y = self.targets(batch)
        outputs, unit = self.critics.outputs, unit_of(self.critics.outputs)
        out = self.critics.out(batch.obs, batch.action)
        q = outputs.values(out)
        gap = conservative_gap(self.level(batch), q, batch.real) / unit  # beside a cross-entropy, which knows no unit of reward
        weight: Tensor | float = cfg.conservative_weight
        if not isinstance(cfg.lagrange, str):
            weight = weight * multiplier(self.log_multiplier.detach())
            loss = multiplier_loss(self.log_multiplier, gap, cfg.conservative_weight, cfg.lagrange)
            metrics = {"critic/multiplier": multiplier(self.log_multiplier.detach())}
            descend(self.optimizers["multiplier"], loss)
        shift = self.measured_shift(batch, q[0], self.greedy(batch.obs[:MEASURED]))
        loss = descend(self.optimizers["critics"], conservative_loss(outputs.loss(out, y), gap, weight))
        return {
            "critic/loss": loss,
            "critic/q": q.detach().mean(),
            "critic/gap": unit * gap.detach().mean(),
            **support_metrics(self.critics, y),
            **metrics,
            **shift,
        }

    def update(self, batch: Transition) -> Metrics:
        """One step on the critics, one on policy and temperature each, then one on the target critics."""
        critic, alpha = self.update_critics(batch), self.alpha
        action, log_prob = self.policy.rsample(batch.obs)
        loss = -soft_value(self.critics(batch.obs, action, fixed=True), log_prob, alpha).mean()
        if self.cfg.bc_updates:
            cloned = cloned_loss(log_prob, self.policy.log_prob(batch.obs, batch.action), alpha)
            loss = torch.where(self.updates < self.cfg.bc_updates, cloned, loss)
        actor_loss, log_prob = descend(self.optimizers["policy"], loss), log_prob.detach()
        self.update_temperature(log_prob)
        polyak_(self.target_critics, self.critics, self.cfg.tau)
        self.updates += 1
        return {**critic, "actor/loss": actor_loss, "actor/entropy": -log_prob.mean(), "alpha": self.alpha}
