"""Runs are started, followed, tried again and stopped: the same for every backend, for a grid and for a search."""

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from mbkit.errors import Interrupted
from mbkit.loops.interrupt import signal_name
from mbkit.sweep.backends import Backend
from mbkit.sweep.following import RunCurve
from mbkit.sweep.planning import Planned
from mbkit.sweep.worker import Job, Outcome, is_finished

PAUSE = 0.2  # seconds between two looks at the runs
BUSY_PAUSE = 2.0  # seconds before a run that another process is at is tried again


class RunSource(Protocol):
    """Where runs come from: a grid, or a search."""

    def take(self) -> Planned | None:
        """The next run to start, None while there is none."""

    def ended(self, run: Planned, outcome: Outcome, curve: RunCurve) -> None:
        """A run finished, failed for good, or was stopped."""

    def hopeless(self, running: Mapping[str, RunCurve]) -> list[str]:
        """Names of the running ones that are to be stopped before their end."""

    def total(self) -> int:
        """How many runs there are in all."""

    def done(self) -> int:
        """How many of them ended before and are never taken."""


class GridSource:
    """All runs of a grid that are not finished, in order."""

    def __init__(self, runs: list[Planned]) -> None:
        self.runs, self.waiting = runs, list(reversed(runs))

    def take(self) -> Planned | None:
        """The next one."""
        return self.waiting.pop() if self.waiting else None

    def ended(self, run: Planned, outcome: Outcome, curve: RunCurve) -> None:
        """Nothing depends on it."""

    def hopeless(self, running: Mapping[str, RunCurve]) -> list[str]:
        """None: a grid is trained to its end."""
        return []

    def total(self) -> int:
        """Those that were finished before too."""
        return len(self.runs)

    def done(self) -> int:
        """None: every run is taken, and those that are finished are passed over."""
        return 0


class View(Protocol):
    """What the user sees meanwhile."""

    def update(self, driver: "Driver") -> None:
        """Runs began, ended, or went on."""

    def tell(self, text: str) -> None:
        """One line."""


@dataclass
class Running:
    """A run under way."""

    run: Planned
    curve: RunCurve
    began: float = field(default_factory=time.monotonic)
    first_step: int | None = None  # where it stood when it was first looked at, for its speed
    stopping: bool = False


class Driver:
    """Executes the runs of a source on a backend.

    Args:
        directory: of the sweep.
        threads: of each run that sets none.
        retries: how often a run that failed is tried again.
    """

    def __init__(self, directory: Path, source: RunSource, backend: Backend, view: View, threads: int | None, retries: int) -> None:
        self.directory, self.source, self.backend, self.view = directory, source, backend, view
        self.threads, self.retries = threads, retries
        self.running: dict[str, Running] = {}
        self.later: list[tuple[float, Planned]] = []  # runs to try again, and when
        self.attempts: Counter[str] = Counter()
        self.failed: dict[str, str] = {}  # reason by name, of runs that failed for good
        self.finished: list[str] = []
        self.pruned: list[str] = []
        self.repeated = 0  # runs that were finished before

    def run(self) -> None:
        """Until every run has ended; Interrupted, with all of them at a checkpoint, where the user stops it."""
        try:
            while self.look():
                time.sleep(PAUSE)
        except KeyboardInterrupt as stop:
            self.stop()
            raise Interrupted(f"stopped by {signal_name(stop)}: {self.count()}; the same command goes on") from None
        finally:
            self.backend.close()

    def count(self) -> str:
        """ "3 of 12 runs are finished"."""
        return f"{self.done()} of {self.source.total()} runs are finished"

    def done(self) -> int:
        """Runs that came to their end, those of earlier calls too."""
        return self.source.done() + len(self.finished)

    def look(self) -> bool:
        """Start what can be started, take up what ended; False once there is nothing left."""
        for name, outcome in list(self.backend.ended()):
            self.take_up(self.running.pop(name), outcome)
        curves = {name: self.followed(each) for name, each in self.running.items()}
        for name in self.source.hopeless(curves):
            if name in self.running and not self.running[name].stopping:
                self.running[name].stopping = True
                self.backend.stop(name)
        while len(self.running) < self.backend.slots() and (run := self.next()) is not None:
            self.start(run)
        self.view.update(self)
        return bool(self.running or self.later)

    def followed(self, running: Running) -> RunCurve:
        """How far a run is by now."""
        running.curve = self.backend.curve(running.run.name)
        if running.first_step is None and running.curve.step:
            running.first_step, running.began = running.curve.step, time.monotonic()
        return running.curve

    def next(self) -> Planned | None:
        """A run whose pause is over, or the next of the source that is not finished."""
        for entry in self.later:
            if entry[0] <= time.monotonic():
                self.later.remove(entry)
                return entry[1]
        while (run := self.source.take()) is not None:
            if not is_finished(self.directory / run.name):
                return run
            self.finished.append(run.name)
            self.repeated += 1
            self.source.ended(run, Outcome("finished"), self.curve_of(run))
        return None

    def start(self, run: Planned) -> None:
        """Hand a run to the backend."""
        arguments = run.arguments(self.threads)
        typed = next((text for text in arguments if text.startswith("threads=")), "threads=1")
        cores = typed.removeprefix("threads=")
        directory = str((self.directory / run.name).absolute())
        task = Job(run.name, run.group.algo, arguments, directory, int(cores) if cores.isdigit() else 1)
        self.running[run.name] = Running(run, RunCurve())
        self.backend.start(task)

    def take_up(self, ended: Running, outcome: Outcome) -> None:
        """What the end of an attempt means."""
        run, name = ended.run, ended.run.name
        if outcome.status == "finished":
            self.finished.append(name)
            self.source.ended(run, outcome, self.curve_of(run))
            return
        if outcome.status == "busy":
            if not self.attempts[f"busy {name}"]:
                self.view.tell(f"{name}: {outcome.reason.split(';')[0]}; waiting for its end")
            self.attempts[f"busy {name}"] += 1
            self.later.append((time.monotonic() + BUSY_PAUSE, run))
            return
        if ended.stopping:
            self.pruned.append(name)
            self.source.ended(run, Outcome("stopped"), ended.curve)
            return
        reason = outcome.reason or outcome.status
        self.attempts[name] += 1
        if self.attempts[name] <= self.retries:
            self.view.tell(f"{name} failed and is tried again: {reason}")
            self.later.append((0.0, run))
            return
        self.failed[name] = reason
        self.view.tell(f"{name} failed: {reason}")
        self.source.ended(run, Outcome("failed", reason), ended.curve)

    def curve_of(self, run: Planned) -> RunCurve:
        """The whole curve of a run whose files are in the sweep."""
        curve = RunCurve()
        curve.follow(self.directory / run.name)
        return curve

    def stop(self) -> None:
        """Every run stops at a checkpoint; a second Ctrl-C ends them at once."""
        try:
            if self.running:
                self.view.tell(f"stopping {len(self.running)} run{'s' * (len(self.running) > 1)} at a checkpoint; Ctrl-C ends at once")
            for name in self.running:
                self.backend.stop(name)
            while self.running:
                for name, outcome in list(self.backend.ended()):
                    self.running.pop(name)
                    if outcome.status == "finished":
                        self.finished.append(name)
                time.sleep(PAUSE)
        except KeyboardInterrupt:
            return
