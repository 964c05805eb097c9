"""Batches of a data set: rows of a replay buffer, and what is known of the rows around them.

Letters: N rows of the data set, B batch.
"""

from typing import cast

import torch
from torch import Tensor

from mbkit.replay.buffer import ReplayBuffer
from mbkit.types import Recorded, Transition

CHUNK = 65_536  # rows whose returns are summed at once


class RecordedRows:
    """A source of `Recorded` batches from a buffer that holds a whole data set, in order, each episode's rows behind one another."""

    def __init__(self, buffer: ReplayBuffer) -> None:
        self.buffer, self.rows = buffer, len(buffer)
        buffer.data[self.rows] = 0  # holds no row; `all` takes it for the one behind the last
        self.return_to_go = returns_to_go(buffer)

    @property
    def largest_reward(self) -> Tensor:
        """The largest absolute reward, [1]."""
        low, high = self.buffer.data[: self.rows, -3].aminmax()
        return torch.maximum(-low, high)[None]

    def sample(self, n: int) -> Transition:
        """n rows [B], drawn uniformly with replacement: a `Recorded`, which is taken wherever a Transition is."""
        row = self.buffer.draw(n)
        batch, _ = self.buffer.unpack(self.buffer.data[row])
        following = self.buffer.link[row]
        rows = Recorded(*batch, self.buffer.actions_at(following), self._known(following), self.return_to_go[row], row)
        return cast("Transition", rows)

    def all(self) -> Recorded:
        """All N rows in order: views of the buffer, but for actions that are whole numbers."""
        batch, _ = self.buffer.unpack(self.buffer.data[: self.rows])
        following, _ = self.buffer.unpack(self.buffer.data[1 : self.rows + 1])
        row = torch.arange(self.rows, device=self.buffer.data.device)
        return Recorded(*batch, following.action, self._known(self.buffer.link[: self.rows]), self.return_to_go, row)

    def begins(self) -> Tensor:
        """The rows that begin an episode, bool [N]."""
        ends = self.buffer.link[: self.rows] >= self.buffer.capacity
        return torch.cat((ends.new_ones(1), ends[:-1]))

    def first_obs(self) -> Tensor:
        """First observations of the episodes, [E, O]."""
        return self.buffer.unpack(self.buffer.data[: self.rows][self.begins()])[0].obs

    def returns(self) -> Tensor:
        """Undiscounted returns of the episodes, float32 [E]."""
        return self.return_to_go[self.begins()]

    def _known(self, following: Tensor) -> Tensor:
        """1 where the position of the following row is one, 0 where there is none, float32."""
        return (following < self.buffer.capacity).float()


def returns_to_go(buffer: ReplayBuffer) -> Tensor:
    """Undiscounted sums of the rewards from every row to the end of its episode, float32 [N], summed in float64, the last rows first."""
    rows, capacity = len(buffer), buffer.capacity
    out = torch.empty(rows, device=buffer.data.device)
    behind = torch.zeros((), dtype=torch.float64, device=out.device)  # the return-to-go of the row behind the present part
    for start in reversed(range(0, rows, CHUNK)):
        stop = min(start + CHUNK, rows)
        reward, last = buffer.data[start:stop, -3].double(), buffer.link[start:stop] >= capacity
        through = reward.cumsum(0)  # sums of the part up to each row
        where = torch.arange(stop - start, device=out.device)
        end = torch.where(last, where, stop - start).flip(0).cummin(0).values.flip(0)  # the last row of each row's episode, if it is here
        open_ended = end == stop - start
        part = through[end.clamp(max=stop - start - 1)] - through + reward + torch.where(open_ended, behind, 0)
        out[start:stop], behind = part, part[0]
    return out
