"""A user's task under the command line: one sentence, the traceback behind it, status 2; a failing render costs no result."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import mbkit

TASK = """
import gymnasium, numpy
class Mine(gymnasium.Env):
    metadata = {"render_modes": ["rgb_array"]}
    observation_space = gymnasium.spaces.Box(-9, 9, (2,), numpy.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (1,), numpy.float32)
    def __init__(self, where="", render_mode=None):
        self.where, self.render_mode, self.count = where, render_mode, 0
        self.fail("make")
    def fail(self, where):
        if where == self.where:
            raise KeyError("no map")
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return numpy.zeros(2, numpy.float32), {}
    def step(self, action):
        self.count += 1
        if self.count == 7:
            self.fail("step")
        return numpy.zeros(2, numpy.float32), 1.0, False, self.count % 10 == 0, {}
    def render(self):
        self.fail("render")
    def close(self):
        self.fail("close")
gymnasium.register("Mine-v0", Mine)
"""


def train(folder: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    """The command in a folder with the modules my_task and broken_task."""
    (folder / "my_task.py").write_text(TASK)
    (folder / "broken_task.py").write_text("{}['NOT_SET']\n")
    words = ["random", "steps=30", "threads=1", "eval.episodes=1", "--quiet", *options]
    root = str(Path(mbkit.__file__).parent.parent)
    env = {**os.environ, "PYTHONPATH": root}
    return subprocess.run(
        [sys.executable, "-P", "-m", "mbkit", "train", *words], cwd=folder, env=env, capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            ["env=broken_task:X-v0"],
            "mbkit: module 'broken_task' of 'broken_task:X-v0' can't be imported: it raised KeyError: 'NOT_SET'",
        ),
        (
            ["env=my_task:Mine-v0", "env_kwargs.where=make"],
            "mbkit: environment 'my_task:Mine-v0' cannot be made with env_kwargs where: it raised",
        ),
        (
            ["env=my_task:Mine-v0", "env_kwargs.where=step"],
            "mbkit: step of my_task:Mine-v0 (environment 0) at step 7 raised KeyError: 'no map'",
        ),
    ],
)
def test_train_exception_of_the_users_code_is_a_sentence_before_its_traceback(tmp_path, options, sentence):
    done = train(tmp_path, "eval.video=false", *options)
    first, second, third, *_ = done.stderr.splitlines()
    assert (done.returncode, second) == (2, "Traceback (most recent call last):")
    assert first.startswith(sentence)
    assert third.startswith(f'  File "{tmp_path}/')
    assert done.stderr.splitlines()[-1].startswith("KeyError")


@pytest.mark.parametrize("where", ["render", "close"])
def test_train_exception_after_training_takes_no_summary_and_report_with_it(tmp_path, where):
    done = train(tmp_path, "env=my_task:Mine-v0", f"env_kwargs.where={where}", "run_dir=no")
    assert done.returncode == 0, done.stderr
    assert "KeyError: 'no map'" in done.stdout + done.stderr
    assert (tmp_path / "no/report.html").is_file()
    assert json.loads((tmp_path / "no/summary.json").read_text())["eval_return_mean"] == 10
