"""Sweeps of runs that take a second or two, what each of their runs is alone, and processes of them to be killed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import mbkit
from mbkit.sweep.following import RunCurve
from mbkit.sweep.planning import SweepPlan, planned
from mbkit.sweep.worker import Job, Outcome, run_one

OPTIONS = [
    "env=CartPole-v1",
    "steps=900",
    "agent.hidden=[8,8]",
    "agent.lr=1e-3",
    "loop.batch_size=16",
    "loop.warmup_steps=50",
    "loop.num_envs=1",
    "loop.log_every=50",
    "checkpoint.every=100",
    "eval.episodes=2",
    "eval.max_steps=50",
    "eval.video=false",
    "threads=1",
]
SEEDS = [1, 2, 3]


def command(*more: str) -> list[str]:
    """`mbkit sweep` with these arguments, as a process."""
    return [sys.executable, "-m", "mbkit", "sweep", *more]


def alone(plan: SweepPlan, folder: Path) -> dict[str, Path]:
    """Every run of a plan, trained by itself in this process: name -> directory."""
    directories = {run.name: folder / run.name for run in plan.runs}
    for run in plan.runs:
        mbkit.train(run.group.algo, *run.arguments(None), run_dir=directories[run.name])
    return directories


def plan_of(*algorithms: str) -> SweepPlan:
    """Small runs of these algorithms."""
    return planned(",".join(algorithms), OPTIONS, SEEDS)


def summary(directory: Path) -> dict[str, Any]:
    """A run's summary without times."""
    content = json.loads((directory / "summary.json").read_text())
    return {key: value for key, value in content.items() if key != "wall_seconds"}


def summaries(directory: Path, names: Mapping[str, Path]) -> dict[str, dict[str, Any]]:
    """Of all runs of a sweep."""
    return {name: summary(directory / name) for name in names}


def checkpoints(directory: Path) -> Iterator[tuple[Path, int]]:
    """Runs of a sweep that are under way, with the step of their last checkpoint."""
    for path in directory.glob("*/seed-*/checkpoint/step-*.pt"):
        run = path.parent.parent
        if not (run / "summary.json").exists():
            yield run, int(path.stem.partition("-")[2])


def between_checkpoints(directory: Path, driver: "subprocess.Popen[str] | None" = None, but: Path | None = None) -> Path:
    """A run of the sweep that has a checkpoint and is not finished, once there is one."""
    end = time.monotonic() + 240
    while time.monotonic() < end and (driver is None or driver.poll() is None):
        for run, step in checkpoints(directory):
            if 0 < step < 800 and run != but:
                return run
        time.sleep(0.02)
    said = driver.communicate() if driver is not None and driver.poll() is not None else ""
    raise AssertionError(f"no run in {directory} has a checkpoint and is under way: {said}")


def process_of(run: Path) -> int:
    """The process that trains a run."""
    return int((run / "run.lock").read_text().split()[1])


def kill(run: Path) -> int:
    """SIGKILL for the process of a run; returns its number."""
    process = process_of(run)
    os.kill(process, signal.SIGKILL)
    return process


def gone(process: int) -> bool:
    """Whether there is no such process, or only its exit status."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


class Inline:
    """A backend of one worker, this very process."""

    def __init__(self) -> None:
        self.outcomes: list[tuple[str, Outcome]] = []
        self.started: list[str] = []

    def slots(self) -> int:
        return 1

    def start(self, job: Job) -> None:
        self.started.append(job.name)
        self.outcomes.append((job.name, run_one(job)))

    def ended(self) -> Iterator[tuple[str, Outcome]]:
        while self.outcomes:
            yield self.outcomes.pop()

    def curve(self, name: str) -> RunCurve:
        return RunCurve()

    def stop(self, name: str) -> None:
        raise AssertionError(f"{name} ended when it was started")

    def close(self) -> None:
        pass
