"""Commands that run beside a test, to be stopped by a signal."""

import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path


@contextmanager
def job(command: Sequence[str], folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process in `folder`, whose output is read; ended in any case.

    SIGINT stops it as in a terminal, also where the tests run in the background, which ignores it.
    """
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heard)
    try:
        yield process
    finally:
        process.kill()
