"""What watches a run from outside: a tracker, which changes nothing, and the state that its directory tells."""

import json
import random

import numpy as np
import pytest

import mbkit
from mbkit.errors import UserError
from mbkit.recording import trackers
from mbkit.recording.following import FollowedRun
from mbkit.run.run import Run

OPTIONS = ("env=Pendulum-v1", "steps=90", "agent.hidden=[8]", "loop.warmup_steps=20", "loop.batch_size=8", "loop.log_every=10")
OPTIONS += ("eval.episodes=1", "eval.max_steps=20", "eval.video=false", "checkpoint.every=30", "eval.every=30")


class Drawing:
    """A tracker that draws random numbers, and stores what it is told."""

    def __init__(self) -> None:
        self.rows = []

    def init(self, *arguments, **options):
        random.random(), np.random.random()
        return self

    def log(self, values, step):
        random.random(), np.random.random()
        self.rows.append((step, values))

    def finish(self):
        np.random.random()


@pytest.fixture
def drawing(monkeypatch):
    """Such a tracker in the place of swanlab."""
    module = Drawing()
    monkeypatch.setattr(trackers, "import_module", lambda name: module)
    monkeypatch.setattr("mbkit.run.api.check_installed", lambda name, seeds=None: None)
    monkeypatch.setattr(trackers, "check_installed", lambda name: None)
    return module


def lines(directory):
    """Lines of metrics without times."""
    rows = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "seconds" and "time/" not in k and "per_second" not in k} for row in rows]


def test_train_with_a_tracker_learns_the_same_and_tells_it_every_line(tmp_path, drawing):
    for name, more in (("plain", ()), ("tracked", ("tracker=swanlab",))):
        mbkit.train("sac", *OPTIONS, *more, run_dir=str(tmp_path / name)).close()
    assert lines(tmp_path / "tracked") == lines(tmp_path / "plain")
    assert [step for step, _ in drawing.rows] == [row["step"] for row in lines(tmp_path / "tracked")]
    mbkit.resume(tmp_path / "tracked", steps=120).close()
    mbkit.resume(tmp_path / "plain", steps=120).close()
    assert lines(tmp_path / "tracked") == lines(tmp_path / "plain")
    assert drawing.rows[-1][0] == 120


def test_train_that_an_error_ends_says_so_in_its_directory(tmp_path, monkeypatch):
    score = Run.score

    def broken(run):
        if run.loop.step == 60:
            raise UserError("the evaluation broke")
        score(run)

    monkeypatch.setattr(Run, "score", broken)
    with pytest.raises(UserError, match="the evaluation broke"):
        mbkit.train("sac", *OPTIONS, run_dir=str(tmp_path / "run"))
    followed = FollowedRun(tmp_path / "run")
    assert (followed.state, followed.reason, followed.step) == ("failed", "the evaluation broke", 60)
    monkeypatch.setattr(Run, "score", score)
    with mbkit.resume(tmp_path / "run"):
        followed.refresh()
    assert (followed.state, followed.warned, followed.step) == ("finished", [], 90)
    assert followed.last == pytest.approx(json.loads((tmp_path / "run" / "summary.json").read_text())["eval_return_mean"])
