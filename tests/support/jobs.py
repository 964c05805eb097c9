"""Commands that run beside a test, to be stopped by a signal."""

import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

hear_ctrl_c = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # in the child, where the tests run in the background, which ignores it


@contextmanager
def job(command: Sequence[str], folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process in `folder`, whose output is read; ended in any case.

    SIGINT stops it as in a terminal, also where the tests run in the background, which ignores it.
    """
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=hear_ctrl_c)
    try:
        yield process
    finally:
        process.kill()
