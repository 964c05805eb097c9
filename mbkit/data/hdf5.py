"""HDF5 files of other people: opened read-only, every failure one sentence, nothing followed to another file.

Letters: N rows, O observation, A action.
"""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import h5py
import numpy as np

from mbkit.errors import UserError
from mbkit.registry import nearest
from mbkit.storage import replacing_path

SIGNATURE = b"\x89HDF\r\n\x1a\n"
NUMERIC = "biuf"  # kinds of NumPy's real numbers


@contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """The file, open to be read; UserError where it is absent, cut short or damaged, also while it is read."""
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, RuntimeError, KeyError) as error:
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        raise UserError(f"{path} cannot be read: expected an HDF5 file, found a damaged, cut or foreign one ({reason})") from error


class Sink(io.RawIOBase):
    """A file for HDF5 to write to, whose failed writes are kept as `error`: the library itself crashes where a disk is full."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.error: OSError | None = None

    def write(self, content: Any) -> int:
        """Write bytes at the present position, unless a write failed before."""
        view = memoryview(content).cast("B")
        size = len(view)
        try:
            while len(view) and self.error is None:
                view = view[self.file.write(view) :]
        except OSError as error:
            self.error = error
        return size

    def readinto(self, buffer: Any) -> int:
        """Read bytes at the present position; zeros behind the end."""
        content = self.file.read(memoryview(buffer).nbytes)
        view = memoryview(buffer).cast("B")
        view[: len(content)] = content
        view[len(content) :] = bytes(len(view) - len(content))
        return len(view)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Set the position."""
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        """The position."""
        return self.file.tell()

    def truncate(self, size: int | None = None) -> int:
        """Set the length of the file."""
        return self.file.truncate(size)

    def check(self) -> None:
        """Raise the error of the first write that failed."""
        if self.error is not None:
            raise self.error


@contextmanager
def replacing(path: Path) -> Iterator[tuple[h5py.File, Callable[[], None]]]:
    """A new HDF5 file that replaces `path` once it is complete, and a function that raises if the disk refused a write so far."""
    with replacing_path(path) as temporary, open(temporary, "wb+", buffering=0) as file:
        sink = Sink(cast(BinaryIO, file))
        try:
            with h5py.File(sink, "w") as created:
                yield created, sink.check
        finally:
            sink.check()


def child(group: h5py.Group, path: Path, name: str, kind: type, what: str = "") -> Any:
    """A data set or group by its name; UserError with the nearest name where it is absent or lies in another file."""
    link = group.get(name, getlink=True)
    if link is None:
        raise UserError(f"{path}: expected a column {what or name!r}; {nearest(name, list(group))}")
    item = group[name] if isinstance(link, h5py.HardLink) else None
    if isinstance(item, h5py.Dataset) and (item.external or item.is_virtual):
        item = None
    if not isinstance(item, kind):
        raise UserError(f"{path}: expected {what or name!r} to be a {kind.__name__.lower()} of this file, got something else")
    return item


def column(group: h5py.Group, path: Path, name: str, axes: int | None = None, what: str = "") -> h5py.Dataset:
    """A column of numbers; UserError where it is absent, holds no numbers, or has another number of axes than `axes`."""
    item = child(group, path, name, h5py.Dataset, what)
    check_numbers(path, what or name, item.dtype, item.shape, axes)
    return item


def check_numbers(path: Path, what: str, dtype: np.dtype[Any], shape: tuple[int, ...] | None, axes: int | None = None) -> None:
    """UserError unless this is an array of real numbers with at least one axis, or with `axes` of them."""
    if shape is None or dtype.kind not in NUMERIC:
        raise UserError(f"{path}: {what}: expected numbers, got {'nothing' if shape is None else dtype.name}")
    if len(shape) != axes if axes is not None else not shape:
        raise UserError(f"{path}: {what}: expected {axes or 'at least 1'} {'axis' if axes == 1 else 'axes'}, got shape {list(shape)}")


def check_lengths(path: Path, lengths: dict[str, int]) -> int:
    """The common length of columns; UserError where they differ."""
    if len(set(lengths.values())) > 1:
        named = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise UserError(f"{path}: expected columns of equal lengths, got {named}")
    return next(iter(lengths.values()))
