"""The command line: what it prints, its exit statuses, one sentence per mistake."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from typer.testing import CliRunner

from mbkit import cli

TINY = (
    "threads=1", "eval.episodes=2", "eval.video=false", "loop.warmup_steps=30", "agent.horizon=4", "agent.particles=3",
    "planner.candidates=12", "planner.elites=3", "planner.iterations=2", "dynamics.members=3", "dynamics.elites=3",
    "dynamics.hidden=[16]", "dynamics.max_epochs=3", "env_kwargs.max_episode_steps=25",
)  # fmt: skip


def call(*words: str) -> str:
    result = CliRunner().invoke(cli.app, list(words))
    assert result.exit_code == 0, result.output
    return result.output


def mbkit(*words: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "mbkit", *words], capture_output=True, text=True, timeout=120, **options)


def test_train_evaluate_resume_report(tmp_path):
    directory = str(tmp_path / "run")
    said = call("train", "pets", *TINY, "steps=60", f"run_dir={directory}")
    assert "return" in said
    assert f"report: {directory}/report.html" in said
    assert (tmp_path / "run/report.html").stat().st_size > 10_000
    score = json.loads(call("evaluate", directory, "--episodes", "3", "--json"))
    assert len(score["returns"]) == 3
    assert "after 80 steps" in call("resume", directory, "steps=80")
    assert call("report", directory, "--out", str(tmp_path / "page.html")).strip() == str(tmp_path / "page.html")


@pytest.mark.parametrize(
    ("what", "name"), [("planners", "icem"), ("dynamics", "mujoco"), ("recipes", "pets"), ("envs", "HalfCheetah-v5"), ("envs", "reacher")]
)
def test_list(what, name):
    assert name in call("list", what)


def test_config_shows_value_range_and_meaning():
    said = call("config", "pets", "planner.elites=7")
    line = next(line for line in said.splitlines() if line.startswith("planner.elites"))
    assert "7" in line
    assert ">= 1" in line
    assert "best candidates" in line
    assert "steps: 77" in call("config", "pets", "steps=77", "--yaml")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["train", "pots"], "unknown algorithm 'pots'; did you mean 'pets'?"),
        (["train", "pets", "planner.elitess=3"], "unknown option planner.elitess; did you mean 'planner.elites'?"),
        (["train", "pets", "dynamics.lr=00143"], "leading zero"),
        (["train", "pets", "steps=-1"], "out of range"),
        (["trian"], "No such command 'trian'"),
        (["train"], "Missing argument"),
        (["evaluate", ".", "--episodes", "0"], "--episodes"),
        (["train", "pets", "env=CarRacing-v3"], "CarRacing-v3"),
        (["list", "planer"], "cannot list 'planer'; did you mean 'planners'?"),
        (["evaluate", "/nowhere"], "/nowhere is not a run directory"),
        (["report", "/nowhere"], "/nowhere"),
    ],
)
def test_a_mistake_is_one_line_on_stderr_and_status_2(words, sentence, tmp_path):
    result = mbkit(*words, cwd=tmp_path)
    assert result.returncode == 2
    assert sentence in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_run_ends_with_130_and_goes_on(tmp_path):
    directory = tmp_path / "run"
    words = [sys.executable, "-m", "mbkit", "train", "pets", *TINY, "steps=100000", f"run_dir={directory}", "checkpoint.every=20"]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(directory.glob("checkpoint/*.pt")) and time.monotonic() < deadline:
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "mbkit resume" in stderr
    step = max(int(path.stem.removeprefix("step-")) for path in directory.glob("checkpoint/*.pt"))
    assert f"after {step + 10} steps" in call("resume", str(directory), f"steps={step + 10}")
