"""The offline loop: one step is one gradient update on a data set."""

import torch

from mbkit.accelerate import mode_on
from mbkit.config import OfflineLoop
from mbkit.loops.clock import Clock
from mbkit.types import State


def updates_at_once(cfg: OfflineLoop, agent: object, device: torch.device) -> int:
    """`loop.updates_at_once`, in whole cycles of the agent's updates where mode "auto" makes a CUDA graph of them."""
    at_once, cycle = cfg.updates_at_once, getattr(agent, "cycle", 1)
    return -(-at_once // cycle) * cycle if cfg.mode == "auto" and mode_on(cfg.mode, device) == "cudagraph" else at_once


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
