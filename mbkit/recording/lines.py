"""Appending JSON lines to a file that may fill the disk, be deleted, or be shorter than at the checkpoint."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mbkit.errors import UserError


class Lines:
    """An open file of JSON objects, one a line, without an incomplete last one; every failure of the system's is a UserError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._told():
            self._file = open(path, "ab", buffering=0)  # noqa: SIM115 - lives as long as its recorder
        try:
            self.truncate(self.position())
        except BaseException:
            self.close()
            raise

    def write(self, row: Mapping[str, Any]) -> None:
        """Append one line.

        Raises:
            UserError: the disk is full, or the file is no longer where it was.
        """
        self.check_present()
        line, before = memoryview(json.dumps(row, allow_nan=False).encode() + b"\n"), os.fstat(self._file.fileno()).st_size
        with self._told():
            try:
                while line:  # a disk that fills up takes a part
                    line = line[self._file.write(line) :]
            except OSError:
                self._file.truncate(before)
                raise

    def position(self) -> int:
        """Length of the file in bytes, after synchronising it with the disk."""
        self.check_present()
        with self._told():
            os.fsync(self._file.fileno())
            return os.fstat(self._file.fileno()).st_size

    def truncate(self, position: int) -> int:
        """Cut the file behind the last whole line within `position` bytes; returns the bytes that are missing to `position`."""
        with self._told():
            content = self.path.read_bytes()
            self._file.truncate(content.rfind(b"\n", 0, position) + 1)
        return max(position - len(content), 0)

    def check_present(self) -> None:
        """UserError where the file was deleted, moved or replaced since it was opened."""
        try:
            present = os.path.samestat(os.stat(self.path), os.fstat(self._file.fileno()))
        except OSError:
            present = False
        if not present:
            raise UserError(f"{self.path} was deleted or moved while the run wrote to it, so that the run stops here")

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(f"{self.path} cannot be written ({error.strerror}); the last checkpoint is from before") from error
