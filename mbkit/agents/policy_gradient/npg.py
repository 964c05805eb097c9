"""Natural policy gradient (Kakade 2001, NeurIPS 14; no arXiv id): the steepest ascent where the length of a step is its KL divergence.

A tabular softmax policy with the exact direction becomes pi exp(eta A / (1 - gamma)), normalised. Letters: P parameters of the policy,
N rows.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from mbkit.agents.policy_gradient.natural import NaturalAgent, NaturalConfig, assign_, flattened
from mbkit.fields import positive
from mbkit.registry import agents
from mbkit.types import Metrics, Trajectory


@dataclass(frozen=True)
class NPGConfig(NaturalConfig):
    """The natural direction, the regression of the value network, and the length of a step."""

    step: Literal["normalized", "fixed"] = "normalized"  # step rule. Kakade: fixed; arXiv:1703.02660: normalized
    delta: float = positive(0.01, when="step=normalized")  # bound on D_KL(old | new) of a step, to second order, in nats
    eta: float = positive(0.05, when="step=fixed")  # learning rate in theta += eta F^-1 g


def normalized_step(x: Tensor, g: Tensor, delta: float) -> Tensor:
    """sqrt(2 delta / g^T F^-1 g), 0-d, with x = F^-1 g: the length whose KL is delta to second order; 0 where g is."""
    slope = g @ x
    return torch.where(slope > 0, (2 * delta / slope).sqrt(), 0)


@agents.register(
    "npg", NPGConfig, learns_from="trajectories", defaults={"env": "CartPole-v1", "steps": 300_000, "loop": {"rollout_steps": 2048}}
)
class NPG(NaturalAgent):
    """Natural policy gradient: theta += step F^-1 g, unconditionally."""

    cfg: NPGConfig

    def update(self, trajectory: Trajectory) -> Metrics:
        """One natural step of the policy, then the value network, then the normalisers."""
        rows = self.prepare(trajectory)
        x, g, old = self.direction(rows)
        step = normalized_step(x, g, self.cfg.delta) if self.cfg.step == "normalized" else g.new_full((), self.cfg.eta)
        assign_(self.params, flattened(self.params).detach() + step * x)
        with torch.no_grad():
            new = self.policy(rows.obs)
            actor = {"actor/kl": old.kl(new).mean(), "actor/entropy": new.entropy().mean(), "actor/step": step}
        error = self.fit_value(rows)
        self.update_normalizers(trajectory, rows.target)
        return {"critic/loss": error, "critic/value": rows.target.mean(), **actor}
