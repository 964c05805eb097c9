"""Trackers: the real packages offline, and what happens where one fails."""

import json
import math
import random
import sys

import numpy as np
import pytest

from mbkit.config import compose
from mbkit.config.identity import group_identity, run_identity
from mbkit.errors import UserError
from mbkit.recording import trackers
from mbkit.recording.recorder import Recorder
from mbkit.recording.trackers import Tracker, check_installed, last_step

CONFIG = {"algo": "sac", "env": "dm_control/cheetah-run-v0", "seed": 3, "agent": {"name": "sac", "hidden": (8, 8)}}


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """No tracker asks, or sends anything."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("SWANLAB_MODE", "offline")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    monkeypatch.setenv("TRACKIO_PROJECT", "tests")
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Stub:
    """A tracker's module and its run in one."""

    def __init__(self) -> None:
        self.started, self.rows, self.finished = [], [], 0

    def init(self, *arguments, **options):
        random.random(), np.random.random()
        print("a banner")
        self.started.append(options)
        return self

    def log(self, values, step):
        self.rows.append((step, dict(values)))

    def finish(self):
        self.finished += 1


@pytest.fixture
def stub(monkeypatch):
    """A stub in the place of swanlab."""
    module = Stub()
    monkeypatch.setattr(trackers, "import_module", lambda name: module)
    monkeypatch.setattr(trackers, "check_installed", lambda name: None)
    return module


def followed(directory, recorder) -> Tracker:
    """A tracker of the recorder's lines."""
    recorder.tracker = Tracker("swanlab", directory, CONFIG, recorder.notes)
    return recorder.tracker


def test_tracker_receives_every_line_of_metrics_and_ends_with_the_recorder(tmp_path, stub):
    with Recorder(tmp_path, every=10) as recorder:
        followed(tmp_path, recorder)
        recorder.event(3, {"eval/return": 7.0, "eval/odd": math.nan})
        recorder.event(4, {"eval/odd": math.inf})
        for step in range(1, 14):
            recorder.log(step, {"critic/loss": float(step)})
    assert stub.rows == [(3, {"eval/return": 7.0}), (10, {"critic/loss": 5.5}), (13, {"critic/loss": 12.0})]
    assert stub.finished == 1
    name = stub.started[0]["name"]
    assert name == f"sac-dm_control-cheetah-run-v0-3-{stub.started[0]['id']}"
    assert stub.started[0]["config"]["agent"]["hidden"] == [8, 8]


def test_tracker_of_a_resumed_run_is_the_same_and_is_told_nothing_twice(tmp_path, stub):
    recorder = Recorder(tmp_path, every=10)
    followed(tmp_path, recorder)
    for step in range(1, 21):
        recorder.log(step, {"a": float(step)})
    state = recorder.state_dict()
    for step in range(21, 46):  # and then the process was killed
        recorder.log(step, {"a": float(step)})
    recorder._lines.close()
    before = len(stub.rows)
    with Recorder(tmp_path, every=10) as second:
        followed(tmp_path, second)
        second.load_state_dict(state)
        for step in range(21, 66):
            second.log(step, {"a": float(step)})
    assert [step for step, _ in stub.rows] == [10, 20, 30, 40, 50, 60, 65]
    assert before == 4
    assert stub.started[0]["id"] == stub.started[1]["id"]
    assert [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [10, 20, 30, 40, 50, 60, 65]


def test_tracker_draws_no_random_numbers_of_the_run_and_prints_nothing_on_stdout(tmp_path, stub, capsys):
    random.seed(1), np.random.seed(1)
    expected = random.random(), np.random.random()
    random.seed(1), np.random.seed(1)
    Tracker("swanlab", tmp_path, CONFIG, [])
    assert (random.random(), np.random.random()) == expected
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "a banner\n")


@pytest.mark.parametrize("call", ["init", "log", "finish"])
def test_tracker_that_fails_is_noted_once_and_ends_nothing(tmp_path, stub, monkeypatch, capsys, call):
    def broken(*arguments, **options):
        raise ConnectionError("no route to host.\nand more")

    monkeypatch.setattr(stub, call, broken)
    with Recorder(tmp_path, every=10) as recorder:
        followed(tmp_path, recorder)
        for step in range(1, 40):
            recorder.log(step, {"a": 1.0})
    [note] = recorder.notes
    assert note.startswith("swanlab ")
    assert "(no route to host); the run went on" in note
    assert capsys.readouterr().err.count("no route") == 1
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 4


def test_last_step_of_what_a_resumption_cuts(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 10}\n{"step": 30}\n{"step": 20}\n{"st')
    assert [last_step(path, position) for position in (0, 13, 26, 39)] == [30, 30, 20, -1]


def test_check_installed_names_the_command_and_takes_no_folder_for_a_package(tmp_path, monkeypatch):
    check_installed(None)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "trackio", raising=False)
    with pytest.raises(UserError, match=r'trackio is not installed; `pip install "mbkit\[trackio\]"` brings it'):
        check_installed("trackio")
    (tmp_path / "trackio").mkdir()  # what it leaves behind
    with pytest.raises(UserError, match="trackio is not installed"):
        check_installed("trackio")


def test_check_installed_refuses_several_seeds_where_a_tracker_follows_one_run():
    with pytest.raises(UserError, match="tracker=swanlab follows one run in a process, and seeds= has several"):
        check_installed("swanlab", [1, 2])


def test_tracker_is_no_part_of_what_a_run_is():
    with_it, without = compose("sac", ["tracker=wandb"]).to_dict(), compose("sac").to_dict()
    assert run_identity(with_it) == run_identity(without)
    assert group_identity(with_it) == group_identity(without)


def two_sittings(name, offline) -> list[str]:
    """A run that is resumed, in the real tracker; its notes."""
    run = offline / "run"
    run.mkdir(exist_ok=True)
    notes = []
    state = random.getstate()
    for sitting in range(2):
        tracker = Tracker(name, run, CONFIG, notes)
        tracker.log(10 * sitting + 5, {"eval/return": 1.5 + sitting})
        tracker.log(10 * sitting + 4, {"critic/loss": 0.5, "odd": math.nan})  # means of an interval come after its events
        tracker.finish()
    assert random.getstate() == state
    return notes


def test_wandb_stores_both_sittings_of_a_run_under_one_name(offline):
    pytest.importorskip("wandb", reason="wandb is not installed")
    assert two_sittings("wandb", offline) == []
    identifier = json.loads((offline / "run" / "tracker.json").read_text())["id"]
    files = sorted((offline / "run" / "wandb").glob(f"offline-run-*/run-{identifier}.wandb"))
    assert len(files) in (1, 2)  # one where both began in the same second
    content = b"".join(file.read_bytes() for file in files)
    assert b"eval/return" in content
    assert b"critic/loss" in content


def test_trackio_stores_both_sittings_of_a_run_under_one_name(offline):
    pytest.importorskip("trackio", reason="trackio is not installed")
    import trackio.utils
    from trackio.sqlite_storage import SQLiteStorage

    if not str(trackio.utils.TRACKIO_DIR).startswith(str(offline)):
        pytest.skip("trackio was imported before its folder was chosen")
    assert two_sittings("trackio", offline) == []
    [run] = SQLiteStorage.get_runs("tests")
    rows = SQLiteStorage.get_logs("tests", run)
    assert [(row["step"], row.get("eval/return"), row.get("critic/loss")) for row in rows] == [
        (5, 1.5, None),
        (4, None, 0.5),
        (15, 2.5, None),
        (14, None, 0.5),
    ]


def test_swanlab_stores_both_sittings_of_a_run_under_one_name(offline):
    pytest.importorskip("swanlab", reason="swanlab is not installed")
    assert two_sittings("swanlab", offline) == []
    identifier = json.loads((offline / "run" / "tracker.json").read_text())["id"]
    files = list((offline / "run" / "swanlog").glob(f"run-*/run-{identifier}.swanlab"))
    assert files
    assert b"eval/return" in b"".join(file.read_bytes() for file in files)
