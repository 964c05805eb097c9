"""Counts of model steps, summed on their device: adding does not synchronise with the host, reading does."""

import torch
from torch import Tensor

from mbkit.types import State


class Counters:
    """Named sums of counts, on the device of the counts; a checkpoint stores them."""

    def __init__(self, *names: str) -> None:
        self.names = names
        self.values = torch.zeros(len(names), dtype=torch.float64)

    def add(self, *counts: Tensor) -> None:
        """Add one 0-d tensor for each name. The first call moves the sums to the counts' device, so it must precede a capture."""
        if self.values.device != counts[0].device:
            self.values = torch.zeros_like(self.values, device=counts[0].device).copy_(self.values, non_blocking=True)
        self.values += torch.stack(counts)

    def take(self) -> dict[str, float]:
        """The sums since the last call, by name; they start again from 0. Synchronises with the device."""
        sums = dict(zip(self.names, self.values.tolist(), strict=True))
        self.values.zero_()
        return sums

    def state_dict(self) -> State:
        """A copy of the sums."""
        return {"values": self.values.to("cpu", copy=True)}

    def load_state_dict(self, state: State) -> None:
        """Inverse of `state_dict`, in place."""
        self.values.copy_(state["values"])
