"""A sweep by processes of this machine: killed in the middle and started again it loses nothing and repeats nothing."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from jobs import job
from resumption import check_same_end
from sweeps import OPTIONS, alone, between_checkpoints, command, gone, kill, plan_of, process_of, summaries, summary

from mbkit.errors import UserError
from mbkit.recording import run_lock
from mbkit.sweep import sweep
from mbkit.sweep.worker import Job, Outcome, run_one

ALGORITHMS = ("dqn", "double_dqn")


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """Every run as `mbkit train` trains it."""
    return alone(plan_of(*ALGORITHMS), tmp_path_factory.mktemp("alone"))


def test_killed_and_started_again_nothing_is_lost_and_nothing_repeated(tmp_path, expected):
    out = tmp_path / "sweep"
    arguments = command(",".join(ALGORITHMS), *OPTIONS, "--seeds", "1..3", "--workers", "2", "--out", str(out))
    with job(arguments, tmp_path) as driver:
        first = between_checkpoints(out, driver)
        kill(first)  # the others go on, and this one from its checkpoint
        second = between_checkpoints(out, driver, but=first)
        left = [process_of(path.parent) for path in out.glob("*/seed-*/run.lock") if not (path.parent / "summary.json").exists()]
        os.kill(driver.pid, signal.SIGKILL)
    before = {path: path.stat().st_mtime_ns for path in out.glob("*/seed-*/summary.json")}
    again = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, timeout=400, check=False)
    assert again.returncode == 0, again.stderr
    assert all(map(gone, left))  # nobody trains on without a driver
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert summaries(out, expected) == {name: summary(path) for name, path in expected.items()}
    for name, path in expected.items():
        check_same_end(path, out / name)
    for run in {first, second}:
        assert ": steps " in Path(f"{run}.log").read_text()  # it went on, rather than from the beginning
    assert f"mbkit report {out.name}\n" in again.stdout


def test_a_run_that_fails_is_tried_again_and_listed_with_its_reason_and_log(tmp_path):
    (tmp_path / "broken_task.py").write_text(
        "from gymnasium.envs.classic_control import CartPoleEnv\n"
        "class Broken(CartPoleEnv):\n"
        "    steps = 0\n"
        "    def step(self, action):\n"
        "        Broken.steps += 1\n"
        "        if Broken.steps > 30:\n"
        "            raise ValueError('the belt slipped')\n"
        "        return super().step(action)\n"
    )
    arguments = command("random", "env=CartPole-v1,broken_task:Broken", "steps=40", "eval.episodes=1", "eval.video=false", "--out", "sweep")
    environment = {**os.environ, "PYTHONPATH": f"{os.environ.get('PYTHONPATH', '')}:{tmp_path}"}
    result = subprocess.run(arguments, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert result.returncode == 1, result.stderr
    name = "random_broken_task-Broken"
    folder = next(path.name for path in (tmp_path / "sweep").iterdir() if path.name.startswith(name))
    assert f"{folder}/seed-0 failed and is tried again: " in result.stderr
    assert f"failed: {folder}/seed-0: " in result.stdout
    assert "the belt slipped" in result.stdout
    assert f"(log: sweep/{folder}/seed-0.log)" in result.stdout
    assert "the belt slipped" in (tmp_path / f"sweep/{folder}/seed-0.log").read_text()
    assert (tmp_path / "sweep/random_CartPole-v1/seed-0/summary.json").exists()


def test_ctrl_c_stops_every_run_at_a_checkpoint(tmp_path):
    out = tmp_path / "sweep"
    arguments = command("dqn", *OPTIONS, "--seeds", "1", "--out", str(out))
    with job(arguments, tmp_path) as driver:
        run = between_checkpoints(out, driver)
        process = process_of(run)
        driver.send_signal(signal.SIGINT)
        _, said = driver.communicate(timeout=120)
        assert driver.returncode == 130, said
        assert "mbkit: stopped by SIGINT: 0 of 1 runs are finished; the same command goes on" in said
        assert gone(process)
    assert not (run / "summary.json").exists()


def test_a_run_that_another_process_is_at_is_busy_and_one_without_a_checkpoint_begins_again(tmp_path):
    directory = tmp_path / "group/seed-1"
    directory.mkdir(parents=True)
    (directory / "config.yaml").write_text("algo: random\n")  # of a run that was killed before its first checkpoint
    task = Job("group/seed-1", "random", ["env=CartPole-v1", "steps=20", "eval.episodes=1", "eval.video=false", "seed=1"], str(directory))
    with run_lock(directory.parent, ".seed-1.lock"):
        assert run_one(task).status == "busy"
    assert run_one(task) == Outcome("finished")
    stamp = (directory / "summary.json").stat().st_mtime_ns
    assert run_one(task) == Outcome("finished")
    assert (directory / "summary.json").stat().st_mtime_ns == stamp
    assert "random on CartPole-v1" in task.log.read_text()


def test_from_python(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = ["env=CartPole-v1", "steps=20", "eval.episodes=1", "eval.video=false"]
    result = sweep(["random"], *options, seeds=[4], quiet=True)
    assert result.failed == {}
    assert [(row.group.algo, row.runs, len(row.returns)) for row in result.rows] == [("random", 1, 1)]
    content = json.loads((result.directory / "sweep.json").read_text())
    assert content["seeds"] == [4]
    assert sweep("random", *options, seeds=[4], quiet=True).rows == result.rows
    with run_lock(result.directory, ".sweep.lock"), pytest.raises(UserError, match=f"process {os.getpid()}"):
        sweep("random", *options, seeds=[4], quiet=True)


def test_a_worker_whose_reader_is_gone_ends_without_a_traceback(tmp_path):
    task = Job("x", "sac", ["no=option"], str(tmp_path / "x"))
    worker = subprocess.Popen(
        [sys.executable, "-m", "mbkit.sweep.worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    worker.stdout.close()
    worker.stdin.write(json.dumps(task._asdict()).encode() + b"\n")
    worker.stdin.flush()
    assert worker.wait(60) == 0
    assert b"Traceback" not in worker.stderr.read()
    worker.stdin.close()
    assert "unknown option" in task.log.read_text()
    assert "Traceback" not in task.log.read_text()
