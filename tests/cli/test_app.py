"""How the command line ends: a mistake with status 2 and one line on stderr, an interrupted run with 130."""

import os
import signal
import subprocess
import sys
import time

import pytest
from pets_runs import TINY
from typer.testing import CliRunner

import mbkit
from mbkit import cli
from mbkit.loops.interrupt import Interrupted


def main_with(monkeypatch, *arguments: str) -> int:
    """The exit status of `mbkit` called with these arguments in this process."""
    monkeypatch.setattr(sys, "argv", ["mbkit", *arguments])
    with pytest.raises(SystemExit) as status:
        cli.main()
    return status.value.code


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["train", "pots"], "unknown algorithm 'pots'; did you mean 'pets'?"),
        (["train", "pets", "planner.elitess=3"], "unknown option planner.elitess; did you mean 'planner.elites'?"),
        (["train", "pets", "loop.n_step=3"], "loop.n_step has no meaning for pets, which plans with a model; of loop.* these have one:"),
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
def test_main_mistake_is_one_line_on_stderr_and_status_2(arguments, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main_with(monkeypatch, *arguments) == 2
    written = capsys.readouterr()
    assert sentence in written.err
    assert len(written.err.strip().splitlines()) == 1
    assert written.out == ""
    assert list(tmp_path.iterdir()) == []


def test_main_interrupted_run_is_status_130(monkeypatch, capsys):
    def stopped(algo, *arguments):
        raise Interrupted("stopped by SIGINT")

    monkeypatch.setattr("mbkit.run.train", stopped)
    assert main_with(monkeypatch, "train", "pets") == 130
    assert capsys.readouterr().err == "mbkit: stopped by SIGINT\n"


def test_main_crash_keeps_its_trace(monkeypatch):
    def broken(algo, *arguments):
        raise ZeroDivisionError

    monkeypatch.setattr("mbkit.run.train", broken)
    monkeypatch.setattr(sys, "argv", ["mbkit", "train", "pets"])
    with pytest.raises(ZeroDivisionError):
        cli.main()


def test_root_version_is_the_packages():
    assert CliRunner().invoke(cli.app, ["--version"]).output.strip() == mbkit.__version__


def test_module_mistake_ends_as_the_command_does(tmp_path):
    mistake = subprocess.run([sys.executable, "-m", "mbkit", "train", "pots"], capture_output=True, text=True, cwd=tmp_path)
    assert mistake.returncode == 2
    assert mistake.stderr.startswith("mbkit: unknown algorithm 'pots'")
    assert mistake.stdout == ""


def test_module_interrupted_run_ends_with_130_and_can_be_resumed(tmp_path):
    directory = tmp_path / "run"
    command = [sys.executable, "-m", "mbkit", "train", "pets", *TINY, "steps=100000", f"run_dir={directory}", "checkpoint.every=20"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(directory.glob("checkpoint/*.pt")) and time.monotonic() < deadline:
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "mbkit resume" in stderr
    step = max(int(path.stem.removeprefix("step-")) for path in directory.glob("checkpoint/*.pt"))
    resumed = CliRunner().invoke(cli.app, ["resume", str(directory), f"steps={step + 10}"])
    assert f"after {step + 10} steps" in resumed.output
