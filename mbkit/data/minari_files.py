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

from mbkit.data import hdf5
from mbkit.data.columns import Array
from mbkit.data.nested import Space, flattened
from mbkit.errors import UserError
from mbkit.storage import read_json

MAIN = "main_data.hdf5"
STEPS = ("rewards", "terminations", "truncations")  # columns with one number a step


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


def check_steps(path: Path, episode: int, counts: dict[str, int]) -> None:
    """UserError unless an episode has as many actions, rewards and flags as steps, and one observation more."""
    steps = counts["rewards"]
    if counts["observations"] != steps + 1 or len({count for name, count in counts.items() if name != "observations"}) > 1:
        named = ", ".join(f"{count} {name}" for name, count in counts.items())
        raise UserError(f"{path}: episode {episode}: expected T + 1 observations and T of all others, got {named}")


class Groups:
    """EpisodeFiles as groups `episode_0`, `episode_1`, ... of one HDF5 file."""

    def __init__(self, file: h5py.File, path: Path) -> None:
        self.file, self.path = file, path

    def facts(self, episode: int) -> Facts:
        """As `EpisodeFiles`."""
        group = hdf5.child(self.file, self.path, f"episode_{episode}", h5py.Group)
        actions = self._first(group, episode, "actions")
        counts = {"observations": len(self._first(group, episode, "observations")), "actions": len(actions)}
        for name in STEPS:
            counts[name] = len(hdf5.column(group, self.path, name, 1, f"episode_{episode}/{name}"))
        check_steps(self.path, episode, counts)
        seed, number = group.attrs.get("seed"), group.attrs.get("id", episode)
        dropped = ("infos",) * ("infos" in group) + ("options",) * any(key.startswith("options") for key in group.attrs)
        return Facts(int(number), None if seed is None else int(seed), counts["rewards"], dropped)

    def _first(self, group: h5py.Group, episode: int, name: str) -> h5py.Dataset:
        """The first leaf of nested groups."""
        path, what = self.path, f"episode_{episode}/{name}"
        item = hdf5.child(group, path, name, object, what)
        while isinstance(item, h5py.Group) and len(item):
            name = next(iter(item))
            item, what = hdf5.child(item, path, name, object, f"{what}/{name}"), f"{what}/{name}"
        if not isinstance(item, h5py.Dataset) or not item.shape:
            raise UserError(f"{path}: {what}: expected one row for each step, got none")
        return item

    def observations(self, episode: int, start: int, stop: int, space: Space) -> Array:
        """As `EpisodeFiles`."""
        return self._rows(episode, "observations", start, stop, space)

    def actions(self, episode: int, start: int, stop: int, space: Space) -> Array:
        """As `EpisodeFiles`."""
        rows: Array = hdf5.column(self.file, self.path, f"episode_{episode}/actions")[start:stop]
        return rows

    def steps(self, episode: int, name: str, start: int, stop: int) -> Array:
        """As `EpisodeFiles`."""
        rows: Array = self.file[f"episode_{episode}/{name}"][start:stop]
        return rows

    def _rows(self, episode: int, name: str, start: int, stop: int, space: Space) -> Array:
        what = f"episode_{episode}/{name}"

        def child(group: Any, parent: Space, key: str) -> Any:
            name = f"_index_{key}" if type(parent).__name__ == "Tuple" else key
            return hdf5.child(group, self.path, name, object, f"{what}/{name}")

        def values(item: Any, leaf: Space) -> Array:
            if not isinstance(item, h5py.Dataset):
                raise UserError(f"{self.path}: {what}: expected an array as in the observation space, got a group")
            hdf5.check_numbers(self.path, what, item.dtype, item.shape)
            rows: Array = item[start:stop]
            return rows

        return flattened(space, hdf5.child(self.file, self.path, what, object), child, values)


class Folders:
    """EpisodeFiles as folders 0, 1, ... of Arrow or Parquet files, whose last row holds the final observation and padding."""

    def __init__(self, path: Path, suffix: str) -> None:
        self.path, self.suffix = path, suffix
        self.loaded: tuple[int, Any] = (-1, None)  # the episode whose table is in memory

    def facts(self, episode: int) -> Facts:
        """As `EpisodeFiles`."""
        metadata = read_json(self.path / str(episode) / "metadata.json")
        table = self._table(episode)
        for name in ("observations", "actions", *STEPS):
            if name not in table.column_names:
                raise UserError(f"{self.path}: episode {episode}: expected a column {name!r}; it has {', '.join(table.column_names)}")
        steps = metadata.get("total_steps") if isinstance(metadata, dict) else None
        if not isinstance(steps, int):
            raise UserError(f"{self.path}: episode {episode}: expected total_steps in its metadata.json, got {metadata!r:.60}")
        check_steps(self.path, episode, {"observations": table.num_rows, **dict.fromkeys(("actions", *STEPS), steps)})
        seed, number = metadata.get("seed"), metadata.get("id", episode)
        dropped = ("infos",) * ("infos" in table.column_names) + ("options",) * ("options" in metadata)
        return Facts(int(number), None if seed is None else int(seed), steps, dropped)

    def observations(self, episode: int, start: int, stop: int, space: Space) -> Array:
        """As `EpisodeFiles`."""
        whole = self._column(episode, "observations").slice(start, stop - start)
        return flattened(space, whole, lambda node, parent, key: node.field(key), _arrow_rows)

    def actions(self, episode: int, start: int, stop: int, space: Space) -> Array:
        """As `EpisodeFiles`."""
        return _arrow_rows(self._column(episode, "actions").slice(start, stop - start), space)

    def steps(self, episode: int, name: str, start: int, stop: int) -> Array:
        """As `EpisodeFiles`."""
        rows: Array = self._column(episode, name).slice(start, stop - start).to_numpy(zero_copy_only=False)
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
        files = sorted((self.path / str(episode)).glob(f"part-*.{self.suffix}"))
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


def _arrow_rows(column: Any, space: Space) -> Array:
    """The values [B, ...] of a column of numbers or of lists of one length."""
    if hasattr(column.type, "list_size"):
        flat = column.flatten().to_numpy(zero_copy_only=False)
        return np.asarray(flat).reshape(len(column), *(space.shape or ()))
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
def layout_of(folder: Path, kind: Any) -> Iterator[EpisodeFiles]:
    """The episodes of a folder whose metadata say data_format `kind`."""
    if kind == "hdf5":
        with hdf5.opened(folder / MAIN) as file:
            yield Groups(file, folder / MAIN)
    elif kind in ("arrow", "parquet"):
        yield Folders(folder, kind)
    else:
        raise UserError(f"{folder}: expected data_format hdf5, arrow or parquet, got {json.dumps(kind):.60}")
