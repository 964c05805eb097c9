"""Runs that are stopped, started twice, or lose their directory: one sentence, and how to go on."""

import json
import shutil
import signal
import sys
import time

import gymnasium
import pytest
from episodes import Counting
from jobs import job
from odd_values import refusal_of

import mbkit
from mbkit.errors import UserError
from mbkit.loops import Online
from mbkit.loops.interrupt import Interrupted
from mbkit.recording import run_lock
from mbkit.run import Run

OPTIONS = (
    "env=tests/Counting-v0",
    "steps=40",
    "threads=1",
    "eval.episodes=1",
    "eval.video=false",
    "checkpoint.every=10",
    "loop.log_every=5",
)
NO_LIMIT = "tests/Endless-v0"
SLOW = """
import time
import gymnasium
from gymnasium.envs.classic_control import PendulumEnv

class Slow(PendulumEnv):
    def step(self, action):
        time.sleep(0.05)
        return super().step(action)

gymnasium.register("Slow-v0", Slow, max_episode_steps=1000)
"""


class Endless(Counting):
    """Never ends."""

    def step(self, action):
        obs, reward, *_ = super().step(action)
        return obs, reward, False, False, {}


gymnasium.register(NO_LIMIT, Endless)


@pytest.fixture
def finished(tmp_path):
    return mbkit.train("random", *OPTIONS, f"run_dir={tmp_path / 'run'}").path


def test_train_on_a_task_that_never_ends_cuts_its_evaluation_and_says_so(tmp_path):
    options = [f"env={NO_LIMIT}", "eval.max_steps=30", f"run_dir={tmp_path / 'run'}"]
    run = mbkit.train("random", *OPTIONS, *options)
    note = "The score counts 30 steps of 1 of 1 evaluation episodes, which had not ended by then; eval.max_steps sets how many."
    assert run.notes.count(note) == 1
    assert run.scores["eval/length"] == 30
    assert mbkit.evaluate(run.path, episodes=2)["note"].startswith("The score counts 30 steps of 2 of 2")
    assert "note" not in mbkit.evaluate(mbkit.train("random", *OPTIONS, f"run_dir={tmp_path / 'other'}"), episodes=2)


def test_resume_of_a_run_that_is_being_trained_is_refused(finished):
    with run_lock(finished), pytest.raises(UserError, match="is being trained by process"):
        mbkit.resume(finished, steps=60)
    assert mbkit.resume(finished, steps=60).loop.step == 60


def test_train_holds_the_lock_of_its_directory(tmp_path, monkeypatch):
    path, score = tmp_path / "run", Run.score

    def score_and_resume(run):
        score(run)
        with pytest.raises(UserError, match="is being trained by process"):
            mbkit.resume(path, steps=60)

    monkeypatch.setattr(Run, "score", score_and_resume)
    mbkit.train("random", *OPTIONS, f"run_dir={path}")


@pytest.mark.parametrize("step", [12, 20, 37])
def test_train_in_a_directory_that_is_deleted_stops_at_the_next_write(tmp_path, monkeypatch, step):
    path, advance = tmp_path / "run", Online.advance

    def deleting(loop):
        advance(loop)
        if loop.step == step:
            shutil.rmtree(path)
        assert loop.step <= step + 5

    monkeypatch.setattr(Online, "advance", deleting)
    with pytest.raises(UserError, match="was deleted or moved while the run wrote to it"):
        mbkit.train("random", *OPTIONS, f"run_dir={path}")
    assert not path.exists()


@pytest.mark.parametrize("content", [lambda text: text[: len(text) // 2], lambda text: ""])
def test_resume_with_shorter_metrics_says_so(finished, content):
    metrics = finished / "metrics.jsonl"
    metrics.write_text(content(metrics.read_text()))
    resumed = mbkit.resume(finished, steps=60)
    assert any("bytes shorter than at the checkpoint" in note for note in resumed.notes)
    assert all(json.loads(line)["step"] <= 60 for line in metrics.read_text().splitlines())


def test_resume_after_an_interrupted_extension_finishes_it(finished, monkeypatch):
    def stop(run, recorder):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Run, "finish", stop)
        with pytest.raises(Interrupted, match="mbkit resume"):
            mbkit.resume(finished, steps=60)
    assert mbkit.resume(finished).summary()["steps"] == 60


@pytest.mark.parametrize(
    ("culprit", "sentence"),
    [
        ("mbkit.run.api.config.compose", "nothing was written yet"),
        ("mbkit.run.run.recipes.build", "nothing was written yet"),
        ("mbkit.run.run.Online.start", "nothing was written yet"),
        ("mbkit.recording.save_checkpoint", "there is no checkpoint yet"),
        ("mbkit.run.run.score", "`mbkit resume .*run` goes on from it"),
        ("mbkit.recording.write_summary", "`mbkit resume .*run` goes on from it"),
    ],
)
def test_train_interrupted_in_any_phase_says_how_to_go_on(tmp_path, monkeypatch, culprit, sentence):
    def stop(*_, **__):
        raise KeyboardInterrupt("SIGTERM")

    monkeypatch.setattr(culprit, stop)
    with pytest.raises(Interrupted, match=f"^stopped by SIGTERM: .*{sentence}"):
        mbkit.train("random", *OPTIONS, f"run_dir={tmp_path / 'run'}")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_command_stopped_while_it_scores_ends_with_130_and_can_go_on(tmp_path, number):
    (tmp_path / "slow_task.py").write_text(SLOW)
    run = tmp_path / "run"
    options = ["env=slow_task:Slow-v0", "steps=5", f"run_dir={run}", "threads=1", "eval.video=false"]
    code = "import sys; sys.path.insert(0, '.'); from mbkit.cli import main; main()"
    command = [sys.executable, "-c", code, "train", "random", *options]
    with job(command, tmp_path) as process:
        while not list(run.glob("checkpoint/*05.pt")) and process.poll() is None:
            time.sleep(0.05)
        time.sleep(0.3)
        process.send_signal(number)
        said = process.communicate(timeout=60)[1].strip().splitlines()
    assert process.returncode == 130
    assert said[-1:] == [f"mbkit: stopped by {number.name}: a checkpoint was written at step 5, `mbkit resume {run.name}` goes on from it"]


@pytest.mark.parametrize("content", ["[]", "{", '{"steps": "x"}', "null", "[" * 100_000])
def test_resume_with_an_odd_summary_is_one_sentence_or_goes_on(finished, content):
    (finished / "summary.json").write_text(content)
    assert "summary.json" in (refusal_of(lambda: mbkit.resume(finished, steps=40)) or "summary.json")
