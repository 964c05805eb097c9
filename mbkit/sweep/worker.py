"""One run of a sweep in a process of its own: every backend calls `run_one`, so that they end with the same files.

`python -m mbkit.sweep.worker` reads a task from its standard input, which stays open: where the process that holds the other end is gone,
also by SIGKILL, the run stops at a checkpoint.
"""

import json
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from threading import Thread
from typing import Any, Literal, NamedTuple

from mbkit.config.threads import wait_passively
from mbkit.errors import Interrupted, UserError
from mbkit.paths import exists, is_file, make_folder, matching

Status = Literal["finished", "stopped", "failed", "busy"]


class Job(NamedTuple):
    """What is to be run, and where."""

    name: str  # of the run in its sweep
    algo: str
    arguments: list[str]  # of `train`
    directory: str  # of the run
    threads: int = 1  # for which a cluster reserves cores

    @property
    def log(self) -> Path:
        """The file of what the run says, beside its directory."""
        return Path(f"{self.directory}.log")


class Outcome(NamedTuple):
    """How an attempt at a run ended, and why where it did not finish; busy: another process is at it."""

    status: Status
    reason: str = ""


def is_finished(directory: str | Path) -> bool:
    """Whether the run in this directory came to its end."""
    return is_file(Path(directory) / "summary.json")


def run_one(task: Job) -> Outcome:
    """Train the task, or go on with it from its last checkpoint, or do nothing where it is finished; never raises."""
    folder = Path(task.directory).parent
    try:
        make_folder(folder)
        with ExitStack() as opened:
            try:
                opened.enter_context(locked(task))
            except UserError as busy:
                return Outcome("busy", str(busy))
            if is_finished(task.directory):
                return Outcome("finished")
            file = opened.enter_context(open(task.log, "a", buffering=1, encoding="utf-8"))
            opened.enter_context(redirect_stdout(file))
            opened.enter_context(redirect_stderr(file))
            return attempted(task)
    except (OSError, UserError) as error:  # the disk
        return Outcome("failed", " ".join(str(error).split()))


@contextmanager
def locked(task: Job) -> Iterator[None]:
    """No other process is at this task meanwhile, from before its directory is made."""
    from mbkit.recording.lock import run_lock

    path = Path(task.directory)
    with run_lock(path.parent, f".{path.name}.lock"):
        yield


def attempted(task: Job) -> Outcome:
    """One attempt, whose exceptions become an outcome, with their traceback in the log."""
    try:
        train_or_resume(task)
    except (Interrupted, KeyboardInterrupt) as stop:
        return Outcome("stopped", str(stop))
    except UserError as error:
        print(f"mbkit: {error}", file=sys.stderr)
        return Outcome("failed", " ".join(str(error).split()))
    except Exception as error:  # of mbkit, or of the user's code
        traceback.print_exc()
        return Outcome("failed", f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}")
    return Outcome("finished")


def train_or_resume(task: Job) -> None:
    """A run that has a checkpoint goes on from it; one that ended before its first begins again."""
    from mbkit import run
    from mbkit.recording.progress import verbosity

    directory = Path(task.directory)
    with verbosity("normal"):
        if matching(directory / "checkpoint", "step-*.pt"):
            run.resume(directory)
            return
        if exists(directory):
            shutil.rmtree(directory)
        run.train(task.algo, *task.arguments, run_dir=str(directory))


# --- as a process ---------------------------------------------------------------------------------------------------------------------


def stop_without(driver: Any) -> None:
    """Ask this process to stop once the other end of the pipe is closed."""
    driver.read()
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    """Read a task, run it, and answer with its outcome, one line of JSON on what was the standard output."""
    wait_passively()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a task of the user prints goes to the log
    message: Mapping[str, Any] = json.loads(sys.stdin.readline())
    Thread(target=stop_without, args=(sys.stdin,), daemon=True).start()
    outcome = run_one(Job(**message))
    with suppress(BrokenPipeError):  # the process that watched over the run was killed; its results lie in its directory
        answers.write(json.dumps(outcome._asdict()) + "\n")
        answers.flush()
    os._exit(0)  # threads of simulators and of the pipe end with the process


if __name__ == "__main__":
    main()
