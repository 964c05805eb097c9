"""One imagined step from pairs that were really seen: what Dyna plans on (Sutton 1991, Dyna, an integrated architecture).

Letters: n rows, O observation, A action.
"""

import torch
from torch import Tensor

from mbkit.imagination.counters import Totals
from mbkit.types import Dynamics, Source, State, Transition


@torch.no_grad()
def reimagined(seen: Transition, dynamics: Dynamics) -> tuple[Transition, Tensor]:
    """Really seen transitions [n] with reward, successor and termination as the model has them; the discount is 0 where it terminates.

    A row of which the model gave numbers that are not finite stays as it really was: shapes are static and nobody waits for the device.
    Returns also bool [n], which rows are the model's.
    """
    step = dynamics.step(dynamics.init(seen.obs), seen.action)
    finite = step.obs.isfinite().all(-1) & step.reward.isfinite()
    reward = torch.where(finite, step.reward, seen.reward)
    next_obs = torch.where(finite[:, None], step.obs, seen.next_obs)
    return Transition(seen.obs, seen.action, reward, next_obs, torch.where(finite, (~step.terminated).float(), seen.discount)), finite


class SeenPairs:
    """A source of imagined transitions (s, a, r, s'): s and a are drawn from `data`, one-step rows; r and s' from the model."""

    def __init__(self, data: Source, dynamics: Dynamics) -> None:
        self.data, self.dynamics = data, dynamics
        self.seen = Totals("asked", "broken")  # rows, and of these the ones that the model broke

    def sample(self, n: int) -> Transition:
        """n rows, each from a pair drawn as `data` draws it: a replay buffer uniformly with replacement."""
        rows, finite = reimagined(self.data.sample(n), self.dynamics)
        self.seen.add(torch.ones_like(finite).sum(), (~finite).sum())
        return rows

    def state_dict(self) -> State:
        """The sums since the last look at them."""
        return self.seen.state_dict()

    def load_state_dict(self, state: State) -> None:
        """Inverse of `state_dict`, in place."""
        self.seen.load_state_dict(state)
