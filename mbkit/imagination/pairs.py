"""One imagined step from pairs that were really seen: what Dyna plans on (Sutton 1991, Dyna, an integrated architecture).

Letters: n rows, O observation, A action.
"""

import torch

from mbkit.types import Dynamics, Source, Transition


@torch.no_grad()
def reimagined(seen: Transition, dynamics: Dynamics) -> Transition:
    """Really seen transitions [n] with reward, successor and termination as the model has them; the discount is 0 where it terminates.

    A row of which the model gave numbers that are not finite stays as it really was: shapes are static and nobody waits for the device.
    """
    step = dynamics.step(dynamics.init(seen.obs), seen.action)
    finite = step.obs.isfinite().all(-1) & step.reward.isfinite()
    reward = torch.where(finite, step.reward, seen.reward)
    next_obs = torch.where(finite[:, None], step.obs, seen.next_obs)
    return Transition(seen.obs, seen.action, reward, next_obs, torch.where(finite, (~step.terminated).float(), seen.discount))


class SeenPairs:
    """A source of imagined transitions (s, a, r, s'): s and a are drawn from `data`, one-step rows; r and s' from the model."""

    def __init__(self, data: Source, dynamics: Dynamics) -> None:
        self.data, self.dynamics = data, dynamics

    def sample(self, n: int) -> Transition:
        """n rows, each from a pair drawn as `data` draws it: a replay buffer uniformly with replacement."""
        return reimagined(self.data.sample(n), self.dynamics)
