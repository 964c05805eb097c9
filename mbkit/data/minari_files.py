"""Minari's two layouts on disk, read without Minari: one HDF5 file of groups, or a folder of Arrow or Parquet files for each episode.

Letters: T steps of an episode, B rows, O observation.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import h5py
import numpy as np
from gymnasium import spaces

from mbkit.data import hdf5
from mbkit.data.columns import Array
from mbkit.data.nested import Space, flattened, parts_of
from mbkit.errors import UserError
from mbkit.paths import matching
from mbkit.storage import read_json

MAIN = "main_data.hdf5"
STEPS = ("rewards", "terminations", "truncations")  # columns with one number a step

COLUMNS = ("observations", "actions", *STEPS)


class Facts(NamedTuple):
    """What is known of an episode before its rows are read."""

    id: int
    seed: int | None
    steps: int  # T
    dropped: tuple[str, ...]  # what no column of a data set holds


class EpisodeFiles(Protocol):
    """EpisodeFiles by number, open to be read."""

    def facts(self, episode: int) -> Facts:
        """Id, seed and length; UserError unless it has T steps and T + 1 observations."""

    def observations(self, episode: int, start: int, stop: int, space: Space) -> Array:
        """Observations start to stop - 1 of the T + 1, [B, O]."""

    def actions(self, episode: int, start: int, stop: int, space: Space) -> Array:
        """Actions [B, ...]."""

    def steps(self, episode: int, name: str, start: int, stop: int) -> Array:
        """One of STEPS, [B]."""


def _whole(value: Any) -> int | None:
    """A whole number of a file's; None where it is none."""
    return int(value) if isinstance(value, int | np.integer) else None


def check_steps(path: Path, episode: int, counts: dict[str, int]) -> None:
    """UserError unless an episode has as many actions, rewards and flags as steps, and one observation more."""
    steps = counts["rewards"]
    if counts["observations"] != steps + 1 or len({count for name, count in counts.items() if name != "observations"}) > 1:
        named = ", ".join(f"{count} {name}" for name, count in counts.items())
        raise UserError(f"{path}: episode {episode}: expected T + 1 observations and T of all others, got {named}")


class Groups:
    """Episodes as groups `episode_0`, `episode_1`, ... of one HDF5 file, by h5py's low-level calls: files have many small arrays.

    Args:
        file: the file, open.
        path: for messages.
        space: of the observations.
    """

    def __init__(self, file: h5py.File, path: Path, space: Space) -> None:
        self.file, self.path = file, path
        foreign = file.id.links.visit(lambda name, link: None if link.type == h5py.h5l.TYPE_HARD else name, info=True)
        if foreign is not None:
            raise UserError(f"{path}: expected {foreign.decode()!r} to be a group or an array of this file, got a link")
        self.first_leaf = "observations"
        while parts := parts_of(space):
            self.first_leaf += "/" + _stored_name(space, parts[0][0])
            space = parts[0][1]

    def facts(self, episode: int) -> Facts:
        """As `EpisodeFiles`."""
        try:
            group = h5py.h5g.open(self.file.id, f"episode_{episode}".encode())
        except (KeyError, ValueError) as error:
            raise UserError(f"{self.path}: expected a group episode_{episode}, got none") from error
        counts = {name: self._open(episode, self.first_leaf if name == "observations" else name).shape[0] for name in COLUMNS}
        check_steps(self.path, episode, counts)
        number, seed = (_attribute(group, name) for name in ("id", "seed"))
        options = any(h5py.h5a.open(group, index=n).name.startswith(b"options") for n in range(h5py.h5a.get_num_attrs(group)))
        dropped = ("infos",) * (b"infos" in group) + ("options",) * options
        return Facts(episode if number is None else number, seed, counts["rewards"], dropped)

    def observations(self, episode: int, start: int, stop: int, space: Space) -> Array:
        """As `EpisodeFiles`."""

        def child(name: Any, parent: Space, key: str) -> str:
            return f"{name}/{_stored_name(parent, key)}"

        return flattened(space, "observations", child, lambda name, leaf: self.steps(episode, name, start, stop))

    def actions(self, episode: int, start: int, stop: int, space: Space) -> Array:
        """As `EpisodeFiles`."""
        return self.steps(episode, "actions", start, stop)

    def steps(self, episode: int, name: str, start: int, stop: int) -> Array:
        """As `EpisodeFiles`."""
        item = self._open(episode, name)
        if start > 0 or stop < item.shape[0]:
            return np.asarray(h5py.Dataset(item)[start:stop])
        rows = np.empty(item.shape, item.dtype)
        item.read(h5py.h5s.ALL, h5py.h5s.ALL, rows)
        return rows

    def _open(self, episode: int, name: str) -> h5py.h5d.DatasetID:
        """A column of numbers; UserError where it is absent, is something else, or lies outside of this file."""
        what = f"episode_{episode}/{name}"
        try:
            item = h5py.h5d.open(self.file.id, what.encode())
        except (KeyError, ValueError, TypeError) as error:
            raise UserError(f"{self.path}: expected a column {what!r}, got none") from error
        stored = item.get_create_plist()
        if stored.get_external_count() or stored.get_layout() == h5py.h5d.VIRTUAL:
            raise UserError(f"{self.path}: expected {what!r} to be an array of this file, got a reference to another")
        hdf5.check_numbers(self.path, what, item.dtype, item.shape, 1 if name in STEPS else None)
        return item


def _stored_name(space: Space, key: str) -> str:
    """What the part of a Dict or Tuple is called in HDF5."""
    return f"_index_{key}" if isinstance(space, spaces.Tuple) else key


def _attribute(group: Any, name: str) -> int | None:
    """A whole number among a group's attributes."""
    if not h5py.h5a.exists(group, name.encode()):
        return None
    attribute = h5py.h5a.open(group, name.encode())
    if attribute.shape != () or attribute.dtype.kind not in "iu":
        return None
    value = np.empty((), attribute.dtype)
    attribute.read(value)
    return int(value)


class Folders:
    """EpisodeFiles as folders 0, 1, ... of Arrow or Parquet files, whose last row holds the final observation and padding."""

    def __init__(self, path: Path, suffix: str) -> None:
        self.path, self.suffix = path, suffix
        self.loaded: tuple[int, Any] = (-1, None)  # the episode whose table is in memory

    def facts(self, episode: int) -> Facts:
        """As `EpisodeFiles`."""
        metadata = read_json(self.path / str(episode) / "metadata.json")
        table = self._table(episode)
        for name in COLUMNS:
            if name not in table.column_names:
                raise UserError(f"{self.path}: episode {episode}: expected a column {name!r}; it has {', '.join(table.column_names)}")
        steps = metadata.get("total_steps") if isinstance(metadata, dict) else None
        if not isinstance(steps, int):
            raise UserError(f"{self.path}: episode {episode}: expected total_steps in its metadata.json, got {metadata!r:.60}")
        check_steps(self.path, episode, {"observations": table.num_rows, **dict.fromkeys(("actions", *STEPS), steps)})
        seed, number = _whole(metadata.get("seed")), _whole(metadata.get("id"))
        dropped = ("infos",) * ("infos" in table.column_names) + ("options",) * ("options" in metadata)
        return Facts(episode if number is None else number, seed, steps, dropped)

    def observations(self, episode: int, start: int, stop: int, space: Space) -> Array:
        """As `EpisodeFiles`."""
        return self._rows(episode, "observations", start, stop, space)

    def actions(self, episode: int, start: int, stop: int, space: Space) -> Array:
        """As `EpisodeFiles`."""
        return self._rows(episode, "actions", start, stop, space)

    def steps(self, episode: int, name: str, start: int, stop: int) -> Array:
        """As `EpisodeFiles`."""
        return self._rows(episode, name, start, stop, None)

    def _rows(self, episode: int, name: str, start: int, stop: int, space: Space | None) -> Array:
        """Rows of a column; actions and numbers are not flattened."""
        column = self._column(episode, name).slice(start, stop - start)
        try:
            if name == "observations" and space is not None:
                rows = flattened(space, column, lambda node, parent, key: node.field(key), _arrow_rows)
            else:
                rows = _arrow_rows(column, space)
        except (ValueError, LookupError, TypeError, AttributeError, NotImplementedError) as error:  # pyarrow's own errors are among them
            reason = str(error).partition("\n")[0]
            raise UserError(f"{self.path}: {name} of episode {episode}: expected values of the space, got others ({reason})") from error
        if rows.dtype.kind not in hdf5.NUMERIC:
            raise UserError(f"{self.path}: {name} of episode {episode}: expected numbers, got {column.type}")
        return rows

    def _column(self, episode: int, name: str) -> Any:
        column = self._table(episode).column(name).combine_chunks()
        return column.chunk(0) if hasattr(column, "chunk") else column

    def _table(self, episode: int) -> Any:
        """All rows of an episode."""
        if self.loaded[0] != episode:
            self.loaded = episode, self._load(episode)
        return self.loaded[1]

    def _load(self, episode: int) -> Any:
        arrow = pyarrow(self.path)
        files = matching(self.path / str(episode), f"part-*.{self.suffix}")
        if not files:
            raise UserError(f"{self.path}: expected part-0.{self.suffix} in the folder {episode}, got none")
        try:
            if self.suffix == "parquet":
                from pyarrow import parquet

                return arrow.concat_tables([parquet.ParquetFile(file).read() for file in files])
            tables = []
            for file in files:
                with arrow.OSFile(str(file)) as source:
                    tables.append(arrow.ipc.open_file(source).read_all())
            return arrow.concat_tables(tables)
        except (OSError, ValueError, KeyError) as error:  # pyarrow's own errors are among them
            reason = str(error).partition("\n")[0]
            raise UserError(f"{files[0]} cannot be read: expected {self.suffix}, found a damaged or foreign file ({reason})") from error


def _arrow_rows(column: Any, space: Space | None) -> Array:
    """The values [B, ...] of a column of numbers or of lists of one length."""
    if hasattr(column.type, "list_size"):
        flat = column.flatten().to_numpy(zero_copy_only=False)
        return np.asarray(flat).reshape(len(column), *((space.shape or ()) if space is not None else (-1,)))
    return np.asarray(column.to_numpy(zero_copy_only=False))


def pyarrow(path: Path) -> Any:
    """The package that reads Arrow and Parquet; UserError where it is not installed."""
    try:
        import pyarrow
        import pyarrow.ipc
    except ImportError as error:
        raise UserError(f"{path} holds Arrow or Parquet files: reading them needs pyarrow, of mbkit[parquet]") from error
    return pyarrow


@contextmanager
def layout_of(folder: Path, kind: Any, space: Space) -> Iterator[EpisodeFiles]:
    """The episodes of a folder whose metadata say data_format `kind`; `space` is that of the observations."""
    if kind == "hdf5":
        with hdf5.opened(folder / MAIN) as file:
            yield Groups(file, folder / MAIN, space)
    elif kind in ("arrow", "parquet"):
        yield Folders(folder, kind)
    else:
        raise UserError(f"{folder}: expected data_format hdf5, arrow or parquet, got {json.dumps(kind):.60}")
