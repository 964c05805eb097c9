"""Implicit Q-learning (Kostrikov, Nair and Levine 2022, arXiv:2110.06169): no value of an action that was not recorded.

V(s) is an expectile of Q(s, a) over the recorded actions a: between their mean (1/2) and the best of them (towards 1). Q bootstraps from V,
and the policy is cloned with weights exp(A / temperature): see `implicit.py`. Letters: B batch.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from mbkit.agents.base import needs_one_action
from mbkit.agents.critics import CriticOptions
from mbkit.agents.offline.implicit import ImplicitActorCritic, ImplicitConfig
from mbkit.fields import between
from mbkit.registry import agents
from mbkit.targets import one_step
from mbkit.types import EnvSpec, TargetFn


@dataclass(frozen=True)
class IQLConfig(CriticOptions, ImplicitConfig):
    """Networks, learning rate, weights and expectile. The defaults are the paper's for locomotion; for AntMaze: 0.1 and 0.9."""

    expectile: float = between(0.7, 0.001, 0.999)  # expectile of V. The paper's tau


def expectile_loss(advantage: Tensor, expectile: float) -> Tensor:
    """Eq. 5: E |expectile - 1(u < 0)| u^2, u = min_k Q_target,k(s, a) - V(s), [B]."""
    return (torch.where(advantage < 0, 1 - expectile, expectile) * advantage.square()).mean()


@agents.register("iql", IQLConfig, learns_from="dataset", defaults={"env": "Pendulum-v1", "steps": 50_000})
class IQL(ImplicitActorCritic):
    """Implicit Q-learning: expectiles of recorded actions' values, and a policy cloned by advantage; continuous and discrete actions."""

    cfg: IQLConfig

    def __init__(self, spec: EnvSpec, cfg: IQLConfig, gamma: float = 0.99, target: TargetFn = one_step) -> None:
        needs_one_action("iql", spec)
        super().__init__(spec, cfg, gamma, target)

    def value_loss(self, advantage: Tensor) -> Tensor:
        """Eq. 5."""
        return expectile_loss(advantage, self.cfg.expectile)

    def value_slope(self, advantage: Tensor) -> Tensor:
        """The gradient of eq. 5 in V, [B]: -2 |expectile - 1(u < 0)| u / B."""
        return torch.where(advantage < 0, 1 - self.cfg.expectile, self.cfg.expectile) * advantage * (-2 / len(advantage))
