"""Searches: as many trials, and the same ones, however often they are killed; pruned where they are worse than the median."""

import json
import os
import signal
import subprocess
from typing import Any

import pytest
from jobs import job
from sweeps import OPTIONS, Inline, between_checkpoints, command

from mbkit.sweep.api import Execution, execute
from mbkit.sweep.following import RunCurve
from mbkit.sweep.planning import Planned, SweepPlan, planned
from mbkit.sweep.tables import LiveView
from mbkit.sweep.worker import Outcome

optuna = pytest.importorskip("optuna", reason='Optuna is not installed; pip install "mbkit[optuna]" brings it')

from mbkit.sweep.search import Search  # noqa: E402

DRAWN = [*(option for option in OPTIONS if not option.startswith("agent.lr")), "agent.lr=log(1e-4..1e-2)", "agent.hidden=choice([8],[4,4])"]
DRAWN = [option for option in DRAWN if option != "agent.hidden=[8,8]"]


def trials(directory: Any, name: str = "dqn") -> list[tuple[str, dict[str, Any], Any]]:
    """State, drawn options and value of every trial of a study."""
    study = optuna.load_study(study_name=name, storage=f"sqlite:///{directory / 'study.db'}")
    return [(trial.state.name, trial.params, trial.value) for trial in study.trials]


def test_a_study_that_is_killed_and_started_again_is_one_that_was_not(tmp_path):
    plan, expected = planned("dqn", DRAWN, [1]), tmp_path / "uninterrupted"
    result = execute(plan, expected, 3, Execution(), LiveView(quiet=True), lambda *_: Inline())
    assert result.trials == {"complete": 3}
    out = tmp_path / "killed"
    arguments = command("dqn", *DRAWN, "--seeds", "1", "--trials", "3", "--workers", "1", "--out", str(out))
    with job(arguments, tmp_path) as driver:
        run = between_checkpoints(out, driver)
        os.kill(driver.pid, signal.SIGKILL)
    assert [state for state, *_ in trials(out)].count("RUNNING") == 1
    again = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, timeout=400, check=False)
    assert again.returncode == 0, again.stderr
    assert trials(out) == trials(expected)
    assert ": steps " in run.with_name(f"{run.name}.log").read_text()
    best = result.best["dqn"]
    options = " ".join(f"{key}={text}" for key, text in best.options.items())
    assert f"best of dqn: trial {best.number}, return {best.value:.1f}: {options}" in again.stdout


def small(*options: str, seeds: tuple[int, ...] = (1,)) -> SweepPlan:
    return planned("dqn", ["env=CartPole-v1", "steps=100", "agent.lr=log(1e-4..1e-2)", *options], seeds)


def finish(search: Search, run: Planned, value: float, returns: dict[int, float] | None = None) -> None:
    """A run that ended with this return."""
    path = search.directory / run.name
    path.mkdir(parents=True, exist_ok=True)
    (path / "summary.json").write_text(json.dumps({"eval_return_mean": value, "wall_seconds": 1.0}))
    search.ended(run, Outcome("finished"), RunCurve(100, returns or {}))


def test_what_is_drawn_does_not_depend_on_interruptions(tmp_path):
    names = []
    for folder, interrupted in (("a", False), ("b", True)):
        (tmp_path / folder).mkdir()
        search = Search(small(), tmp_path / folder, 12)
        drawn = []
        while (run := search.take()) is not None:
            if interrupted:  # killed before the run ended: a new search takes up the same trial
                search = Search(small(), tmp_path / folder, 12)
                assert search.take() == run
            drawn.append(run.group.arguments[-1])
            finish(search, run, float(len(drawn) % 5))
        assert search.counts() == {"complete": 12}
        names.append(drawn)
    assert names[0] == names[1]
    assert len(set(names[0])) == 12


def test_the_value_of_a_trial_is_the_mean_over_its_seeds(tmp_path):
    search = Search(small(seeds=(1, 2)), tmp_path, 1)
    one, two = search.take(), search.take()
    assert one is not None
    assert two is not None
    assert (one.name, two.name, search.take()) == ("dqn_trial-0/seed-1", "dqn_trial-0/seed-2", None)
    finish(search, one, 3.0)
    assert search.counts() == {"running": 1}
    finish(search, two, 5.0)
    assert search.best()["dqn"].value == 4.0
    assert [row.returns for row in search.rows()] == [[3.0, 5.0]]


def test_every_combination_of_listed_options_has_a_study(tmp_path):
    search = Search(small("gamma=0.9,0.99"), tmp_path, 2)
    runs = [search.take() for _ in range(4)]
    assert search.take() is None
    assert [run.group.name for run in runs if run] == [f"dqn_gamma={gamma}_trial-{n}" for gamma in ("0.9", "0.99") for n in (0, 1)]
    assert (search.total(), search.done()) == (4, 0)


def test_a_trial_that_failed_counts_as_one_and_has_no_value(tmp_path):
    search = Search(small(), tmp_path, 2)
    run = search.take()
    assert run is not None
    search.ended(run, Outcome("failed", "no"), RunCurve())
    assert search.counts() == {"fail": 1}
    again = Search(small(), tmp_path, 2)
    assert again.done() == 1
    assert (next_run := again.take()) is not None
    assert next_run.group.name == "dqn_trial-1"
    assert again.take() is None


def test_a_trial_below_the_median_of_the_earlier_ones_is_pruned_with_all_its_seeds(tmp_path):
    search = Search(small("eval.every=20", seeds=(1, 2)), tmp_path, 7)
    for number in range(5):  # the first five are never pruned
        for run in (search.take(), search.take()):
            assert run is not None
            assert search.hopeless({run.name: RunCurve(20, {20: 10.0 + number})}) == []
            finish(search, run, 10.0, {20: 10.0 + number})
    good, bad = [search.take(), search.take()], [search.take(), search.take()]
    running = {run.name: RunCurve(20, {20: value}) for runs, value in ((good, 12.5), (bad, 11.5)) for run in runs if run}
    half = {run.name: running[run.name] for run in (*good, bad[0]) if run}
    assert search.hopeless(half) == []  # one seed alone decides nothing
    names = [run.name for run in bad if run]
    assert search.hopeless(running) == names
    assert search.hopeless(running) == names  # until they ended
    for run in bad:
        assert run is not None
        search.ended(run, Outcome("stopped"), running[run.name])
    assert search.counts() == {"complete": 5, "running": 1, "pruned": 1}
    state, _, value = trials(tmp_path)[-1]
    assert (state, value) == ("PRUNED", 11.5)
    assert Search(small("eval.every=20", seeds=(1, 2)), tmp_path, 7).take().group.name == "dqn_trial-5"  # type: ignore[union-attr]
