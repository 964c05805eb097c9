"""A clock that tests advance by hand, and a recorder that stores what hooks report."""

from collections.abc import Collection, Mapping

import torch

from mbkit.loops import Clock


class StoredMetrics:
    """A recorder that stores events and logged metrics as (step, floats) instead of writing them."""

    def __init__(self) -> None:
        self.events: list[tuple[int, dict[str, float]]] = []
        self.logs: list[tuple[int, dict[str, float]]] = []
        self.said: list[str] = []
        self.seconds = 0.0

    def event(self, step: int, values: Mapping[str, torch.Tensor | float]) -> None:
        """As `Recorder.event`."""
        self.events.append((step, {name: float(value) for name, value in values.items()}))

    def warn(self, step: int, text: str) -> None:
        """As `Recorder.warn`."""
        self.said.append(text)

    def log(self, step: int, metrics: Mapping[str, torch.Tensor | float]) -> None:
        """As `Recorder.log`."""
        self.logs.append((step, {name: float(value) for name, value in metrics.items()}))


class ManualClock(Clock):
    """A loop without environments: a stride takes `stride` steps; an episode ends in those that reach a step of `ends`."""

    def __init__(self, stride: int = 1, ends: Collection[int] = (), step: int = 0) -> None:
        super().__init__(stride)
        self.recorder, self.ends, self.step = StoredMetrics(), ends, step

    def advance(self) -> None:
        """One stride."""
        self.step += self.stride
        self.episode_ended = self.step in self.ends
