"""Extreme Q-learning (Garg, Hejna, Geist and Ermon 2023, arXiv:2301.02328): the soft maximum over recorded actions by regression.

V(s) minimises the Gumbel loss of Q(s, a) - V(s) over the recorded actions a, and so is scale log E_b exp(Q / scale): the mean where `scale`
is large, the best of them where it is small. Else it is IQL: Q bootstraps from V, the policy is cloned with weights exp(A / temperature),
see `implicit.py`. Letters: B batch.
"""

from dataclasses import dataclass

from torch import Tensor

from mbkit.agents.base import needs_one_action
from mbkit.agents.offline.implicit import ImplicitActorCritic, ImplicitConfig
from mbkit.fields import positive
from mbkit.registry import agents
from mbkit.targets import one_step
from mbkit.types import EnvSpec, TargetFn


@dataclass(frozen=True)
class XQLConfig(ImplicitConfig):
    """Networks, learning rate, weights, scale of the Gumbel loss. The defaults are those of the authors' code for locomotion."""

    scale: float = positive(2.0)  # scale of the Gumbel loss, in units of reward: V = scale log E_b exp(Q / scale). Paper: beta
    clip: float = positive(7.0)  # largest exponent (Q - V) / scale of the gradient


def gumbel_loss(advantage: Tensor, scale: float, clip: float) -> Tensor:
    """Gumbel regression: E [exp z - z - 1], z = (Q - V) / scale, [B]; above the clip the loss is a line, its gradient that at the clip.

    Authors' code: a constant there, so that V stays where it is while every z is above the clip.
    """
    z = advantage / scale
    inside = z.clamp(max=clip)
    return (inside.exp() * (1 + z - inside) - z - 1).mean()


@agents.register("xql", XQLConfig, learns_from="dataset", defaults={"env": "Pendulum-v1", "steps": 50_000})
class XQL(ImplicitActorCritic):
    """Extreme Q-learning: soft maxima of recorded actions' values, and a policy cloned by advantage; continuous and discrete actions."""

    cfg: XQLConfig

    def __init__(self, spec: EnvSpec, cfg: XQLConfig, gamma: float = 0.99, target: TargetFn = one_step) -> None:
        needs_one_action("xql", spec)
        super().__init__(spec, cfg, gamma, target)

    def value_loss(self, advantage: Tensor) -> Tensor:
        """Gumbel regression."""
        return gumbel_loss(advantage, self.cfg.scale, self.cfg.clip)

    def value_slope(self, advantage: Tensor) -> Tensor:
        """The gradient of Gumbel regression in V, [B]: (1 - exp min(z, clip)) / (scale B)."""
        return (1 - (advantage / self.cfg.scale).clamp(max=self.cfg.clip).exp()) / (self.cfg.scale * len(advantage))
