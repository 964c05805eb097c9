"""mbkit's own format: an HDF5 file of columns, chunked, compressed and with checksums.

The root has the attribute format="mbkit data 1". Data sets, for N rows and E episodes: obs [N, O], action [N, A] or [N], reward [N],
terminated [N], truncated [N]; length [E] and final_obs [E, O], the observation after each episode's last action, so that successors are
stored once; about, the bytes of a JSON text, since an HDF5 attribute holds 64 kB at most and provenance may be longer.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mbkit.data import about, hdf5
from mbkit.data.columns import Columns, ends_of, last_rows, successors
from mbkit.data.dataset import Dataset, rows_of
from mbkit.errors import UserError

FORMAT = "mbkit data 1"
PER_ROW = ("obs", "action", "reward", "terminated", "truncated")
BLOCK = 2**18  # bytes of an HDF5 chunk
COMPRESSED = {"compression": "gzip", "compression_opts": 1, "shuffle": True, "fletcher32": True}


def recognises(path: Path, head: bytes) -> bool:
    """Whether this is such a file, of this version or another."""
    if head[:8] != hdf5.SIGNATURE:
        return False
    with hdf5.opened(path) as file:
        return str(file.attrs.get("format", "")).startswith("mbkit data")


def read(path: Path) -> Dataset:
    """The data set in a file that `write` wrote; UserError where it is damaged or of another version."""
    with hdf5.opened(path) as file:
        version = file.attrs.get("format")
        if version != FORMAT:
            raise UserError(f"{path}: expected format {FORMAT!r}, got {version!r}")
        columns = {name: hdf5.column(file, path, name) for name in (*PER_ROW, "length", "final_obs", "about")}
        rows = hdf5.check_lengths(path, {name: len(columns[name]) for name in PER_ROW})
        hdf5.check_lengths(path, {name: len(columns[name]) for name in ("length", "final_obs")})
        lengths = columns["length"][:]
        if lengths.ndim != 1 or lengths.dtype.kind not in "iu" or int(lengths.sum()) != rows or (lengths < 0).any():
            raise UserError(f"{path}: expected lengths of episodes that add up to its {rows} rows, got another sum")
        shape = columns["obs"].shape
        facts = about.from_json(bytes(columns["about"][:].astype(np.uint8)), path)
        action = [rows] if facts["choices"] else [rows, len(facts["action_low"] or ())]
        expected = {"obs": [rows, *shape[1:2]], "final_obs": [len(lengths), *shape[1:2]], "action": action, "reward": [rows]}
        for name, dimensions in (expected | {"terminated": [rows], "truncated": [rows]}).items():
            if list(columns[name].shape) != dimensions:
                raise UserError(f"{path}: {name}: expected shape {dimensions}, got {list(columns[name].shape)}")
    return Dataset(lambda start, stop: _stream(path, ends_of(lengths), start, stop), lengths, shape[1], path, "mbkit", **facts)


def _stream(path: Path, ends: Any, start: int, stop: int) -> Iterator[Columns]:
    with hdf5.opened(path) as file:
        columns = {name: file[name] for name in PER_ROW}
        for first, behind, episode, last in rows_of(ends, start, stop):
            obs = columns["obs"][first : behind + 1]
            ended = episode[last]
            final = file["final_obs"][ended[0] : ended[-1] + 1] if len(ended) else obs[:0]
            action, reward, terminated, truncated = (columns[name][first:behind] for name in PER_ROW[1:])
            following = successors(obs, last, final)
            yield Columns(obs[: behind - first], action, reward, following, terminated.astype(bool), truncated.astype(bool), episode)


def write(data: Dataset, path: Path) -> Path:
    """Write the data set, whole or not at all; UserError where a row fails a check or the disk refuses."""
    with hdf5.replacing(path) as (file, check):
        file.attrs["format"] = FORMAT
        ends, row = ends_of(data.lengths), 0
        for chunk in data.chunks():
            last = last_rows(ends, row, row + len(chunk.reward))
            if not row:
                _create(file, chunk, data)
            for name in PER_ROW:
                file[name][row : row + len(last)] = getattr(chunk, name)
            ended = chunk.episode[last]
            if len(ended):
                file["final_obs"][ended[0] : ended[-1] + 1] = chunk.next_obs[last]
            row += len(last)
            check()
        store(file, "length", data.lengths)
        store(file, "about", np.frombuffer(about.to_json(data).encode(), np.uint8))
    return path


def _create(file: h5py.File, like: Columns, data: Dataset) -> None:
    """Empty columns with the dtypes of a chunk."""
    for name in PER_ROW:
        column = getattr(like, name)
        empty_column(file, name, (data.rows, *column.shape[1:]), column.dtype)
    empty_column(file, "final_obs", (data.episodes, *like.next_obs.shape[1:]), like.next_obs.dtype)


def empty_column(file: h5py.File, name: str, shape: tuple[int, ...], dtype: Any) -> h5py.Dataset:
    """A new data set, chunked by rows, compressed and with checksums."""
    rows = max(1, BLOCK // max(1, int(np.prod(shape[1:])) * dtype.itemsize))
    return file.create_dataset(name, shape, dtype, chunks=(min(shape[0], rows), *shape[1:]), **COMPRESSED)


def store(file: h5py.File, name: str, values: Any) -> None:
    """Write an array as a new data set."""
    empty_column(file, name, values.shape, values.dtype)[...] = values
