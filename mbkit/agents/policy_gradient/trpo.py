"""Trust region policy optimisation (Schulman et al. 2015, arXiv:1502.05477): the natural direction, as far as the KL divergence allows.

Letters: P parameters of the policy, N rows.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from mbkit.agents.policy_gradient.natural import NaturalAgent, NaturalConfig, assign_, flattened, surrogate
from mbkit.agents.policy_gradient.npg import normalized_step
from mbkit.agents.policy_gradient.on_policy import Rows
from mbkit.fields import at_least, between, positive
from mbkit.networks.distributions import Distribution
from mbkit.registry import agents
from mbkit.types import EnvSpec, Metrics, Trajectory


@dataclass(frozen=True)
class TRPOConfig(NaturalConfig):
    """The trust region and the search for a step inside it."""

    delta: float = positive(0.01)  # bound of the mean D_KL(old | new) of a step, nats. Paper: 0.01
    backtracks: int = at_least(10, 1)  # candidates tried, the full step first
    shrink: float = between(0.8, 0.01, 0.99)  # a candidate's length to that of the one before


@agents.register("trpo", TRPOConfig, env="CartPole-v1", steps=100_000, loop={"warmup_steps": 0, "rollout_steps": 2048})
class TRPO(NaturalAgent):
    """Trust region policy optimisation: sqrt(2 delta / g^T F^-1 g) F^-1 g, shortened until the KL fits and the surrogate rises."""

    def __init__(self, spec: EnvSpec, cfg: TRPOConfig, gamma: float = 0.99) -> None:
        super().__init__(spec, cfg, gamma)
        self.cfg = cfg

    @torch.no_grad()
    def judged(self, rows: Rows, old: Distribution) -> tuple[Tensor, Tensor]:
        """Mean KL from the old policy and surrogate of the present parameters, 0-d each."""
        new = self.policy(rows.obs)
        return old.kl(new).mean(), surrogate(new.log_prob(rows.action) - rows.log_prob, rows.advantage)

    @torch.no_grad()
    def search(self, rows: Rows, old: Distribution, full: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The longest candidate along `full` [P] with KL <= delta and a better surrogate; the old parameters where there is none.

        Every candidate is tried, so that nobody waits for the verdict on the one before. Returns KL, whether one was accepted, and how many
        were refused before it, 0-d each.
        """
        begin = flattened(self.params)
        _, before = self.judged(rows, old)
        chosen, kl, accepted = begin, torch.zeros_like(before), torch.zeros_like(before, dtype=torch.bool)
        refused = torch.zeros_like(before)
        for k in range(self.cfg.backtracks):
            candidate = begin + self.cfg.shrink**k * full
            assign_(self.params, candidate)
            distance, gain = self.judged(rows, old)
            good = (distance <= self.cfg.delta) & (gain > before)  # false where something is not finite
            first = good & ~accepted
            chosen, kl = torch.where(first, candidate, chosen), torch.where(first, distance, kl)
            accepted = accepted | good
            refused += ~accepted
        assign_(self.params, chosen)
        return kl, accepted, refused

    def update(self, trajectory: Trajectory) -> Metrics:
        """One step of the policy or none, then the value network, then the normalisers."""
        rows = self.prepare(trajectory)
        x, g, old = self.direction(rows)
        kl, accepted, refused = self.search(rows, old, normalized_step(x, g, self.cfg.delta) * x)
        error = self.fit_value(rows)
        with torch.no_grad():
            entropy = self.policy(rows.obs).entropy().mean()
        self.observe(trajectory, rows.target)
        region = {"trpo/kl": kl, "trpo/accepted": accepted.float(), "trpo/backtracks": refused}
        return {"critic/loss": error, "critic/value": rows.target.mean(), "actor/entropy": entropy, **region}
