"""TD3+BC (Fujimoto and Gu 2021, arXiv:2106.06860): TD3 whose policy also imitates the recorded actions.

The critics, their targets and the policy's delay are TD3's, see `delayed.py`. The policy's gradient is grad mu (lambda grad_a Q - 2 (mu -
a)): lambda multiplies Q alone. Letters: B batch, A action, K critics.
"""

from dataclasses import dataclass

from torch import Tensor

from mbkit.agents.base import critic_metrics, needs_continuous, regress
from mbkit.agents.critics import CriticOptions
from mbkit.agents.offline.cloning import squared_error
from mbkit.agents.offline.delayed import DelayedActorCritic, DelayedConfig
from mbkit.fields import at_least
from mbkit.networks.passes import CriticPass
from mbkit.registry import agents
from mbkit.targets import one_step
from mbkit.types import EnvSpec, Metrics, TargetFn, Transition


@dataclass(frozen=True)
class TD3BCConfig(CriticOptions, DelayedConfig):
    """Networks, learning rate, noise and delay, weight of Q; noise is in units of the box [-1, 1]. The defaults are the paper's."""

    alpha: float = at_least(2.5, 0)  # weight alpha of Q, in mean |Q|, beside the cloning term; 0: cloning alone


def q_weight(q: Tensor, alpha: float) -> Tensor:
    """Eq. 5: lambda = alpha / mean |Q(s, mu(s))|, a constant, 0-d; q [B]."""
    return alpha / q.detach().abs().mean().clamp(min=1e-8)


def cloned_policy_loss(q: Tensor, action: Tensor, recorded: Tensor, alpha: float) -> Tensor:
    """Eq. 3: -lambda mean Q_1(s, mu(s)) + mean (mu(s) - a)^2; q [B] of the policy's actions [B, A], and the recorded ones [B, A]."""
    return squared_error(action, recorded) - q_weight(q, alpha) * q.mean()


def cloned_policy_slopes(q: Tensor, action: Tensor, recorded: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """The gradients of eq. 3 in q [B] alone and in the actions [B, A] alone: -lambda / B, and 2 (mu - a) / (B A)."""
    return (-q_weight(q, alpha) / len(q)).expand(len(q)), (action - recorded) * (2 / action.numel())


@agents.register("td3_bc", TD3BCConfig, learns_from="dataset", defaults={"env": "Pendulum-v1", "steps": 50_000})
class TD3BC(DelayedActorCritic):
    """TD3+BC: a policy that climbs its critic and stays near the recorded actions."""

    cfg: TD3BCConfig

    def __init__(self, spec: EnvSpec, cfg: TD3BCConfig, gamma: float = 0.99, target: TargetFn = one_step) -> None:
        needs_continuous("td3_bc", spec)
        super().__init__(spec, cfg, gamma, target)

    def policy_loss(self, batch: Transition, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Eq. 3 of the policy's actions [B, A], 0-d, its gradient in them [B, A], and the first critic's values of them, [B]."""
        forward = CriticPass(self.critics, batch.obs, action, first=True, fixed=True)
        q, (q_slope, action_slope) = forward.q[0], cloned_policy_slopes(forward.q[0], action, batch.action, self.cfg.alpha)
        loss = cloned_policy_loss(q, action, batch.action, self.cfg.alpha)
        return loss, action_slope + forward.action_gradient(q_slope[None]), q

    def update(self, batch: Transition) -> Metrics:
        """One step on the critics; with every `delay`-th, one on the policy and on all target networks."""
        y = self.targets(batch)
        q = regress(self.optimizers["critics"], self.critics, y)
        actor = self.update_when_due(batch, q[0])
        return {**critic_metrics(q, y, self.critics), **actor} if self.measures else {}
