"""One writer for a run directory: a lock that ends with its process, however that ends; from outside it tells whether the run goes on."""

import errno
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mbkit.errors import Interrupted, UserError
from mbkit.paths import read_text

FILE = "run.lock"
FAILED = "failed: "  # at the beginning of the file of a run that an error ended
TRIES, PAUSE = 5, 0.02  # a look from outside holds the lock for less than the seconds of a pause


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


@contextmanager
def failure_noted(*directories: str | Path) -> Iterator[None]:
    """An error that ends what runs inside is noted in the lock files of these runs, whose locks the caller holds."""
    try:
        yield
    except Interrupted:
        raise
    except Exception as error:
        text = f"{FAILED}{'' if isinstance(error, UserError) else f'{type(error).__name__}: '}{error}"
        for directory in directories:
            with suppress(OSError):  # a full disk may be what ended the run
                Path(directory, FILE).write_text(f"{text}\n", encoding="utf-8")  # in place: a new file would have no lock
        raise


def _acquire(descriptor: int, directory: str | Path) -> None:
    for _ in range(TRIES - 1):
        if _locked(descriptor, exclusive=True) is not False:
            return
        time.sleep(PAUSE)
    if _locked(descriptor, exclusive=True) is False:
        holder = os.read(descriptor, 200).decode(errors="replace").strip() or "another process"
        raise UserError(f"{directory} is being trained by {holder}; stop that first, or wait for its end")


def _locked(descriptor: int, exclusive: bool) -> bool | None:
    """Whether the lock could be had; None where there are no locks."""
    try:
        import fcntl
    except ImportError:  # not a Unix
        return None
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in (errno.EWOULDBLOCK, errno.EACCES) else None  # None: a file system without locks
    return True


def is_training(directory: str | Path) -> bool | None:
    """Whether a process trains in this directory now; None where the file system has no locks, so that nobody can tell."""
    try:
        descriptor = os.open(Path(directory) / FILE, os.O_RDONLY)
    except OSError:
        return False  # it was never locked, or belongs to a user whose files are not ours to read
    try:
        free = _locked(descriptor, exclusive=False)
        return None if free is None else not free
    finally:
        os.close(descriptor)


def failure(directory: str | Path) -> str:
    """What ended the run in this directory, where that was an error; else empty."""
    try:
        text = read_text(Path(directory) / FILE, errors="replace")
    except UserError:
        return ""
    return " ".join(text.removeprefix(FAILED).split()) if text.startswith(FAILED) else ""
