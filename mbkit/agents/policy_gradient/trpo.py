"""Trust region policy optimisation (Schulman et al. 2015, arXiv:1502.05477): the natural direction, as far as the KL divergence allows.

Letters: P parameters of the policy, N rows.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from mbkit.agents.policy_gradient.natural import NaturalAgent, NaturalConfig, assign_, flattened, surrogate
from mbkit.agents.policy_gradient.npg import normalized_step
from mbkit.agents.policy_gradient.on_policy import AdvantageBatch
from mbkit.fields import at_least, between, positive
from mbkit.networks.distributions import Distribution
from mbkit.registry import agents
from mbkit.types import Metrics, Trajectory


@dataclass(frozen=True)
class TRPOConfig(NaturalConfig):
    """The natural direction, the regression of the value network, the trust region and the line search inside it."""

    delta: float = positive(0.01)  # maximum mean D_KL(old | new) of a step, in nats. Paper: 0.01
    backtracks: int = at_least(10, 1)  # number of candidates in the line search, the full step included
    shrink: float = between(0.8, 0.01, 0.99, when="backtracks>1")  # ratio of a candidate's length to the previous one's


@agents.register(
    "trpo", TRPOConfig, learns_from="trajectories", defaults={"env": "CartPole-v1", "steps": 100_000, "loop": {"rollout_steps": 2048}}
)
class TRPO(NaturalAgent):
    """Trust region policy optimisation: sqrt(2 delta / g^T F^-1 g) F^-1 g, shortened until the KL fits and the surrogate rises."""

    cfg: TRPOConfig

    @torch.no_grad()
    def kl_and_surrogate(self, rows: AdvantageBatch, old: Distribution) -> tuple[Tensor, Tensor]:
        """Mean KL from the old policy and surrogate of the present parameters, 0-d each."""
        new = self.policy(rows.obs)
        return old.kl(new).mean(), surrogate(new.log_prob(rows.action) - rows.log_prob, rows.advantage)

    @torch.no_grad()
    def search(self, rows: AdvantageBatch, old: Distribution, full: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The longest candidate along `full` [P] with KL <= delta and a better surrogate; the old parameters where there is none.

        Every candidate is tried, so that the search does not synchronise with the host. Returns KL, whether a candidate was accepted, and
        the number of candidates rejected before it, 0-d each.
        """
        start = flattened(self.params)
        _, old_gain = self.kl_and_surrogate(rows, old)
        chosen, kl, accepted = start, torch.zeros_like(old_gain), torch.zeros_like(old_gain, dtype=torch.bool)
        rejected = torch.zeros_like(old_gain)
        for k in range(self.cfg.backtracks):
            candidate = start + self.cfg.shrink**k * full
            assign_(self.params, candidate)
            candidate_kl, gain = self.kl_and_surrogate(rows, old)
            good = (candidate_kl <= self.cfg.delta) & (gain > old_gain)  # false where something is not finite
            first = good & ~accepted
            chosen, kl = torch.where(first, candidate, chosen), torch.where(first, candidate_kl, kl)
            accepted = accepted | good
            rejected += ~accepted
        assign_(self.params, chosen)
        return kl, accepted, rejected

    def update(self, trajectory: Trajectory) -> Metrics:
        """One step of the policy or none, then the value network, then the normalisers."""
        rows = self.prepare(trajectory)
        x, g, old = self.direction(rows)
        kl, accepted, rejected = self.search(rows, old, normalized_step(x, g, self.cfg.delta) * x)
        error = self.fit_value(rows)
        with torch.no_grad():
            entropy = self.policy(rows.obs).entropy().mean()
        self.update_normalizers(trajectory, rows.target)
        region = {"trpo/kl": kl, "trpo/accepted": accepted.float(), "trpo/backtracks": rejected}
        return {"critic/loss": error, "critic/value": rows.target.mean(), "actor/entropy": entropy, **region}
