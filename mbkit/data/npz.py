"""NumPy's .npz: columns obs, action, reward, terminated, and if known next_obs, truncated, episode; or D4RL's names of them.

Members are read as streams, without pickle: the header of every member is looked at, whether or not it is a column.

Letters: N rows.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast
from zipfile import ZIP_STORED, ZipFile

import numpy as np

from mbkit.data import about, d4rl, flat
from mbkit.data.columns import CHUNK, Array
from mbkit.data.dataset import Dataset
from mbkit.data.hdf5 import NUMERIC
from mbkit.errors import UserError
from mbkit.storage import UNREADABLE, replacing_path

ZIP = b"PK\x03\x04"
NAMES = {name: name for name in ("obs", "action", "reward", "terminated", "next_obs", "truncated", "episode")}
ABOUT = "mbkit"
KINDS = NUMERIC + "SU"  # numbers, and texts, which are not read
HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


class Member:
    """An array in an archive, of which slices are read in order; one may begin at the last row of the slice before."""

    def __init__(self, archive: ZipFile, name: str) -> None:
        self.file = cast(BinaryIO, archive.open(name))
        version = np.lib.format.read_magic(self.file)
        if version not in HEADERS:
            raise ValueError(f"version {version} of NumPy's format")
        self.shape, self.by_column, self.dtype = HEADERS[version](self.file)
        self.before, self.row = np.empty((0, *self.shape[1:]), self.dtype), 0  # the rows last read, and the number of the first of them

    def __getitem__(self, rows: slice, /) -> Array:
        """The rows from `start` to `stop`."""
        start, stop, _ = rows.indices(self.shape[0])
        if self.by_column and not len(self.before):
            self.before = self._read(self.shape[0]).reshape(-1).reshape(self.shape, order="F")
        if self.by_column:
            return self.before[start:stop]
        end = self.row + len(self.before)
        while end < start:
            end += len(self._read(min(CHUNK, start - end)))
        overlap = self.before[start - self.row :] if start < self.row + len(self.before) else self.before[:0]
        fresh = self._read(stop - start - len(overlap))
        self.before, self.row = np.concatenate([overlap, fresh]) if len(overlap) else fresh, start
        return self.before

    def _read(self, rows: int) -> Array:
        """The next rows."""
        width = int(np.prod(self.shape[1:])) * self.dtype.itemsize
        content = self.file.read(rows * width)
        if len(content) < rows * width:
            raise ValueError("an array is shorter than its header says")
        return np.frombuffer(content, self.dtype).reshape(rows, *self.shape[1:])


def recognises(path: Path, head: bytes) -> bool:
    """Whether this is an archive of arrays, with at least two columns of a data set."""
    if head[:4] != ZIP:
        return False
    with opened_archive(path) as archive:
        names = {name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")}
        return any(len(names & set(known.values())) >= 2 for known in (NAMES, d4rl.NAMES))


@contextmanager
def opened_archive(path: Path) -> Iterator[ZipFile]:
    """The archive, open to be read; UserError where it is damaged, also while it is read."""
    try:
        with ZipFile(path) as archive:
            yield archive
    except UNREADABLE as error:
        raise UserError(f"{path} cannot be read: expected an archive of arrays (.npz), found a damaged or foreign one ({error})") from error


def read(path: Path, low: Any = None, high: Any = None, choices: int | None = None, env: str | None = None) -> Dataset:
    """The data set in an archive of arrays.

    Args:
        path: the file.
        low: bounds of the actions, one or one for each dimension; needed unless mbkit wrote the file.
        high: as `low`.
        choices: number of discrete actions.
        env: id of the environment.

    Raises:
        UserError: an array of objects, a column that is absent or does not fit the others, or nothing known of the actions.
    """
    options = {"low": low, "high": high, "choices": choices, "env": env}
    with opened_members(path) as members:
        for name, member in members.items():
            if member.dtype.kind not in KINDS:
                raise UserError(f"{path}: {name}: expected numbers, got {member.dtype.name}, which is not read")
        names = max((NAMES, d4rl.NAMES), key=lambda known: len(set(members) & set(known.values())))
        facts = _facts(path, members, names, options)

    @contextmanager
    def opened() -> Iterator[Mapping[str, flat.Column]]:
        with opened_members(path) as members:
            yield members

    return flat.read(path, "npz", opened, names, facts)


@contextmanager
def opened_members(path: Path) -> Iterator[dict[str, Member]]:
    """The arrays of an archive by name."""
    with opened_archive(path) as archive, ExitStack() as stack:
        members = {}
        for name in archive.namelist():
            if name.endswith(".npy"):
                member = Member(archive, name)
                stack.callback(member.file.close)
                members[name.removesuffix(".npy")] = member
        yield members


def _facts(path: Path, members: Mapping[str, Member], names: Mapping[str, str], options: dict[str, Any]) -> dict[str, Any]:
    """What is known beside the rows: from the archive where mbkit wrote it, or from the options."""
    if ABOUT in members:
        return about.from_marked(members[ABOUT][:].astype(np.uint8).tobytes(), path, options)
    facts: dict[str, Any] = {"env": options["env"]}
    others = sorted(set(members) - set(names.values()))
    notes = [f"left out, since no column of a data set holds them: {', '.join(others)}"] if others else []
    if names["action"] in members:
        facts |= flat.action_choices(path, names["action"], members[names["action"]], options, assumed=names is d4rl.NAMES)
    return {**facts, "notes": [*facts.get("notes", []), *notes]}


def write(data: Dataset, path: Path) -> Path:
    """Write the data set, whole or not at all; the rows are read once for each column, so that memory holds one chunk."""
    with replacing_path(path) as temporary, ZipFile(temporary, "w", ZIP_STORED) as archive:
        for number, name in enumerate(NAMES):
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                for row, chunk in enumerate(data.raw() if number else data.chunks()):
                    values = np.ascontiguousarray(getattr(chunk, name))
                    if not row:
                        _header(cast(BinaryIO, file), (data.rows, *values.shape[1:]), values.dtype)
                    file.write(values.tobytes())
        with archive.open(f"{ABOUT}.npy", "w") as file:
            np.lib.format.write_array(cast(BinaryIO, file), np.frombuffer(about.marked(data, []).encode(), np.uint8), allow_pickle=False)
    return path


def _header(file: BinaryIO, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """What an array begins with in NumPy's format."""
    facts = {"shape": shape, "fortran_order": False, "descr": np.lib.format.dtype_to_descr(dtype)}
    np.lib.format.write_array_header_2_0(file, facts)
