"""What a run says: a bar on a terminal, lines elsewhere, and nothing if it is to be quiet."""

import sys

import pytest

from mbkit.config import compose
from mbkit.recording import Recorder
from mbkit.recording.progress import Progress, announce, say, verbosity


@pytest.fixture
def at_once(monkeypatch):
    """Lines as often as there are steps."""
    monkeypatch.setattr("mbkit.recording.progress.SECONDS", -1.0)
    monkeypatch.setattr("mbkit.recording.progress.SHARE", 0.0)


@pytest.fixture
def terminal(monkeypatch, capsys):
    """The captured stderr as a terminal."""
    monkeypatch.setattr(type(sys.stderr), "isatty", lambda stream: True)


def test_announce_names_algorithm_preset_environment_device_threads_and_directory(tmp_path, capsys):
    announce(compose("pets", ["env=cartpole", "preset=demo"]), 2, tmp_path / "run")
    assert capsys.readouterr().err == f"pets on cartpole, preset demo: 2000 steps on cpu, 2 threads, in {tmp_path / 'run'}\n"
    announce(compose("sac", ["env=Hopper-v5", "steps=500"]), 1, tmp_path / "run", 200)
    assert capsys.readouterr().err == f"sac on Hopper-v5, no preset: steps 201 to 500 on cpu, 1 thread, in {tmp_path / 'run'}\n"


@pytest.mark.usefixtures("at_once")
def test_progress_without_a_terminal_says_step_speed_returns_and_losses(tmp_path, capsys):
    with Recorder(tmp_path, every=10, total=40, progress=True) as recorder:
        for step in range(1, 31):
            recorder.log(step, {"critic/loss": 0.25, "alpha": 1.0})
        recorder.event(30, {"episode/return": 12.34, "episode/length": 30})
        recorder.log(31, {"critic/loss": 0.25})
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("step 2 of 40 (5 %), ")
    assert lines[-1].startswith("step 31 of 40 (77 %), ")
    assert lines[-1].endswith(" steps/s, critic/loss 0.25, return 12.3")


def test_progress_says_a_line_every_so_often_only(tmp_path, capsys):
    with Recorder(tmp_path, every=1, total=100, progress=True) as recorder:
        for step in range(1, 101):
            recorder.log(step, {"critic/loss": 0.25})
    assert capsys.readouterr().err == ""


def test_progress_names_what_comes_after_the_last_step(capsys):
    progress = Progress(10)
    progress.advance(5)
    with progress.stage("evaluation"):
        progress.advance(10)
    with progress.stage("film"):
        pass
    assert capsys.readouterr().err == "step 10: film\n"


@pytest.mark.usefixtures("terminal")
def test_progress_on_a_terminal_is_a_bar_that_names_the_stage(tmp_path, capsys):
    with Recorder(tmp_path, total=10, progress=True) as recorder:
        recorder.event(10, {"eval/return": 123.456})
        with recorder.progress.stage("film"):
            pass
    written = capsys.readouterr().err
    assert "film: 100%" in written
    assert "eval 123.5" in written


@pytest.mark.usefixtures("terminal", "at_once")
def test_progress_quiet_says_nothing(tmp_path, capsys):
    with verbosity("quiet"), Recorder(tmp_path, every=1, total=10, progress=True) as recorder:
        for step in range(1, 11):
            recorder.log(step, {"critic/loss": 0.25})
        with recorder.progress.stage("film"):
            say("done")
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("at_once")
def test_recorder_without_progress_says_nothing(tmp_path, capsys):
    with Recorder(tmp_path, every=1, total=10) as recorder:
        for step in range(1, 11):
            recorder.log(step, {"critic/loss": 0.25})
    assert capsys.readouterr().err == ""


def test_progress_verbose_says_every_line_of_metrics(tmp_path, capsys):
    with verbosity("verbose"), Recorder(tmp_path, every=1, total=3, progress=True) as recorder:
        for step in (1, 2, 3):
            recorder.log(step, {"alpha": 0.5})
    assert capsys.readouterr().err == "step 1: alpha 0.5\nstep 2: alpha 0.5\nstep 3: alpha 0.5\n"


@pytest.mark.usefixtures("at_once")
def test_progress_of_a_resumed_run_counts_its_own_steps(monkeypatch, capsys):
    now = iter(range(100))
    monkeypatch.setattr("mbkit.recording.progress.perf_counter", lambda: float(next(now)))
    progress = Progress(1000)
    progress.advance(900)
    progress.advance(901)
    assert capsys.readouterr().err == "step 901 of 1000 (90 %), 0.5 steps/s\n"


@pytest.mark.parametrize("broken", [None, "closed"])
def test_say_to_a_lost_stderr_stops_no_run(monkeypatch, tmp_path, broken):
    stream = None if broken is None else (tmp_path / "log").open("w")
    if stream is not None:
        stream.close()
    monkeypatch.setattr(sys, "stderr", stream)
    say("lost")
