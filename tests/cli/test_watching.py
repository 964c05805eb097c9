"""The view of runs: one snapshot, and live in a terminal until Ctrl-C."""

import json
import math
import os
import pty
import signal
import subprocess
import sys
import time

import pytest
from jobs import hear_ctrl_c
from run_directories import make_run
from typer.testing import CliRunner

from mbkit import cli
from mbkit.cli.watching import BLOCKS, curve, duration
from mbkit.recording.lock import run_lock


def call(*arguments, columns=80) -> str:
    """What `mbkit watch` prints on so many columns; it must succeed."""
    result = CliRunner().invoke(cli.app, ["watch", *map(str, arguments)], env={"COLUMNS": str(columns)})
    assert result.exit_code == 0, result.output
    return result.output


def test_curve_spans_lowest_to_highest_block_and_keeps_its_width():
    assert curve(range(8)) == BLOCKS
    assert curve([0, math.nan, 1]) == "▁·█"
    assert len(curve(range(1000), 24)) == 24
    assert curve([3.0, 3.0]) == BLOCKS[3] * 2
    assert curve([0, 0, 1, 1], 2) == "▁█"


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00 min"), (725.4, "12:05 min"), (11220, "3:07 h")])
def test_duration(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize("columns", [80, 50])
def test_watch_prints_each_run_within_the_width(tmp_path, columns):
    finished = make_run(tmp_path / "runs" / "one", env="HalfCheetah-v5")
    make_run(tmp_path / "runs" / "two", seed=1, finished=False)
    (finished / "warnings.jsonl").write_text(json.dumps({"step": 1, "text": "The values diverge, and they do so a lot. " * 3}) + "\n")
    with run_lock(tmp_path / "runs" / "two"):
        printed = call(tmp_path / "runs", columns=columns)
    lines = printed.splitlines()
    assert max(map(len, lines)) <= columns
    assert lines[0] == "2 runs: 1 running, 1 finished"
    assert lines[1].split() == ["pets", "cartpole", "seed", "1", "running"]  # those that go on come first
    assert "step 1400 of 3000 (46 %), 9.09 steps/s" in lines[2]
    assert "eval 178.2" in printed
    assert "! The values diverge" in printed
    assert (BLOCKS[-1] in printed) == (columns == 80)


def test_watch_names_the_directory_where_names_are_alike(tmp_path):
    runs = [make_run(tmp_path / name, finished=False) for name in ("a", "b")]
    assert all(f"in {run}" in call(*runs, columns=300) for run in runs)


def test_watch_of_a_folder_without_runs_is_a_mistake(tmp_path):
    result = CliRunner().invoke(cli.app, ["watch", str(tmp_path)])
    assert "there is no run in" in str(result.exception)


class Terminal:
    """`mbkit watch` in a pseudo-terminal."""

    def __init__(self, *arguments) -> None:
        self.master, slave = pty.openpty()
        command = [sys.executable, "-m", "mbkit", "watch", "--every", "0.1", *map(str, arguments)]
        environment = {**os.environ, "COLUMNS": "80", "LINES": "40", "TERM": "xterm"}
        self.process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=environment, preexec_fn=hear_ctrl_c)
        os.close(slave)
        os.set_blocking(self.master, False)
        self.text = ""

    def read_until(self, text: str) -> None:
        """Collect what is printed until `text` is there."""
        end = time.monotonic() + 60
        while text not in self.text:
            assert time.monotonic() < end, self.text
            try:
                self.text += os.read(self.master, 65536).decode()
            except BlockingIOError:
                time.sleep(0.05)


def test_watch_takes_up_new_lines_and_ctrl_c_ends_the_view_with_success(tmp_path):
    run = make_run(tmp_path / "run", finished=False)
    with run_lock(run):
        terminal = Terminal(run)
        terminal.read_until("step 1400 of 3000")
        with (run / "metrics.jsonl").open("a") as file:
            file.write('{"step": 2345, "seconds": 300, "eval/return": 4321.0}\n')
        terminal.read_until("step 2345 of 3000")
        terminal.read_until("eval 4321.0")
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.process.wait(20) == 0
    os.close(terminal.master)


def test_watch_ends_with_the_last_of_its_runs(tmp_path):
    run = make_run(tmp_path / "run", finished=False)
    with run_lock(run):
        terminal = Terminal(run)
        terminal.read_until("running")
    terminal.read_until("interrupted")
    assert terminal.process.wait(20) == 0
    os.close(terminal.master)
