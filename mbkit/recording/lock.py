"""One writer for a run directory: a lock that ends with its process, however that ends."""

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mbkit.errors import UserError

FILE = "run.lock"


@contextmanager
def run_lock(directory: str | Path, file: str = FILE) -> Iterator[None]:
    """Nobody else trains or resumes the run in this directory meanwhile; `file` is the lock's, where a directory has several.

    The system drops the lock of a process that died. Where the file system has no locks there is none.

    Raises:
        UserError: somebody else does, or the directory cannot be written to.
    """
    path = Path(directory) / file
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise UserError(f"run directory {directory} cannot be written to ({error.strerror})") from error
    try:
        _acquire(descriptor, directory)
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        yield
    finally:
        os.close(descriptor)


def _acquire(descriptor: int, directory: str | Path) -> None:
    try:
        import fcntl
    except ImportError:  # not a Unix
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            return  # a file system without locks
        holder = os.read(descriptor, 200).decode(errors="replace").strip() or "another process"
        raise UserError(f"{directory} is being trained by {holder}; stop that first, or wait for its end") from error
