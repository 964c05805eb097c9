"""What the driver makes of how attempts end, with a backend that only pretends."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

import pytest

from mbkit.errors import Interrupted
from mbkit.sweep import driver as module
from mbkit.sweep.driver import Driver, GridSource
from mbkit.sweep.following import RunCurve
from mbkit.sweep.planning import Combination, Planned
from mbkit.sweep.worker import Job, Outcome

GROUP = Combination("random", "random", "CartPole-v1", 100, ("env=CartPole-v1", "threads=2"), {})
RUNS = [Planned(GROUP, seed) for seed in (1, 2, 3)]


class Silent:
    """A view that collects what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def update(self, driver: Driver) -> None:
        pass

    def tell(self, text: str) -> None:
        self.lines.append(text)


class Scripted:
    """A backend whose attempts end at once, as it is written."""

    def __init__(self, directory: Path, script: dict[str, list[Outcome]], workers: int = 2) -> None:
        self.directory, self.script, self.workers = directory, script, workers
        self.under_way: list[str] = []
        self.started: list[Job] = []
        self.most = 0

    def slots(self) -> int:
        return self.workers

    def start(self, job: Job) -> None:
        self.started.append(job)
        self.under_way.append(job.name)
        self.most = max(self.most, len(self.under_way))

    def ended(self) -> Iterator[tuple[str, Outcome]]:
        while self.under_way:
            name = self.under_way.pop(0)
            outcomes = self.script.get(name, [])
            outcome = outcomes.pop(0) if outcomes else Outcome("finished")
            if outcome.status == "finished":
                (self.directory / name).mkdir(parents=True, exist_ok=True)
                (self.directory / name / "summary.json").write_text("{}")
            yield name, outcome

    def curve(self, name: str) -> RunCurve:
        return RunCurve()

    def stop(self, name: str) -> None:
        self.script[name] = [Outcome("stopped")]

    def close(self) -> None:
        pass


def drive(directory: Path, script: dict[str, list[Outcome]], retries: int = 1) -> tuple[Driver, Scripted, Silent]:
    backend, view = Scripted(directory, script), Silent()
    driver = Driver(directory, GridSource(RUNS), backend, view, threads=5, retries=retries)
    driver.run()
    return driver, backend, view


@pytest.fixture(autouse=True)
def without_pauses(monkeypatch):
    monkeypatch.setattr(module, "PAUSE", 0.0)
    monkeypatch.setattr(module, "BUSY_PAUSE", 0.0)


def test_every_run_is_started_once_and_never_more_than_there_are_slots(tmp_path):
    driver, backend, _ = drive(tmp_path, {})
    assert [job.name for job in backend.started] == ["random/seed-1", "random/seed-2", "random/seed-3"]
    assert backend.started[0].arguments == ["env=CartPole-v1", "threads=2", "seed=1"]
    assert backend.started[0].threads == 2
    assert backend.most == 2
    assert sorted(driver.finished) == sorted(run.name for run in RUNS)


def test_finished_runs_are_not_repeated(tmp_path):
    drive(tmp_path, {})
    driver, backend, _ = drive(tmp_path, {})
    assert backend.started == []
    assert (len(driver.finished), driver.repeated, driver.count()) == (3, 3, "3 of 3 runs are finished")


def test_a_failure_is_tried_again_as_often_as_was_asked_for(tmp_path):
    name, failed = RUNS[1].name, Outcome("failed", "no")
    driver, backend, view = drive(tmp_path / "a", {name: [failed]})
    assert ([job.name for job in backend.started].count(name), driver.failed) == (2, {})
    assert view.lines == [f"{name} failed and is tried again: no"]
    driver, backend, view = drive(tmp_path / "b", {name: [failed, failed, failed]}, retries=2)
    assert ([job.name for job in backend.started].count(name), driver.failed) == (3, {name: "no"})
    assert view.lines[-1] == f"{name} failed: no"
    assert len(driver.finished) == 2
    driver, backend, _ = drive(tmp_path / "c", {name: [failed]}, retries=0)
    assert ([job.name for job in backend.started].count(name), driver.failed) == (1, {name: "no"})


def test_a_run_that_another_process_is_at_is_waited_for_and_counts_as_no_failure(tmp_path):
    name, busy = RUNS[0].name, Outcome("busy", "x is being trained by process 7; stop it")
    driver, _, view = drive(tmp_path, {name: [busy, busy, busy]}, retries=0)
    assert (driver.failed, len(driver.finished)) == ({}, 3)
    assert view.lines == [f"{name}: x is being trained by process 7; waiting for its end"]


def test_a_run_that_was_stopped_by_someone_else_is_tried_again(tmp_path):
    name = RUNS[0].name
    driver, backend, _ = drive(tmp_path, {name: [Outcome("stopped", "its process was ended by SIGTERM")]})
    assert ([job.name for job in backend.started].count(name), len(driver.finished)) == (2, 3)


def test_ctrl_c_asks_all_to_stop_and_says_how_to_go_on(tmp_path):
    class Interrupting(Silent):
        def update(self, driver: Driver) -> None:
            raise KeyboardInterrupt

    backend = Scripted(tmp_path, {})
    driver = Driver(tmp_path, GridSource(RUNS), backend, Interrupting(), threads=None, retries=1)
    with pytest.raises(Interrupted, match="stopped by SIGINT: 0 of 3 runs are finished; the same command goes on"):
        driver.run()
    assert not driver.running
    assert not list(tmp_path.glob("**/summary.json"))


def test_a_curve_is_followed_line_by_line_and_read_again_after_a_resumption(tmp_path):
    file = tmp_path / "metrics.jsonl"
    lines = [json.dumps({"step": step, "eval/return": float(step)}) + "\n" for step in (10, 20, 30)]
    curve = RunCurve()
    curve.follow(tmp_path)
    assert (curve.step, curve.last_return) == (0, None)
    file.write_text(lines[0] + lines[1] + lines[2][:5])
    curve.follow(tmp_path)
    assert (curve.step, curve.returns) == (20, {10: 10.0, 20: 20.0})
    file.write_text("".join(lines))
    curve.follow(tmp_path)
    assert (curve.step, curve.last_return) == (30, 30.0)
    file.write_text(lines[0])
    curve.follow(tmp_path)
    assert curve.step == 10


def test_a_hopeless_run_is_stopped_once_and_told_to_its_source(tmp_path):
    class Pruning(GridSource):
        outcomes: ClassVar[dict[str, Outcome]] = {}

        def hopeless(self, running: Mapping[str, RunCurve]) -> list[str]:
            return [name for name in running if name == RUNS[1].name]

        def ended(self, run: Planned, outcome: Outcome, curve: RunCurve) -> None:
            self.outcomes[run.name] = outcome

    class Patient(Scripted):
        """Ends run 2 only once it is asked to stop."""

        stopped: ClassVar[list[str]] = []

        def ended(self) -> Iterator[tuple[str, Outcome]]:
            waiting = [name for name in self.under_way if name == RUNS[1].name and not self.stopped]
            self.under_way = [name for name in self.under_way if name not in waiting]
            yield from super().ended()
            self.under_way += waiting

        def stop(self, name: str) -> None:
            self.stopped.append(name)
            super().stop(name)

    backend, source, view = Patient(tmp_path, {}), Pruning(RUNS), Silent()
    driver = Driver(tmp_path, source, backend, view, threads=None, retries=1)
    driver.run()
    assert backend.stopped == [RUNS[1].name] == driver.pruned
    assert {name: outcome.status for name, outcome in source.outcomes.items()} == {
        RUNS[0].name: "finished",
        RUNS[1].name: "stopped",
        RUNS[2].name: "finished",
    }
    assert (len(driver.finished), driver.failed, len(backend.started)) == (2, {}, 3)
