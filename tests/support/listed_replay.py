"""What a replay buffer should hold, as a plain list of rows: its oracle, and hypothesis strategies that write to both."""

from typing import Any

import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor

from mbkit.errors import UserError
from mbkit.replay.buffer import Experience, ReplayBuffer
from mbkit.types import EnvSpec

SPEC = EnvSpec(2, 1, torch.device("cpu"))
DISCRETE = EnvSpec(2, 5, torch.device("cpu"), discrete=True)


def rows(ids: list[int], ends: list[int], spec: EnvSpec = SPEC) -> Experience:
    """Rows that show their number in every field; an end is 0 none, 1 truncated, 2 terminated."""
    number, end = torch.tensor(ids, dtype=torch.float32), torch.tensor(ends)
    action = number.long() % 5 if spec.discrete else number[:, None] / 1000
    obs = torch.stack([number, -number], 1)
    return Experience(obs, action, number * 10, obs + 0.5, end == 2, end > 0)


class Listed:
    """What the buffer should do, with a list of dicts: `parent` is the number of the row before in the same episode."""

    def __init__(self, capacity: int) -> None:
        self.capacity, self.rows, self.last = capacity, [], {}

    def extend(self, ids: list[int], ends: list[int], mask: list[bool], column: int | None) -> None:
        for i, (number, end, valid) in enumerate(zip(ids, ends, mask, strict=True)):
            c = i if column is None else column
            if valid:
                self.rows.append({"id": number, "end": end, "column": c, "parent": self.last.get(c)})
            self.last[c] = number if valid and not end else None
        self.rows = self.rows[-self.capacity :]

    def child(self, row: dict[str, Any]) -> dict[str, Any] | None:
        return next((r for r in self.rows if r["parent"] == row["id"]), None)

    def chain(self, row: dict[str, Any], length: int) -> list[dict[str, Any]]:
        out = [row]
        while len(out) < length and (following := self.child(out[-1])) is not None:
            out.append(following)
        return out


WRITES = st.lists(  # (end, valid) of each row, column, whether there is a mask
    st.tuples(
        st.lists(st.tuples(st.sampled_from([0, 0, 0, 1, 2]), st.sampled_from([True, True, True, False])), min_size=1, max_size=4),
        st.one_of(st.none(), st.integers(0, 4)),
        st.booleans(),
    ),
    max_size=14,
)


def written(capacity: int, script: list[Any], spec: EnvSpec = SPEC) -> tuple[ReplayBuffer, Listed]:
    """The buffer and its oracle after the same writes."""
    buffer, listed, number = ReplayBuffer(capacity, spec), Listed(capacity), 0
    for entries, column, masked in script:
        ids = list(range(number, number + len(entries)))
        number += len(entries)
        ends, mask = [e for e, _ in entries], [m or not masked for _, m in entries]
        if len(ids) > capacity:
            with pytest.raises(UserError, match=f"holds {capacity} rows, but {len(ids)}"):
                buffer.extend(rows(ids, ends, spec))
            continue
        buffer.extend(rows(ids, ends, spec), torch.tensor(mask) if masked else None, column)
        listed.extend(ids, ends, mask, column)
    return buffer, listed


def numbers_of(obs: Tensor) -> Any:
    """The numbers that the observations [..., O] show."""
    return obs[..., 0].long().tolist()
