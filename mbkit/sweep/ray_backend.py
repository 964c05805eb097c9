"""Runs as tasks of a Ray cluster, each in a fresh worker process, with their files in the sweep's directory wherever they ran.

A node that sees the sweep's directory writes there. Elsewhere a run works in a temporary directory, which its result brings back packed,
also when it is stopped; what is in the sweep's directory already goes with the task, so that a run goes on from it on any node.
"""

import io
import os
import shutil
import signal
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any
from uuid import uuid4

from mbkit.config.threads import wait_passively
from mbkit.errors import UserError
from mbkit.paths import exists, is_file, make_folder, matching
from mbkit.sweep.extras import imported
from mbkit.sweep.following import RunCurve
from mbkit.sweep.worker import Job, Outcome, run_one

BEAT = 1.0  # seconds between two reports of a run, and between two questions of the driver


class Board:
    """An actor of the cluster: how far runs are, and which of them are to stop."""

    def __init__(self) -> None:
        self.curves: dict[str, RunCurve] = {}
        self.stopping: set[str] = set()

    def beat(self, name: str, curve: RunCurve) -> bool:
        """A run tells how far it is; returns whether it is to stop."""
        self.curves[name] = curve
        return name in self.stopping

    def stop(self, name: str) -> bool:
        """Ask a run to stop; returns whether it has begun."""
        self.stopping.add(name)
        return name in self.curves

    def forget(self, name: str) -> None:
        """A run ended."""
        self.curves.pop(name, None)
        self.stopping.discard(name)

    def progress(self) -> dict[str, RunCurve]:
        """All runs under way."""
        return self.curves


def work(job: Job, board: Any, mark: str, files: bytes | None) -> tuple[Outcome, bytes | None]:
    """One run on a node of the cluster; returns its packed files where the node does not see the sweep's directory, which holds `mark`."""
    wait_passively()
    shared = is_file(mark)
    if not shared:
        place = Path(tempfile.gettempdir(), "mbkit-sweeps", Path(mark).name.strip("."), job.name)
        job = job._replace(directory=str(place))
        if files is not None:
            unpack(files, place)
    ended = Event()
    Thread(target=report, args=(job, board, ended), daemon=True).start()
    outcome = run_one(job)
    ended.set()
    packed = None if shared else pack(Path(job.directory))
    if not shared:
        shutil.rmtree(job.directory, ignore_errors=True)
        job.log.unlink(missing_ok=True)
    return outcome, packed


def report(job: Job, board: Any, ended: Event) -> None:
    """Tell the board how far the run is, until it ended, or is to stop: SIGTERM, after which it stops at a checkpoint."""
    ray, curve = imported("ray"), RunCurve()
    while not ended.is_set():
        curve.follow(job.directory)
        if ray.get(board.beat.remote(job.name, curve)):
            os.kill(os.getpid(), signal.SIGTERM)
            return
        ended.wait(BEAT)


def pack(directory: Path) -> bytes:
    """The run's directory and its log, as a tar archive."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path in (directory, Path(f"{directory}.log")):
            if exists(path):
                archive.add(path, arcname=path.name)
    return buffer.getvalue()


def unpack(files: bytes, directory: Path) -> None:
    """Put a packed run in its place, whole: another one there is replaced."""
    folder = directory.parent
    make_folder(folder)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".arriving-") as arriving, tarfile.open(fileobj=io.BytesIO(files)) as archive:
        archive.extractall(arriving, filter="data")
        log = Path(arriving, f"{directory.name}.log")
        if exists(log):
            log.replace(folder / log.name)
        if exists(Path(arriving, directory.name)):
            shutil.rmtree(directory, ignore_errors=True)
            Path(arriving, directory.name).replace(directory)


class RayBackend:
    """Tasks of a cluster: the one at `address`, that of the environment, or one that is started here.

    Args:
        directory: of the sweep.
        workers: tasks at once; None: as many as the cluster has cores for, or GPUs.
        address: of a running cluster; "auto" for that of this machine.
        gpus_per_run: GPUs that a run reserves, 0.25 for four runs on one.
        shared: False packs every result, as if no node saw the directory.
    """

    def __init__(
        self, directory: Path, workers: int | None = None, address: str | None = None, gpus_per_run: float = 0.0, shared: bool = True
    ) -> None:
        self.ray, self.directory, self.workers, self.gpus_per_run = imported("ray"), directory.absolute(), workers, gpus_per_run
        self.connected = not self.ray.is_initialized()
        if self.connected:
            on_sigterm = signal.getsignal(signal.SIGTERM)  # which ray.init replaces
            try:
                self.ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
            except (ConnectionError, ValueError, RuntimeError) as error:
                raise UserError(f"--address {address}: no Ray cluster answers there ({str(error).splitlines()[0]})") from error
            with suppress(ValueError):  # outside the main thread it replaces nothing
                signal.signal(signal.SIGTERM, on_sigterm)
        self.mark = self.directory / f".ray-{uuid4().hex[:12]}"
        for old in matching(self.directory, ".ray-*"):  # of a driver that was killed
            old.unlink(missing_ok=True)
        if shared:
            self.mark.touch()
        self.work = self.ray.remote(max_calls=1, max_retries=0)(work)  # a fresh process for each run
        self.board = self.ray.remote(Board).options(num_cpus=0).remote()
        self.tasks: dict[str, tuple[Any, Job]] = {}
        self.curves: dict[str, RunCurve] = {}
        self.asked_at = 0.0

    def slots(self) -> int:
        """As many as were asked for, else what the cluster has resources for now."""
        if self.workers is not None:
            return self.workers
        resources = self.ray.cluster_resources()
        limits = [resources.get("CPU", 1.0)] + ([resources.get("GPU", 0.0) / self.gpus_per_run] if self.gpus_per_run else [])
        return max(1, int(min(limits)))

    def start(self, job: Job) -> None:
        """Queue a task, with the files of the run that are here already."""
        place = Path(job.directory)
        files = pack(place) if exists(place) and not exists(self.mark) else None
        options = self.work.options(num_cpus=job.threads, num_gpus=self.gpus_per_run, name=job.name)
        self.tasks[job.name] = (options.remote(job, self.board, str(self.mark), files), job)

    def ended(self) -> Iterator[tuple[str, Outcome]]:
        """Tasks that came back, whose files are in their place now, and those whose worker or node died."""
        names = {task: name for name, (task, _) in self.tasks.items()}
        ready, _ = self.ray.wait(list(names), num_returns=len(names), timeout=0) if names else ([], [])
        for task in ready:
            name = names[task]
            _, job = self.tasks.pop(name)
            outcome = self.outcome_of(task, job)
            self.board.forget.remote(name)
            self.curves.pop(name, None)
            yield name, outcome

    def outcome_of(self, task: Any, job: Job) -> Outcome:
        """The result of a task that came back."""
        errors = self.ray.exceptions
        try:
            outcome, files = self.ray.get(task)
        except errors.TaskCancelledError:
            return Outcome("stopped", "it was cancelled")
        except errors.RayError as error:
            kind = type(error).__name__
            return Outcome("failed", f"its worker died ({kind})" if "Died" in kind or "Crashed" in kind else f"{kind}: {first_line(error)}")
        if files is not None:
            unpack(files, Path(job.directory))
        return Outcome(*outcome)

    def curve(self, name: str) -> RunCurve:
        """What a run told last."""
        if time.monotonic() - self.asked_at > BEAT:
            self.asked_at = time.monotonic()
            with suppress(self.ray.exceptions.RayError):
                self.curves = self.ray.get(self.board.progress.remote())
        return self.curves.get(name, RunCurve())

    def stop(self, name: str) -> None:
        """Ask a run to stop at a checkpoint; one that has not begun is cancelled."""
        if name in self.tasks and not self.ray.get(self.board.stop.remote(name)):
            self.ray.cancel(self.tasks[name][0])

    def close(self) -> None:
        """Cancel what is left, and leave the cluster, or end it where it was started here."""
        for task, _ in self.tasks.values():
            self.ray.cancel(task, force=True)
        self.tasks.clear()
        self.mark.unlink(missing_ok=True)
        self.ray.kill(self.board)
        if self.connected:
            self.ray.shutdown()


def first_line(error: Exception) -> str:
    """Of its text."""
    return (str(error).strip().splitlines() or [""])[-1]
