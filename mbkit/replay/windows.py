"""Consecutive rows of a replay: whole episodes, windows without an end inside, and the newest transitions.

Letters: B batch, L window length, O observation, A action.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from mbkit.replay.buffer import Experience, ReplayBuffer
from mbkit.types import Transition


class Windows(NamedTuple):
    """Stretches of L consecutive steps; only the last of them may have ended its episode."""

    obs: Tensor  # [B, L+1, O]
    action: Tensor  # [B, L, A] or [B, L]
    reward: Tensor  # [B, L]


def episodes(buffer: ReplayBuffer) -> list[Experience]:
    """Whole episodes, column by column, oldest first; one whose beginning was overwritten or whose end is yet to come is left out."""
    where = buffer.order()
    if not len(where):
        return []
    where = where[buffer.origin[where, 0].argsort(stable=True)]
    rows, begins = buffer.rows_at(where), buffer.origin[where, 1] != 0
    cut = buffer.link[where] != where.roll(-1)
    cut[-1] = True
    stop = torch.nonzero(cut).flatten() + 1
    start = torch.cat([stop.new_zeros(1), stop[:-1]])
    whole = begins[start] & rows.ended[stop - 1]
    spans = torch.stack([start, stop], 1)[whole].tolist()
    return [Experience(*(field[a:b] for field in rows)) for a, b in spans]


def windows(buffer: ReplayBuffer, length: int, limit: int | None = None) -> Windows:
    """Every stretch of `length` consecutive steps without an end inside, oldest first; at most `limit` of them, evenly spread."""
    path = [buffer.order()]
    for _ in range(length - 1):
        path.append(buffer.link[path[-1]])
    where = torch.stack(path, 1)
    where = where[where[:, -1] < buffer.capacity]
    if limit is not None and len(where) > limit:
        where = where[torch.arange(limit, device=where.device) * len(where) // limit]
    batch, _ = buffer.unpack(buffer.data[where])
    return Windows(torch.cat([batch.obs, batch.next_obs[:, -1:]], 1), batch.action, batch.reward)


class Newest:
    """A source of the newest transitions in order, for on-policy learners: none of them is drawn twice."""

    def __init__(self, buffer: ReplayBuffer) -> None:
        self.buffer = buffer

    def sample(self, n: int) -> Transition:
        """The last n rows [B], oldest first; where there are fewer, the first of all is repeated."""
        buffer = self.buffer
        sequence = (buffer.total - n + torch.arange(n, device=buffer.total.device)).clamp(min=0)
        return buffer.unpack(buffer.data[sequence % buffer.capacity])[0]


class Recent:
    """A source that draws uniformly, with replacement, from the newest `rows` transitions instead of from all."""

    def __init__(self, buffer: ReplayBuffer, rows: int) -> None:
        self.buffer, self.rows = buffer, rows

    def sample(self, n: int) -> Transition:
        """n rows [B]."""
        buffer = self.buffer
        recent = buffer.size.clamp(max=self.rows)
        age = (torch.rand(n, dtype=torch.float64, device=recent.device) * recent).long()
        return buffer.unpack(buffer.data[(buffer.total - 1 - age) % buffer.capacity])[0]
