"""One-step model predictions from replayed state-action pairs, on which Dyna plans (Sutton 1991, doi:10.1145/122344.122377).

Letters: n rows, O observation, A action.
"""

import torch
from torch import Tensor

from mbkit.imagination.counters import Counters
from mbkit.types import Dynamics, Source, State, Transition


@torch.no_grad()
def predicted(real: Transition, dynamics: Dynamics) -> tuple[Transition, Tensor]:
    """Real one-step transitions [n] with the model's reward, successor and termination; the discount is 0 where the model terminates.

    Returns also bool [n]: rows whose prediction is finite. The others stay the real transitions, so that shapes are static without
    synchronising with the host.
    """
    step = dynamics.step(dynamics.init(real.obs), real.action)
    finite = step.obs.isfinite().all(-1) & step.reward.isfinite()
    reward = torch.where(finite, step.reward, real.reward)
    next_obs = torch.where(finite[:, None], step.obs, real.next_obs)
    return Transition(real.obs, real.action, reward, next_obs, torch.where(finite, (~step.terminated).float(), real.discount)), finite


class ModelPredictions:
    """A source of one-step model predictions (s, a, r, s'): s and a are drawn from `data`, one-step rows; r and s' are the model's."""

    def __init__(self, data: Source, dynamics: Dynamics) -> None:
        self.data, self.dynamics = data, dynamics
        self.capturable: bool = getattr(dynamics, "capturable", False)
        self.counters = Counters("asked", "broken")  # predictions, and of these the ones that are not finite

    def sample(self, n: int) -> Transition:
        """n rows, each from a pair drawn as `data` draws it: a replay buffer uniformly with replacement."""
        rows, finite = predicted(self.data.sample(n), self.dynamics)
        self.counters.add(torch.ones_like(finite).sum(), (~finite).sum())
        return rows

    def state_dict(self) -> State:
        """The counts since they were last read."""
        return self.counters.state_dict()

    def load_state_dict(self, state: State) -> None:
        """Inverse of `state_dict`, in place."""
        self.counters.load_state_dict(state)
