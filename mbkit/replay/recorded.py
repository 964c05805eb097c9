"""Batches of a data set: rows of a replay buffer, and what is known of the rows around them.

Letters: N rows of the data set, B batch.
"""

from typing import cast

import torch
from torch import Tensor

from mbkit.replay.buffer import ReplayBuffer
from mbkit.types import Recorded, Transition


class RecordedRows:
    """A source of `Recorded` batches from a buffer that holds a whole data set, in order, each episode's rows behind one another."""

    def __init__(self, buffer: ReplayBuffer) -> None:
        self.buffer, self.rows = buffer, len(buffer)
        self.return_to_go = returns_to_go(buffer)

    def sample(self, n: int) -> Transition:
        """n rows [B], drawn uniformly with replacement: a `Recorded`, which is taken wherever a Transition is."""
        row = self.buffer.draw(n)
        batch, _ = self.buffer.unpack(self.buffer.data[row])
        return cast("Transition", self._recorded(batch, row))

    def all(self) -> Recorded:
        """All N rows in order: views of the buffer but for actions that are whole numbers, and the following actions."""
        batch, _ = self.buffer.unpack(self.buffer.data[: self.rows])
        return self._recorded(batch, torch.arange(self.rows, device=self.buffer.data.device))

    def _recorded(self, batch: Transition, row: Tensor) -> Recorded:
        """The batch with what follows its rows; the row behind the ring stands for the missing ones."""
        following = self.buffer.link[row]
        known = (following < self.buffer.capacity).float()
        return Recorded(*batch, self.buffer.actions_at(following), known, self.return_to_go[row], row)


def returns_to_go(buffer: ReplayBuffer) -> Tensor:
    """Undiscounted sums of the rewards from every row to the end of its episode, float32 [N], summed in float64."""
    rows = len(buffer)
    link, reward = buffer.link[:rows], buffer.data[:rows, -3].double()
    last = link >= buffer.capacity
    through = reward.cumsum(0)  # sums of the data set up to each row
    where = torch.arange(rows, device=link.device)
    end = torch.where(last, where, rows).flip(0).cummin(0).values.flip(0)  # the last row of each row's episode
    return (through[end] - through + reward).float()
