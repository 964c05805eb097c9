"""ReBRAC (Tarasov et al. 2023, arXiv:2305.09836): TD3+BC with a penalty in the critics' target, too, and deeper, normalised networks.

A target action pays for its distance from the recorded following action, the policy's action for that from the recorded one, with separate
weights. Critics, targets and the policy's delay else are TD3's, see `delayed.py`. Letters: B batch, A action, K critics.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from mbkit.agents.base import critic_metrics, needs_continuous, regress
from mbkit.agents.offline.delayed import DelayedActorCritic, DelayedConfig
from mbkit.agents.offline.implicit import implicit_target
from mbkit.agents.offline.td3_bc import q_weight
from mbkit.fields import at_least, positive
from mbkit.networks.form import CriticForm
from mbkit.registry import agents
from mbkit.targets import one_step
from mbkit.types import EnvSpec, Metrics, Recorded, TargetFn, Transition


@dataclass(frozen=True)
class ReBRACConfig(DelayedConfig):
    """Networks, learning rate, noise and delay, penalties; noise is in units of the box [-1, 1]. The defaults are the paper's."""

    hidden: tuple[int, ...] = at_least((256, 256, 256), 1)  # widths of the hidden layers of policy and critics, ReLU between
    lr: float = positive(1e-3)  # Adam learning rate of policy and critics
    actor_penalty: float = at_least(0.01, 0)  # weight beta_1 of |mu(s) - a|^2 in the policy's loss. Paper: 0.001 to 0.1 by data set
    critic_penalty: float = at_least(0.01, 0)  # weight beta_2 of |mu(s') - a'|^2 in the target, in reward. Paper: 0 to 0.5 by data set
    layer_norm: bool = True  # layer normalisation of the critics


def squared_distance(action: Tensor, recorded: Tensor) -> Tensor:
    """|mu - a|^2, a sum over dimensions, [B]; both [B, A]."""
    return (action - recorded).square().sum(-1)


def penalized_policy_loss(q: Tensor, action: Tensor, recorded: Tensor, weight: float) -> Tensor:
    """mean beta_1 |mu(s) - a|^2 - mean Q / mean |Q|, Q = min_k Q_k(s, mu(s)) [B] of the policy's actions [B, A], recorded ones [B, A]."""
    return weight * squared_distance(action, recorded).mean() - q_weight(q, 1.0) * q.mean()


def penalty(batch: Transition | Recorded, action: Tensor) -> Tensor:
    """|a~ - a'|^2 of target actions [B, A] from the recorded following ones, [B]; 0 where a row has none."""
    if not isinstance(batch, Recorded):
        return torch.zeros_like(batch.reward)
    return batch.next_known * squared_distance(action, batch.next_action)


@agents.register(
    "rebrac", ReBRACConfig, learns_from="dataset", defaults={"env": "Pendulum-v1", "steps": 50_000, "loop": {"batch_size": 1024}}
)
class ReBRAC(DelayedActorCritic):
    """ReBRAC: a policy and targets that both pay for their distance from the recorded actions."""

    computes_targets = True
    cfg: ReBRACConfig

    def __init__(self, spec: EnvSpec, cfg: ReBRACConfig, gamma: float = 0.99, target: TargetFn = one_step) -> None:
        needs_continuous("rebrac", spec)
        form = CriticForm("layer_norm" if cfg.layer_norm else "mlp")
        super().__init__(spec, cfg, gamma, target, form)  # `target` knows no recorded following action and has no part in updates

    def policy_loss(self, batch: Transition, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The loss of the policy's actions [B, A], 0-d, its gradient in them [B, A], and the first critic's values of them, [B]."""
        action = action.detach().requires_grad_()
        q = self.critics(batch.obs, action, fixed=True)
        loss = penalized_policy_loss(q.amin(0), action, batch.action, self.cfg.actor_penalty)
        return loss.detach(), torch.autograd.grad(loss, action)[0], q[0].detach()

    def update(self, batch: Transition) -> Metrics:
        """One step on the critics; with every `delay`-th, one on the policy and on all target networks."""
        action, _ = self.backup_action(batch.next_obs)
        distance = penalty(batch, action)
        next_value = self.backup_q(batch.next_obs, action).amin(0) - self.cfg.critic_penalty * distance
        y = implicit_target(batch, batch.reward, next_value, self.gamma)
        q = regress(self.optimizers["critics"], self.critics, y)
        critic = {**critic_metrics(q, y), "critic/penalty": distance.mean()}
        return {**critic, **self.update_when_due(batch, q[0])}
