"""Files that are there whole or not at all: atomic durable writes, JSON, YAML, and tensors without pickle."""

import json
import math
import os
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, BinaryIO
from zipfile import BadZipFile, ZipFile

import torch

from mbkit.errors import UserError
from mbkit.types import State

DIRECTORY = 0x10  # bit that marks a zip entry as a directory: torch.load would fill its tensor with uninitialised memory


@contextmanager
def replacing(path: str | Path) -> Iterator[BinaryIO]:
    """A binary file that takes the place of `path` once it is written and on the disk; after an error nothing has changed.

    Raises:
        UserError: the disk refused (full, read-only, gone).
    """
    path = Path(path)
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_directory(path.parent)
    except (OSError, RuntimeError) as error:
        cause = error if isinstance(error, OSError) else error.__context__  # torch.save wraps it in trying to end the archive
        if not isinstance(cause, OSError):
            raise
        raise UserError(f"{path} cannot be written ({cause.strerror or cause})") from error
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
    """The value as valid JSON can hold it: what is not finite becomes null, paths become text, tuples lists."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value) if isinstance(value, Path) else value


def write_text(path: str | Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with replacing(path) as file:
        file.write(text.encode())


def write_json(path: str | Path, value: Any) -> None:
    """Write valid JSON (null for NaN and infinities), whole or not at all."""
    write_text(path, json.dumps(plain(value), indent=2, allow_nan=False) + "\n")


def read_json(path: str | Path) -> Any:
    """The content of a JSON file; UserError where there is none, or something else."""
    try:
        return json.loads(Path(path).read_text())
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON: {error}") from error


def write_tensors(path: str | Path, kind: str, content: Mapping[str, Any]) -> None:
    """Write tensors, numbers, strings and containers of them, whole or not at all; `read_tensors` takes them back."""
    with replacing(path) as file:
        torch.save({"format": kind, **content}, file)


def read_tensors(path: str | Path, kind: str, parts: Mapping[str, type]) -> State:
    """What `write_tensors` wrote as `kind`, on the CPU and without pickle; `parts` are the keys it must have and their types.

    Raises:
        UserError: the file is absent, cut short, fails its checksums (torch.load doesn't compare them), lacks a part, or is something else.
    """
    content = None
    try:
        with ZipFile(path) as archive:
            empty = any(entry.external_attr & DIRECTORY for entry in archive.infolist())
            if archive.testzip() is None and not empty:
                content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f"there is no file {path}: expected {kind!r}") from error
    except (OSError, BadZipFile, zlib.error, RuntimeError, EOFError, ValueError, LookupError, TypeError, UnpicklingError) as error:
        raise UserError(f"{path} cannot be read: expected {kind!r}, found a damaged or foreign file") from error
    if isinstance(content, dict) and content.get("format") == kind and all(isinstance(content.get(k), t) for k, t in parts.items()):
        return content
    raise UserError(f"{path} cannot be read: expected {kind!r}, found a damaged or foreign file")
