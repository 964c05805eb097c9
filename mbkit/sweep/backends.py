"""Where the runs of a sweep are executed: what the driver asks of a backend."""

from collections.abc import Iterable
from typing import Protocol

from mbkit.sweep.following import RunCurve
from mbkit.sweep.worker import Job, Outcome


class Backend(Protocol):
    """Processes that each execute `run_one` on a task."""

    def slots(self) -> int:
        """How many runs may be under way at once."""

    def start(self, task: Job) -> None:
        """Begin, or go on with, a run."""

    def ended(self) -> Iterable[tuple[str, Outcome]]:
        """Names and outcomes of the tasks that ended since the last call."""

    def curve(self, name: str) -> RunCurve:
        """How far a task under way is."""

    def stop(self, name: str) -> None:
        """Ask a task to stop at a checkpoint; it ends with the outcome "stopped"."""

    def close(self) -> None:
        """End what is still under way, at once."""
