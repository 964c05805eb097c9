"""Rows of a data set as NumPy columns, and the arithmetic of rows and episodes that every format shares.

Letters: N rows, E episodes, B rows of a chunk, O observation, A action.
"""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Integers = NDArray[np.int64]
CHUNK = 16_384  # rows held in memory at once


class Columns(NamedTuple):
    """Consecutive rows of a data set in native units, each column in its own dtype."""

    obs: Array  # [B, O]
    action: Array  # [B, A], or integers [B]
    reward: Array  # [B]
    next_obs: Array  # [B, O] the true successor
    terminated: Array  # bool [B]
    truncated: Array  # bool [B] as recorded: both may be set, and then terminated wins
    episode: Array  # int64 [B] number of the episode in the data set: 0, 1, 2, ...


class Fingerprint:
    """sha256 over the bytes of the seven columns, each with its name, dtype and shape: the same in whatever chunks they come."""

    def __init__(self) -> None:
        self.rows, self.heads = 0, dict.fromkeys(Columns._fields, "")
        self.sums = {name: hashlib.sha256() for name in Columns._fields}

    def add(self, chunk: Columns) -> None:
        """Take in the following rows."""
        self.rows += len(chunk.reward)
        for name, column in chunk._asdict().items():
            dtype = column.dtype.newbyteorder("<")
            self.sums[name].update(np.ascontiguousarray(column, dtype).data)
            self.heads[name] = f"{dtype.str} {list(column.shape[1:])}"

    def hexdigest(self) -> str:
        """Of all rows so far."""
        lines = [f"{name} {self.rows} {head} {self.sums[name].hexdigest()}" for name, head in self.heads.items()]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def part(rows: Columns, start: int, stop: int) -> Columns:
    """Views of some of the rows."""
    return Columns(*(column[start:stop] for column in rows))


def joined(parts: Sequence[Columns]) -> Columns:
    """The rows of several chunks, one behind the other."""
    return parts[0] if len(parts) == 1 else Columns(*map(np.concatenate, zip(*parts, strict=True)))


def ends_of(lengths: Integers) -> Integers:
    """Number of the row behind the last of each episode, [E]."""
    return np.cumsum(lengths, dtype=np.int64)


def episodes_of(ends: Integers, start: int, stop: int) -> Integers:
    """The episode of each of these rows, [stop - start]."""
    return np.searchsorted(ends, np.arange(start, stop), side="right").astype(np.int64)


def last_rows(ends: Integers, start: int, stop: int) -> NDArray[np.bool_]:
    """Which of these rows are the last of their episode, [stop - start]."""
    mask = np.zeros(stop - start, np.bool_)
    mask[ends[(ends > start) & (ends <= stop)] - 1 - start] = True
    return mask


def successors(obs: Array, last: NDArray[np.bool_], final: Array) -> Array:
    """Successors [B, O] of B rows: the following row's observation, and at the end of an episode its final observation.

    Args:
        obs: [B + 1, O] observations of the rows and of the row behind them; [B, O] at the end of the data set.
        last: [B] whether a row is the last of its episode.
        final: [last.sum(), O] final observations of the episodes that end here.
    """
    rows = len(last)
    following = np.empty_like(obs[:rows])
    following[: len(obs) - 1] = obs[1:]
    following[last] = final
    return following


def regrouped(parts: Iterator[Columns], rows: int) -> Iterator[Columns]:
    """The same rows in chunks of exactly `rows` rows; the last one may be shorter."""
    waiting: list[Columns] = []
    count = 0
    for piece in parts:
        while count + len(piece.reward) >= rows:
            taken = rows - count
            yield joined([*waiting, part(piece, 0, taken)])
            piece, waiting, count = part(piece, taken, len(piece.reward)), [], 0
        if len(piece.reward):
            waiting.append(piece)
            count += len(piece.reward)
    if waiting:
        yield joined(waiting)
