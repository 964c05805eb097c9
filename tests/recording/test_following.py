"""A run followed from outside: incremental reading, states, speed."""

import json
import math

import pytest
from run_directories import make_run

from mbkit.errors import UserError
from mbkit.recording.following import FollowedRun, Growing, run_directories
from mbkit.recording.lock import failure_noted, run_lock
from mbkit.recording.recorder import Recorder


def write(path, *rows, mode="a"):
    """Lines of JSON."""
    with path.open(mode) as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def test_growing_reads_every_line_once_and_waits_for_the_end_of_a_line(tmp_path):
    lines = Growing(tmp_path / "m.jsonl")
    assert list(lines.new()) == []
    write(lines.path, {"a": 1}, {"a": 2})
    assert [row["a"] for row in lines.new()] == [1, 2]
    with lines.path.open("a") as file:
        file.write('{"a": 3')
    assert list(lines.new()) == []
    with lines.path.open("a") as file:
        file.write("3}\nno json\n7\n")
    assert [row["a"] for row in lines.new()] == [33]
    assert not lines.restarted


@pytest.mark.parametrize("later", [[9], [9] * 40])
def test_growing_begins_again_where_the_file_was_cut_and_grew(tmp_path, later):
    lines = Growing(tmp_path / "m.jsonl")
    write(lines.path, *({"a": n} for n in range(5)))
    list(lines.new())
    write(lines.path, *({"a": n} for n in [0, 1, *later]), mode="w")  # shorter or longer than what was read
    assert [row["a"] for row in lines.new()] == [0, 1, *later]
    assert lines.restarted
    lines.path.unlink()
    assert list(lines.new()) == []
    assert lines.restarted


def test_followed_run_of_any_cut_equals_one_read_at_once(tmp_path):
    run = make_run(tmp_path / "run", finished=False)
    content = (run / "metrics.jsonl").read_bytes()
    whole = FollowedRun(run)
    for cut in (1, 100, 1000, len(content) // 2):
        (run / "metrics.jsonl").write_bytes(content[:cut])
        slow = FollowedRun(run)
        (run / "metrics.jsonl").write_bytes(content)
        slow.refresh()
        assert (slow.step, slow.evaluations, slow.training) == (whole.step, whole.evaluations, whole.training)
    returns = [json.loads(line)["eval/return"] for line in content.splitlines() if b"eval/return" in line]
    assert [value for _, value in whole.evaluations] == returns
    assert (whole.last, whole.best) == (returns[-1], max(returns))
    episodes = [json.loads(line)["episode/return"] for line in content.splitlines() if b"episode/return" in line]
    assert whole.training == pytest.approx(sum(episodes[-10:]) / len(episodes[-10:]))


def test_followed_run_speed_is_of_the_last_minute(tmp_path):
    run = make_run(tmp_path / "run", finished=False, steps=10_000)
    write(
        run / "metrics.jsonl",
        *({"step": step, "seconds": step / 10 if step < 5000 else 500 + (step - 5000) / 2} for step in range(0, 6000, 10)),
        mode="w",
    )
    with run_lock(run):
        followed = FollowedRun(run)
        assert followed.state == "running"
        assert followed.rate == pytest.approx(2.0)  # 10 a second at first, then 2
        assert followed.left == pytest.approx((10_000 - 5990) / 2)


def test_followed_run_states(tmp_path):
    run = make_run(tmp_path / "run", finished=False)
    followed = FollowedRun(run)
    assert followed.state == "interrupted"
    with run_lock(run):
        followed.refresh()
        assert followed.state == "running"
    with pytest.raises(UserError), run_lock(run), failure_noted(run):
        raise UserError("sac diverged")
    followed.refresh()
    assert (followed.state, followed.warned) == ("failed", ["sac diverged"])
    (run / "summary.json").write_text(json.dumps({"steps": 3000, "eval_return_mean": 7.5}))
    followed.refresh()
    assert (followed.state, followed.last) == ("finished", 7.5)
    (run / "config.yaml").write_text((run / "config.yaml").read_text().replace("steps: 3000", "steps: 6000"))  # extended, then stopped
    with run_lock(run):
        pass
    followed.refresh()
    assert (followed.state, followed.total) == ("interrupted", 6000)
    (run / "config.yaml").unlink()
    followed.refresh()
    assert (followed.state, "config.yaml" in followed.reason) == ("unreadable", True)


def test_followed_run_shows_warnings_once_and_returns_that_are_no_numbers(tmp_path):
    run = make_run(tmp_path / "run", finished=False)
    followed = FollowedRun(run)
    assert followed.warned == []
    with Recorder(run) as recorder:
        recorder.warn(5, "The values diverge.")
        followed.refresh()
        recorder.warn(5, "The values diverge.")  # once more, after a resumption
        recorder.event(4000, {"eval/return": math.nan})
    followed.refresh()
    assert followed.warned == ["The values diverge.", "The evaluation at step 4000 is no finite number."]


def test_run_directories_are_all_below_a_folder(tmp_path):
    runs = [make_run(tmp_path / name) for name in ("sweep/b/1", "sweep/a/2", "sweep/a/1", "other")]
    (runs[0] / "checkpoint").mkdir()
    (runs[0] / "checkpoint" / "config.yaml").touch()  # nothing inside a run is another
    (tmp_path / "sweep" / "config.yaml").touch()  # nor is a file of this name alone
    assert run_directories(tmp_path / "sweep") == sorted(runs[:3])
    assert run_directories(runs[3]) == [runs[3]]
    with pytest.raises(UserError, match="there is no directory"):
        run_directories(tmp_path / "nowhere")
