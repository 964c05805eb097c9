"""Values of Gymnasium's spaces as rows of numbers and back, many at once; the order of the numbers is that of `mbkit.envs.spaces`.

Letters: B rows, O numbers of a row.
"""

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces

from mbkit.data.columns import Array
from mbkit.errors import UserError

Space = spaces.Space[Any]
Child = Callable[[Any, Space, str], Any]  # a node, its space (Dict or Tuple), name or number of the part -> the part's node
Values = Callable[[Any, Space], Array]  # a leaf and its space -> its values [B, ...]


class NotInSpace(Exception):
    """A row's value is none of its space; `row` is its number, `text` what was expected and what came."""

    def __init__(self, row: int, text: str) -> None:
        super().__init__(row, text)
        self.row, self.text = row, text


def space_of(text: Any, path: Path, what: str) -> Space:
    """The space that Minari serialised as JSON; UserError where the text is none."""
    try:
        return _space(json.loads(text) if isinstance(text, str) else text)
    except (ValueError, LookupError, TypeError, AttributeError, AssertionError, RecursionError, OverflowError) as error:
        raise UserError(f"{path}: {what}: expected a serialised space of Gymnasium, got {text!r:.60}") from error


def _space(facts: Any) -> Space:
    kind = facts["type"]
    if kind == "Box":
        dtype = np.dtype(facts["dtype"])
        low, high = (np.array(facts[name], dtype) for name in ("low", "high"))
        return spaces.Box(low, high, tuple(facts["shape"]), dtype.type)
    if kind == "Discrete":
        return spaces.Discrete(facts["n"], start=facts["start"])
    if kind == "MultiDiscrete":
        return spaces.MultiDiscrete(facts["nvec"], dtype=np.dtype(facts["dtype"]).type, start=facts["start"])
    if kind == "MultiBinary":
        return spaces.MultiBinary(facts["n"])
    if kind == "Dict":
        return spaces.Dict({key: _space(part) for key, part in facts["subspaces"].items()})
    if kind == "Tuple":
        return spaces.Tuple([_space(part) for part in facts["subspaces"]])
    raise ValueError(kind)


def parts_of(space: Space) -> list[tuple[str, Space]]:
    """The parts of a Dict by sorted key, or of a Tuple by number; [] of any other space."""
    if isinstance(space, spaces.Dict):
        return list(space.spaces.items())
    return [(str(n), part) for n, part in enumerate(space.spaces)] if isinstance(space, spaces.Tuple) else []


def flattened(space: Space, node: Any, child: Child, values: Values) -> Array:
    """Rows [B, O] of the values that lie behind `node`: Boxes flattened in their own dtype, choices one-hot, parts side by side."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        columns = [flattened(part, child(node, space, key), child, values) for key, part in parts_of(space)]
        if len({len(column) for column in columns}) != 1:
            raise NotInSpace(0, f"expected parts of equal lengths, got {[len(column) for column in columns]} rows")
        return np.concatenate(columns, 1)
    rows = values(node, space)
    if rows.shape[1:] != space.shape:
        raise NotInSpace(0, f"expected shape {space.shape}, got {rows.shape[1:]}")
    if isinstance(space, spaces.Discrete):
        return _one_hot(rows[:, None] - space.start, [int(space.n)], space.dtype)
    if isinstance(space, spaces.MultiDiscrete):
        return _one_hot((rows - space.start).reshape(len(rows), -1), [int(n) for n in space.nvec.flat], space.dtype)
    return rows.reshape(len(rows), -1)


def _one_hot(index: Array, sizes: list[int], dtype: Any) -> Array:
    """[B, P] choices among `sizes` -> [B, sum of sizes]."""
    wrong = ~((index >= 0) & (index < sizes)).all(1)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise NotInSpace(row, f"expected choices among {sizes}, got {index[row].tolist()}, counted from 0")
    rows = np.zeros((len(index), sum(sizes)), dtype)
    offsets = np.cumsum([0, *sizes[:-1]])
    rows[np.arange(len(index))[:, None], index.astype(np.int64) + offsets] = 1
    return rows


def width(space: Space) -> int:
    """O."""
    return int(spaces.flatdim(space))


def unflattened(space: Space, rows: Array) -> Any:
    """The inverse of `flattened`: arrays [B, ...] in dicts and tuples, there in the dtypes of their spaces."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        parts, begin = {}, 0
        for key, part in parts_of(space):
            parts[key] = unflattened(part, rows[:, begin : begin + width(part)])
            if not parts_of(part):
                parts[key] = parts[key].astype(part.dtype)
            begin += width(part)
        return parts if isinstance(space, spaces.Dict) else tuple(parts.values())
    if isinstance(space, spaces.Discrete):
        return (rows.argmax(1) + space.start).astype(space.dtype)
    if isinstance(space, spaces.MultiDiscrete):
        sizes = [int(n) for n in space.nvec.flat]
        edges = np.cumsum([0, *sizes])
        choices = np.stack([rows[:, a:b].argmax(1) for a, b in pairwise(edges)], 1)
        return (choices.reshape(len(rows), *(space.shape or ())) + space.start).astype(space.dtype)
    return rows.reshape(len(rows), *(space.shape or ()))
