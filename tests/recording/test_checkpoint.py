"""Checkpoints are restored bit for bit, survive SIGKILL, and damaged ones are named."""

import json
import logging
import random
import signal
import subprocess
import sys
import time
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mbkit.errors import UserError
from mbkit.recording.checkpoint import checkpoints, load_checkpoint, save_checkpoint


def state(value: float = 1.0) -> dict[str, Any]:
    return {"x": torch.full((100,), value)}


def test_load_checkpoint_restores_every_type_of_state(tmp_path: Path) -> None:
    layer = torch.nn.Linear(2, 2)
    optimizer = torch.optim.Adam(layer.parameters())
    layer(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    before = {
        "layer": layer.state_dict(),  # an OrderedDict
        "optimizer": optimizer.state_dict(),  # integer keys
        "torch": torch.get_rng_state(),
        "python": random.getstate(),  # nested tuples
        "numpy": np.random.default_rng(0).bit_generator.state,  # 128-bit integers
        "rest": [None, True, 1, 2.5, float("nan"), "text", (), {}, torch.zeros(0, 3), torch.tensor(7, dtype=torch.int64)],
    }
    save_checkpoint(tmp_path, 5, before)
    step, after = load_checkpoint(tmp_path)
    assert step == 5
    assert isinstance(before["layer"], OrderedDict)
    assert all(torch.equal(after["layer"][k], v) for k, v in before["layer"].items())
    torch.optim.Adam(layer.parameters()).load_state_dict(after["optimizer"])
    assert torch.equal(after["torch"], before["torch"])
    assert after["python"] == before["python"]
    assert after["numpy"] == before["numpy"]
    assert str(after["rest"]) == str(before["rest"])
    sidecar = json.loads((tmp_path / "step-0000000005.json").read_text())
    assert sidecar["step"] == 5
    assert sidecar["versions"]["torch"]


@pytest.mark.parametrize("culprit", [np.float64(1), np.zeros(2), {1, 2}, object(), torch.float32])
def test_save_checkpoint_unloadable_value_is_refused_before_writing(tmp_path: Path, culprit: object) -> None:
    with pytest.raises(TypeError, match=r"state\.env\[1\]\.rng is a"):
        save_checkpoint(tmp_path, 1, {"env": [0, {"rng": culprit}]})
    assert checkpoints(tmp_path) == []


def test_save_checkpoint_view_is_saved_without_its_storage(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, 1, {"x": torch.zeros(1_000_000)[:10]})
    assert path.stat().st_size < 10_000


@pytest.mark.parametrize(("keep", "remaining"), [("last", [4]), ("best", [2, 4]), ("all", [1, 2, 3, 4])])
def test_save_checkpoint_keep_deletes_the_others(tmp_path: Path, keep: Any, remaining: list[int]) -> None:
    for step, score in ((1, 0.0), (2, 5.0), (3, -1.0), (4, 3.0)):
        save_checkpoint(tmp_path, step, state(step), keep, score)
    assert sorted(int(p.stem[5:]) for p in tmp_path.glob("*.pt")) == remaining
    assert sorted(int(p.stem[5:]) for p in tmp_path.glob("*.json")) == remaining
    assert len(list(tmp_path.iterdir())) == 2 * len(remaining)
    assert load_checkpoint(tmp_path)[0] == 4
    assert load_checkpoint(tmp_path, "best")[0] == (4 if keep == "last" else 2)


def test_load_checkpoint_best_without_scores_is_the_last(tmp_path: Path) -> None:
    for step in (9, 10):
        save_checkpoint(tmp_path, step, state(), "best")
    assert load_checkpoint(tmp_path, "best")[0] == 10
    assert len(checkpoints(tmp_path)) == 1


def test_load_checkpoint_damaged_or_foreign_file_is_named(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, 1, state())
    content = path.read_bytes()
    damaged = [content[: len(content) // 2], content[:-1], b"", b"text\n", content[:50] + bytes(500) + content[550:]]
    damaged += [content[:i] + bytes([content[i] ^ 4]) + content[i + 1 :] for i in range(0, len(content), 97)]  # one flipped bit
    for wrong in damaged:
        path.write_bytes(wrong)
        try:
            _, loaded = load_checkpoint(tmp_path)
        except UserError as error:
            assert str(error) == f"{path} cannot be read: expected 'mbkit checkpoint 1', found a damaged or foreign file"  # noqa: PT017
        else:
            assert torch.equal(loaded["x"], state()["x"])  # padding was hit
    kind = {"format": "mbkit checkpoint 1"}
    for foreign in ({"weights": torch.zeros(2)}, kind, kind | {"step": 1}, kind | {"state": {}}, kind | {"step": 1, "state": None}):
        torch.save(foreign, path)
        with pytest.raises(UserError, match=r"step-0000000001.pt cannot be read: expected 'mbkit checkpoint 1', found a damaged or"):
            load_checkpoint(tmp_path)
    torch.save(object, path)  # needs pickle
    with pytest.raises(UserError, match=r"step-0000000001.pt cannot be read"):
        load_checkpoint(tmp_path)
    with pytest.raises(UserError, match="holds no checkpoint"):
        load_checkpoint(tmp_path / "absent")
    with pytest.raises(UserError, match="cannot be created"):
        save_checkpoint(path / "below", 1, state())


def test_load_checkpoint_damaged_newest_file_is_skipped_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for step in (1, 2):
        path = save_checkpoint(tmp_path, step, state(step), "all")
    path.write_bytes(path.read_bytes()[:-100])
    with caplog.at_level(logging.WARNING, "mbkit"):
        step, loaded = load_checkpoint(tmp_path)
    assert step == 1
    assert loaded["x"][0] == 1
    assert "step-0000000002.pt" in caplog.text


KILLED_AT_EVERY_POINT = """
import os, pathlib, signal, sys, torch
from mbkit.recording.checkpoint import load_checkpoint, save_checkpoint

torch.set_num_threads(1)
keep, root = sys.argv[1], pathlib.Path(sys.argv[2])
state = lambda step: {"x": torch.full((10_000,), float(step))}

def dying(call, countdown):
    def wrapped(*args, **kwargs):
        countdown[0] -= 1
        if countdown[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*args, **kwargs)
    return wrapped

class Cut:  # dies after half the bytes
    def __init__(self, file): self.file, self.left = file, 20_000
    def write(self, data):
        self.file.write(bytes(data)[: max(self.left, 0)])
        self.left -= len(data)
        if self.left <= 0:
            self.file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        return len(data)

for point in range(1, 30):
    directory = root / str(point)
    for step in (1, 2):
        save_checkpoint(directory, step, state(step), keep, score=step)
    child = os.fork()
    if child == 0:
        if point == 1:
            save = torch.save
            torch.save = lambda content, file: save(content, Cut(file))
        else:
            countdown = [point - 1]
            for owner, name in ((os, "fsync"), (os, "replace"), (pathlib.Path, "unlink")):
                setattr(owner, name, dying(getattr(owner, name), countdown))
        save_checkpoint(directory, 3, state(3), keep, score=3)
        os._exit(0)
    finished = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    step, loaded = load_checkpoint(directory)
    assert step == 3 or (step == 2 and not finished), (point, step)
    assert torch.equal(loaded["x"], state(step)["x"])
    print(point, step, sorted(os.listdir(directory)))
    save_checkpoint(directory, 4, state(4), keep, score=4)
    assert sorted(os.listdir(directory)) == [f"step-{4:010d}.json", f"step-{4:010d}.pt"] or keep == "all"
    if finished:
        sys.exit()
"""


@pytest.mark.parametrize("keep", ["last", "best", "all"])
def test_save_checkpoint_sigkill_at_any_point_leaves_a_loadable_state(tmp_path: Path, keep: str) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED_AT_EVERY_POINT, keep, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    points = done.stdout.splitlines()
    assert any("0003.pt.tmp" in line and " 2 [" in line for line in points)  # some died in the middle of the write,
    assert any("0002.pt'" in line and " 3 [" in line for line in points[:-1])  # some before the old one was deleted


WRITER = """
import sys, torch
from mbkit.recording.checkpoint import save_checkpoint
for step in range(1, 10**6):
    save_checkpoint(sys.argv[1], step, {"x": torch.full((500_000,), float(step))})
    print(step, flush=True)
"""


def test_save_checkpoint_sigkill_at_random_moments_leaves_the_last_saved_state(tmp_path: Path) -> None:
    for delay in (0.03, 0.11):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        assert writer.stdout
        first = int(writer.stdout.readline())
        time.sleep(delay)
        writer.send_signal(signal.SIGKILL)
        acknowledged = [first, *map(int, writer.stdout.read().split())][-1]
        writer.wait()
        writer.stdout.close()
        step, loaded = load_checkpoint(tmp_path)
        assert step >= acknowledged
        assert torch.equal(loaded["x"], torch.full((500_000,), float(step)))


@pytest.mark.parametrize(
    "content", ["[]", "3", '{"score": "high"}', '{"score": true}', '{"score": NaN}', '{"score": [1]}', "{", '{"step": 1}']
)
def test_best_checkpoint_with_an_odd_score_is_one_sentence(tmp_path: Path, content: str) -> None:
    save_checkpoint(tmp_path, 1, state(), "best", 1.0)
    sidecar = tmp_path / "step-0000000001.json"
    sidecar.write_text(content)
    with pytest.raises(UserError, match=r"step-0000000001\.json") as refused:
        load_checkpoint(tmp_path, "best")
    assert len(str(refused.value).splitlines()) == 1


def test_save_checkpoint_in_a_run_directory_that_was_deleted_leaves_it_deleted(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be created"):
        save_checkpoint(tmp_path / "run/checkpoint", 1, state())
    assert list(tmp_path.iterdir()) == []
