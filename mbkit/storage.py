"""Atomic and durable file writes, JSON, and tensors without pickle: after a crash a file has its old or its new content, not a mixture."""

import json
import math
import os
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, BinaryIO
from zipfile import ZIP_STORED, BadZipFile, ZipFile

import torch

from mbkit.errors import UserError
from mbkit.paths import check_file, read_text, reason, short
from mbkit.types import State

DIRECTORY = 0x10  # bit that marks a zip entry as a directory: torch.load would fill its tensor with uninitialised memory
# what reading a damaged or foreign file raises; AttributeError, MemoryError, OverflowError: from crafted ones
UNREADABLE: tuple[type[Exception], ...] = (OSError, BadZipFile, zlib.error, RuntimeError, EOFError, ValueError, LookupError, TypeError)
UNREADABLE += (UnpicklingError, AttributeError, MemoryError, OverflowError)


@contextmanager
def replacing(path: str | Path) -> Iterator[BinaryIO]:
    """A binary file that replaces `path` once it is complete and on the disk; after an error `path` is unchanged.

    Raises:
        UserError: the disk is full or read-only, or the directory does not exist.
    """
    path = Path(path)
    check_file(path)
    with _renamed_to(path, path.with_name(f"{path.name}.tmp")) as temporary, open(temporary, "wb") as file:
        yield file


@contextmanager
def replacing_path(path: str | Path) -> Iterator[Path]:
    """As `replacing`, for a writer that needs a path: that of a temporary file with the same extension."""
    path = Path(path)
    check_file(path)
    with _renamed_to(path, path.with_name(f"{path.stem}.tmp{path.suffix}")) as temporary:
        yield temporary


@contextmanager
def _renamed_to(path: Path, temporary: Path) -> Iterator[Path]:
    """`temporary`, which is synchronised with the disk and renamed to `path` afterwards, or deleted after an error."""
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_directory(path.parent)
    except (OSError, RuntimeError) as error:
        cause = error if isinstance(error, OSError) else error.__context__  # torch.save raises RuntimeError while it closes its archive
        if not isinstance(cause, OSError):
            raise
        raise UserError(f"{short(path)} cannot be written ({reason(cause)})") from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def sync_directory(path: Path) -> None:
    """Make renames inside `path` survive a power cut, where the system can do so."""
    if os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def plain(value: Any) -> Any:
    """The value in terms of JSON: numbers that are not finite become null, paths strings, tuples lists."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value) if isinstance(value, Path) else value


def write_text(path: str | Path, text: str) -> None:
    """Write a text file atomically."""
    with replacing(path) as file:
        file.write(text.encode())


def json_text(value: Any) -> str:
    """The value as valid JSON, with null for NaN and infinities."""
    return json.dumps(plain(value), indent=2, allow_nan=False) + "\n"


def write_json(path: str | Path, value: Any) -> None:
    """Write valid JSON atomically, with null for NaN and infinities."""
    write_text(path, json_text(value))


def read_json(path: str | Path) -> Any:
    """The content of a JSON file; UserError if the file is absent or is not JSON."""
    text = read_text(path)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{short(path)} is not valid JSON: {error}") from error


def write_tensors(path: str | Path, kind: str, content: Mapping[str, Any]) -> None:
    """Write tensors, numbers, strings and containers of them atomically, for `read_tensors`; `kind` names the file type."""
    with replacing(path) as file:
        torch.save({"format": kind, **content}, file)


def load_archive(path: str | Path) -> Any:
    """The content of a file of `torch.save`, on the CPU and without pickle, once its checksums hold, which torch.load doesn't compare.

    Raises:
        BadZipFile: damaged, compressed or repeated entries, none of which torch writes.
        OSError, RuntimeError, ...: the file is absent, or no such archive; see `UNREADABLE`.
    """
    with ZipFile(path) as archive:
        entries = archive.infolist()
        for entry in entries:
            if entry.external_attr & DIRECTORY or entry.compress_type != ZIP_STORED:
                raise BadZipFile(f"its entry {entry.filename} is compressed or a directory, as torch writes none")
        if len({entry.filename for entry in entries}) < len(entries):
            raise BadZipFile("it has two entries of one name")
        damaged = archive.testzip()
        if damaged is not None:
            raise BadZipFile(f"the checksum of its entry {damaged} does not hold")
    return torch.load(path, map_location="cpu", weights_only=True)


def read_tensors(path: str | Path, kind: str, parts: Mapping[str, type]) -> State:
    """The content of a file of `write_tensors`, on the CPU and without pickle.

    Args:
        path: the file.
        kind: the file type with which it was written.
        parts: the keys that the content must have, with the types of their values.

    Raises:
        UserError: the file is absent, truncated or of another kind, fails its checksums (torch.load doesn't compare them), or lacks a part.
    """
    try:
        content = load_archive(path)
    except FileNotFoundError as error:
        raise UserError(f"there is no file {short(path)}: expected {kind!r}") from error
    except UNREADABLE as error:
        raise UserError(f"{path} cannot be read: expected {kind!r}, found a damaged or foreign file") from error
    if isinstance(content, dict) and content.get("format") == kind and all(isinstance(content.get(k), t) for k, t in parts.items()):
        return content
    raise UserError(f"{path} cannot be read: expected {kind!r}, found a damaged or foreign file")
