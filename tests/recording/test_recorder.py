"""Metrics: means per interval, valid JSON, and a file that a resumed run continues."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from mbkit.errors import UserError
from mbkit.recording.recorder import FILE, Recorder, read_metrics


def without_clock(run_dir: Path) -> list[dict[str, float]]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in read_metrics(run_dir)]


def test_recorder_log_writes_the_means_of_each_interval(tmp_path: Path) -> None:
    with Recorder(tmp_path, every=10) as recorder:
        for step in range(1, 25):
            recorder.log(step, {"model/loss": torch.tensor(float(step)), "loop/rate": 2.0 * step})
            if step % 2:
                recorder.log(step, {"model/odd": torch.tensor(step)})
    assert without_clock(tmp_path) == [
        {"step": 10, "model/loss": 5.5, "loop/rate": 11.0, "model/odd": 5.0},
        {"step": 20, "model/loss": 15.5, "loop/rate": 31.0, "model/odd": 15.0},
        {"step": 24, "model/loss": 22.5, "loop/rate": 45.0, "model/odd": 22.0},
    ]


def test_recorder_log_tensor_overwritten_later_counts_with_its_logged_value(tmp_path: Path) -> None:
    loss = torch.zeros(())
    with Recorder(tmp_path) as recorder:
        for step in (1, 2, 6):
            loss.fill_(step)
            recorder.log(step, {"loss": loss})
    assert without_clock(tmp_path) == [{"step": 6, "loss": 3.0}]


def test_recorder_flush_copies_to_the_host_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copies = []
    tolist = torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda x: copies.append(x.shape) or tolist(x))
    for name in ("item", "__float__", "numpy", "cpu"):
        monkeypatch.setattr(torch.Tensor, name, lambda *_: pytest.fail("a copy to the host"))
    with Recorder(tmp_path) as recorder:
        for step in range(5):
            recorder.log(step, {f"m/{i}": torch.tensor(float(i), requires_grad=True) for i in range(3)})
        assert copies == []
        recorder.flush()
    assert copies == [(3,)]


def test_recorder_non_finite_value_is_null_and_read_as_nan(tmp_path: Path) -> None:
    with Recorder(tmp_path) as recorder:
        recorder.log(1, {"a": torch.tensor(torch.nan), "b": torch.tensor(torch.inf), "c": 1.0})
        recorder.event(2, {"eval/return": float("nan")})
    lines = [json.loads(line, parse_constant=pytest.fail) for line in (tmp_path / FILE).read_text().splitlines()]
    assert lines[1]["a"] is lines[1]["b"] is lines[0]["eval/return"] is None
    assert read_metrics(tmp_path)[1]["a"] != read_metrics(tmp_path)[1]["a"]


def test_recorder_event_is_written_at_once(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    recorder.event(7, {"episode/return": torch.tensor(3.5), "episode/length": 20})
    assert without_clock(tmp_path) == [{"step": 7, "episode/return": 3.5, "episode/length": 20.0}]
    recorder.close()


def test_recorder_resumed_equals_uninterrupted(tmp_path: Path) -> None:
    def continue_to(recorder: Recorder, first: int, last: int) -> None:
        for step in range(first, last):
            recorder.log(step, {"loss": torch.tensor(float(step)), "rate": float(step)})
            if step % 7 == 0:
                recorder.event(step, {"eval/return": step})

    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
    with Recorder(tmp_path / "whole", every=10) as recorder:
        continue_to(recorder, 0, 50)
    recorder = Recorder(tmp_path / "cut", every=10)
    continue_to(recorder, 0, 25)
    state = recorder.state_dict()
    continue_to(recorder, 25, 44)  # lost in the crash
    with (tmp_path / "cut" / FILE).open("ab") as file:
        file.write(b'{"step": 44, "lo')
    with Recorder(tmp_path / "cut", every=10) as second:
        state["seconds"] = 1000.0
        second.load_state_dict(state)
        continue_to(second, 25, 50)
    assert without_clock(tmp_path / "cut") == without_clock(tmp_path / "whole")
    seconds = [row["seconds"] for row in read_metrics(tmp_path / "cut")]
    assert seconds[-1] >= 1000.0 > seconds[0]


def test_recorder_incomplete_last_line_is_skipped_and_repaired(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text('{"step": 1}\n{"step": 2, "lo')
    assert read_metrics(tmp_path) == [{"step": 1}]
    with Recorder(tmp_path) as recorder:
        recorder.event(3, {"a": 1})
    assert [row["step"] for row in read_metrics(tmp_path)] == [1, 3]
    with Recorder(tmp_path) as recorder:
        recorder.truncate(10**9)  # a position that a crash of the machine lost
        assert recorder.state_dict()["position"] == (tmp_path / FILE).stat().st_size


def test_read_metrics_foreign_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a run directory"):
        read_metrics(tmp_path)
    for text in ("no json\n{}\n", "[1]\n{}\n"):
        (tmp_path / FILE).write_text(text)
        with pytest.raises(UserError, match="line 1 is not a JSON object"):
            read_metrics(tmp_path)


def test_recorder_progress_without_a_terminal_shows_nothing(tmp_path: Path) -> None:
    code = "import sys\nfrom mbkit.recording.recorder import Recorder\nwith Recorder(sys.argv[1], progress=True) as r: r.log(2, {'a': 1.0})"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stderr == done.stdout == ""


def test_recorder_progress_shows_the_return(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with Recorder(tmp_path, total=100, progress=True) as recorder:
        recorder.event(50, {"eval/return": 123.456})
    captured = capsys.readouterr()
    assert "50/100" in captured.err
    assert "eval 123.5" in captured.err
    assert captured.out == ""


def test_recorder_tensorboard_has_the_same_numbers(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    recorder = Recorder(tmp_path, tensorboard=True)
    recorder.event(5, {"eval/return": 2.5})
    recorder.log(5, {})
    state = recorder.state_dict()
    recorder.event(6, {"eval/return": 100.0})  # lost in a crash
    recorder.close()
    time.sleep(1.1)  # event files are told apart by the second
    with Recorder(tmp_path, tensorboard=True) as recorder:
        recorder.load_state_dict(state)
        recorder.event(7, {"eval/return": 3.5})
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("eval/return")] == [(5, 2.5), (7, 3.5)]


def test_recorder_tensorboard_missing_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UserError, match=r'pip install "mbkit\[tensorboard\]"'):
        Recorder(tmp_path, tensorboard=True)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_recorder_log_on_a_gpu_does_not_synchronise(tmp_path: Path) -> None:
    with Recorder(tmp_path, every=1000) as recorder:
        x = torch.ones((), device="cuda")
        torch.cuda.set_sync_debug_mode("error")
        try:
            for step in range(5):
                recorder.log(step, {"a": x, "b": x * 2})
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert without_clock(tmp_path) == [{"step": 4, "a": 1.0, "b": 2.0}]
