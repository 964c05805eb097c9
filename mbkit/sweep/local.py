"""Runs as processes of this machine.

Each run is a process of its own, started for it. A pool of workers (joblib, concurrent.futures) loses all its tasks when one worker is
killed; here the others do not notice, and the killed one's run goes on from its checkpoint.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress

from mbkit.paths import make_folder
from mbkit.sweep.following import RunCurve
from mbkit.sweep.worker import Job, Outcome

PATIENCE = 5.0  # seconds in which a process that was killed has to be gone


def cores() -> int:
    """Cores that this process may use."""
    with suppress(AttributeError):  # not on Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class LocalBackend:
    """At most so many processes at once."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.processes: dict[str, tuple[subprocess.Popen[str], Job, RunCurve]] = {}

    def slots(self) -> int:
        """The number of workers."""
        return self.workers

    def start(self, task: Job) -> None:
        """A process in a session of its own, so that Ctrl-C reaches the driver alone, which then stops all of them in order."""
        make_folder(task.log.parent)
        command = [sys.executable, "-P", "-m", "mbkit.sweep.worker"]
        with open(task.log, "ab") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True
            )
        self.processes[task.name] = (process, task, RunCurve())
        with suppress(OSError):  # it is gone already, which its end tells
            if process.stdin is not None:
                process.stdin.write(json.dumps(task._asdict()) + "\n")
                process.stdin.flush()

    def ended(self) -> Iterator[tuple[str, Outcome]]:
        """Processes that are gone."""
        for name, (process, _, _) in list(self.processes.items()):
            if process.poll() is not None:
                del self.processes[name]
                yield name, outcome_of(process)

    def curve(self, name: str) -> RunCurve:
        """What the run has written so far."""
        _, task, curve = self.processes[name]
        curve.follow(task.directory)
        return curve

    def stop(self, name: str) -> None:
        """SIGTERM, after which a run stops at a checkpoint."""
        if name in self.processes:
            self.processes[name][0].send_signal(signal.SIGTERM)

    def close(self) -> None:
        """SIGKILL for those that are left."""
        for process, _, _ in self.processes.values():
            process.kill()
        for process, _, _ in self.processes.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(PATIENCE)
            close_pipes(process)
        self.processes.clear()


def outcome_of(process: "subprocess.Popen[str]") -> Outcome:
    """What a process answered before its end, or which signal ended it."""
    answer = process.stdout.read() if process.stdout is not None else ""
    close_pipes(process)
    with suppress(ValueError, TypeError):
        return Outcome(**json.loads(answer))
    if process.returncode < 0:
        name = signal.Signals(-process.returncode).name
        return Outcome("stopped" if name == "SIGTERM" else "failed", f"its process was ended by {name}")
    return Outcome("failed", f"its process ended with status {process.returncode} and without an answer")


def close_pipes(process: "subprocess.Popen[str]") -> None:
    """Both ends of this side."""
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(OSError):
                pipe.close()
