"""The offline loop: one step is one gradient update on a data set."""

from mbkit.loops.clock import Clock
from mbkit.types import State


class Offline(Clock):
    """Counts updates; the hooks make them. A stride is `at_once` of them, or as many as are left of `steps`."""

    def __init__(self, steps: int, at_once: int) -> None:
        super().__init__(stride=at_once)
        self.steps, self.at_once = steps, at_once

    def start(self) -> None:
        """A data set needs no beginning."""

    def advance(self) -> None:
        """The next stride."""
        self.stride = min(self.at_once, self.steps - self.step)
        self.step += self.stride

    def state_dict(self) -> State:
        """The number of updates, and the warnings given."""
        return {"step": self.step, "watch": self.watch.state_dict()}

    def load_state_dict(self, state: State) -> None:
        """Go on where `state_dict` was taken."""
        self.step = state["step"]
        self.watch.load_state_dict(state["watch"])
