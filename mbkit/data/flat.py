"""Files of flat columns, one row a step, as D4RL's HDF5 and NumPy's .npz hold them: where episodes end, and which rows have a successor.

Where the file has no successors, a row's successor is the observation of the following row. Then the last row of a cut episode has none and
is left out; a terminal row, whose successor no target uses, stays with zeros.

Letters: N rows of the file, E episodes of the data set, O observation, A action.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from mbkit.data.about import action_facts
from mbkit.data.columns import CHUNK, Array, Columns, Integers, ends_of, episodes_of, successors
from mbkit.data.dataset import Dataset
from mbkit.data.hdf5 import check_lengths, check_numbers
from mbkit.errors import UserError
from mbkit.registry import nearest

REQUIRED = ("obs", "action", "reward", "terminated")


class Column(Protocol):
    """A column of a file, of which slices can be read in order."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __getitem__(self, rows: slice, /) -> Array:
        """Some rows."""


Opened = Callable[[], AbstractContextManager[Mapping[str, Column]]]  # the file's columns by their names there; each call begins anew


class Layout(NamedTuple):
    """Which rows of the file are rows of the data set."""

    keep: Array  # bool [N]
    zero: Array  # bool [N] rows whose successor is unknown and stands as zeros
    terminated: Array  # bool [N]
    truncated: Array  # bool [N]
    lengths: Integers  # [E]
    begins: Integers  # [E] row of the file at which an episode begins


def read(path: Path, kind: str, opened: Opened, names: Mapping[str, str], facts: dict[str, Any]) -> Dataset:
    """A data set of flat columns.

    Args:
        path: the file.
        kind: name of its format.
        opened: opens the file.
        names: of the columns in the file for obs, action, reward, terminated, and where it has them next_obs, truncated, episode.
        facts: arguments of Dataset, of which those on actions may be absent; `unmarked` lists cut episodes without a flag of their own.

    Raises:
        UserError: a column is absent, of unequal length or wrong shape, no row has a successor, or nothing is known of the actions.
    """
    facts = dict(facts)
    with opened() as columns:
        present = {role: name for role, name in names.items() if name in columns}
        for role in REQUIRED:
            if role not in present:
                raise UserError(f"{path}: expected a column {names[role]!r}; {nearest(names[role], columns)}")
        parts = {role: columns[name] for role, name in present.items()}
        _check(path, parts, present, bool(facts.get("choices")))
        layout, notes = _layout(path, parts, names, facts.pop("unmarked", ()))
        obs_dim = parts["obs"].shape[1]
    if not len(layout.lengths):
        raise UserError(f"{path}: expected at least one row with a successor, got none")
    counts = {"left_out": int((~layout.keep).sum()), "zero_successors": int(layout.zero.sum())}
    source = {**facts.pop("source", {"format": kind}), **{key: count for key, count in counts.items() if count}}

    def stream(start: int, stop: int) -> Iterator[Columns]:
        with opened() as columns:
            yield from _stream({role: columns[name] for role, name in present.items()}, layout, bool(facts.get("choices")), start, stop)

    notes = [*facts.pop("notes", []), *notes]
    return Dataset(stream, layout.lengths, obs_dim, path, kind, **facts, source=source, notes=notes, rows_before=layout.begins)


def action_choices(path: Path, name: str, column: Column, options: Mapping[str, Any], assumed: bool) -> dict[str, Any]:
    """Facts on actions of a file that says nothing of them, from the options low, high, choices; UserError where they don't say it either.

    Args:
        path: the file.
        name: of the column of actions.
        column: the column itself.
        options: low, high, choices, each of which may be None.
        assumed: whether continuous actions are in [-1, 1] unless the options say something else.
    """
    width = int(np.prod(column.shape[1:]))
    facts = action_facts(path, width, **{key: options.get(key) for key in ("low", "high", "choices")})
    if facts is None and assumed and column.dtype.kind == "f":
        facts = {"action_low": np.full(width, -1.0), "action_high": np.full(width, 1.0)}
        facts["notes"] = ["bounds of the actions were not recorded: they are taken as [-1, 1], as in D4RL"]
    if facts is None:
        advice = "name them with --low and --high, or with --choices if actions are discrete, in `mbkit data convert`"
        raise UserError(f"{path}: expected bounds of the {name}, which the file does not have; {advice}")
    if facts.get("choices") and column.dtype.kind not in "iu":
        raise UserError(f"{path}: {name}: expected whole numbers, since they are discrete, got {column.dtype.name}")
    return facts


def _check(path: Path, parts: Mapping[str, Column], names: Mapping[str, str], discrete: bool) -> None:
    """UserError unless the columns are numbers of fitting shapes."""
    for role, column in parts.items():
        check_numbers(path, names[role], column.dtype, column.shape, 2 if role in ("obs", "next_obs") else None)
        width = int(np.prod(column.shape[1:]))
        if role not in ("obs", "next_obs") and (len(column.shape) > 2 or (width != 1 and (role != "action" or discrete))):
            raise UserError(f"{path}: {names[role]}: expected one number a row, got shape {list(column.shape)}")
    check_lengths(path, {names[role]: column.shape[0] for role, column in parts.items()})
    if "next_obs" in parts and parts["next_obs"].shape != parts["obs"].shape:
        shapes = f"{list(parts['obs'].shape)} and {list(parts['next_obs'].shape)}"
        raise UserError(f"{path}: expected {names['obs']} and {names['next_obs']} of one shape, got {shapes}")


def _layout(path: Path, parts: Mapping[str, Column], names: Mapping[str, str], unmarked: Any) -> tuple[Layout, list[str]]:
    """Where episodes begin and end, and sentences on what is left out or missing."""
    rows = parts["obs"].shape[0]
    terminated = _flags(path, names["terminated"], parts["terminated"])
    truncated = _flags(path, names["truncated"], parts["truncated"]) if "truncated" in parts else np.zeros(rows, np.bool_)
    notes = []
    if "episode" in parts:
        episode = np.asarray(parts["episode"][:]).reshape(-1)
        end = np.append(episode[1:] != episode[:-1], True)[:rows]
    else:
        end = terminated | truncated
        if "truncated" not in parts:
            notes.append(_without_flags(path, parts, names, end))
        end[-1:] = True
    keep, following = np.ones(rows, np.bool_), np.zeros(rows, np.bool_)
    if "next_obs" not in parts:
        keep = ~end | terminated
        following[:-1] = ~keep[1:] & ~end[:-1]  # the last row with a successor of an episode that was cut
        truncated = (truncated & keep) | following
    zero = end & keep & ("next_obs" not in parts)
    last = np.flatnonzero((end & keep) | following)
    lengths = np.diff(np.cumsum(keep)[last], prepend=0)
    ends = np.flatnonzero(end)
    begins = np.append(0, ends[:-1] + 1)[np.searchsorted(ends, last)]
    truncated[last[np.asarray(unmarked, np.int64)]] = False
    if not keep.all():
        notes.append(f"{rows - int(keep.sum())} rows are left out: the last ones of cut episodes, whose successors were not recorded")
    if zero.any():
        notes.append(f"{int(zero.sum())} terminal rows have zeros as successor, since theirs were not recorded: no model should learn them")
    return Layout(keep, zero, terminated, truncated, lengths, begins), notes


def _without_flags(path: Path, parts: Mapping[str, Column], names: Mapping[str, str], end: Array) -> str:
    """Mark in `end` [N] where an episode was cut though no flag says so -> a sentence on it; UserError where every second row would be."""
    absent = f"no {names['truncated']} were recorded"
    if "next_obs" not in parts:
        return f"{absent}: where an episode was cut cannot be told, so that the next one's first observation is taken as its successor"
    rows, count = len(end), 0
    for start in range(0, rows - 1, CHUNK):
        obs, following = parts["obs"][start : start + CHUNK + 1], parts["next_obs"][start : start + CHUNK]
        broken = (obs[1:] != following[: len(obs) - 1]).any(1) & ~end[start : start + len(obs) - 1]
        count += int(broken.sum())
        end[start : start + len(broken)] |= broken
    if 2 * count > rows - 1:
        first = int(np.flatnonzero(end)[0])
        expected = f"{names['obs']} of the following row, from which {count} of {rows} rows differ"
        raise UserError(f"{path}: {names['next_obs']} of row {first}: expected the {expected}")
    return f"{absent}: {count} episodes end where {names['next_obs']} differs from the following row's {names['obs']}"


def _flags(path: Path, name: str, column: Column) -> Array:
    """A column of 0 and 1 as booleans [N]."""
    values = np.asarray(column[:]).reshape(-1)
    if values.dtype.kind != "b":
        wrong = ~np.isin(values, (0, 1))
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            raise UserError(f"{path}: {name} of row {row}: expected 0 or 1, got {values[row]!s}")
    return values.astype(np.bool_)


def _stream(parts: Mapping[str, Column], layout: Layout, discrete: bool, start: int, stop: int) -> Iterator[Columns]:
    """Rows start to stop of the data set."""
    ends = ends_of(layout.lengths)
    first, final = (_row_of_file(layout, ends, row) for row in (start, stop - 1))
    done = start
    for begin in range(first, final + 1, CHUNK):
        behind = min(begin + CHUNK, final + 1)
        keep, zero = layout.keep[begin:behind], layout.zero[begin:behind]
        obs = parts["obs"][begin : behind + ("next_obs" not in parts)]
        if "next_obs" in parts:
            following = parts["next_obs"][begin:behind]
        else:
            following = successors(obs, zero, np.zeros((int(zero.sum()), obs.shape[1]), obs.dtype))
        action, reward = parts["action"][begin:behind], parts["reward"][begin:behind].reshape(-1)
        action = action.reshape(-1) if discrete else action.reshape(len(action), -1)
        flags = layout.terminated[begin:behind], layout.truncated[begin:behind]
        count = int(keep.sum())
        columns = (column[keep] for column in (obs[: behind - begin], action, reward, following, *flags))
        yield Columns(*columns, episodes_of(ends, done, done + count))  # type: ignore[call-arg]
        done += count


def _row_of_file(layout: Layout, ends: Integers, row: int) -> int:
    """Number in the file of a row of the data set."""
    episode = int(np.searchsorted(ends, row, side="right"))
    return int(layout.begins[episode] + row - (ends[episode] - layout.lengths[episode]))
