"""Sums over what was imagined, kept where it was imagined: adding waits for nobody, reading does."""

import torch
from torch import Tensor

from mbkit.types import State


class Totals:
    """Named sums of counts, on the device of what is added; they travel in a checkpoint."""

    def __init__(self, *names: str) -> None:
        self.names = names
        self.values = torch.zeros(len(names), dtype=torch.float64)

    def add(self, *counts: Tensor) -> None:
        """One 0-d tensor for each name. The first call moves the sums to the counts' device, so it has to come before a capture."""
        if self.values.device != counts[0].device:
            self.values = torch.zeros_like(self.values, device=counts[0].device).copy_(self.values, non_blocking=True)
        self.values += torch.stack(counts)

    def take(self) -> dict[str, float]:
        """The sums so far, by name; they start again from 0. Waits for the device."""
        taken = dict(zip(self.names, self.values.tolist(), strict=True))
        self.values.zero_()
        return taken

    def state_dict(self) -> State:
        """A copy of the sums."""
        return {"values": self.values.to("cpu", copy=True)}

    def load_state_dict(self, state: State) -> None:
        """Inverse of `state_dict`, in place."""
        self.values.copy_(state["values"])
