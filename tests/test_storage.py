"""Atomic writes: after an error or a crash a file has its old content, and only complete tensor files are read."""

import json
import os
import resource
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch

from mbkit.errors import UserError
from mbkit.storage import plain, read_json, read_tensors, replacing, replacing_path, write_json, write_tensors, write_text

KIND = "mbkit toy 1"


def test_replacing_interrupted_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    write_text(path, "old")
    with suppress(KeyboardInterrupt), replacing(path) as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["x.txt"]


def test_replacing_full_disk_names_the_file(tmp_path: Path) -> None:
    write_text(tmp_path / "x.pt", "old")
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limit[1]))
    try:
        with pytest.raises(UserError, match=r"x.pt cannot be written"), replacing(tmp_path / "x.pt") as file:
            torch.save(torch.randn(100_000), file)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert os.listdir(tmp_path) == ["x.pt"]
    with pytest.raises(UserError, match="nowhere/x"):
        write_text(tmp_path / "nowhere" / "x", "")


def test_replacing_path_keeps_the_extension_and_replaces_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "x.mp4"
    write_text(path, "old")
    with replacing_path(path) as temporary:
        assert (temporary.suffix, temporary.parent) == (".mp4", tmp_path)
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["x.mp4"]


def test_replacing_path_interrupted_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x.mp4"
    write_text(path, "old")
    with suppress(KeyboardInterrupt), replacing_path(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    with pytest.raises(UserError, match=r"x.mp4 cannot be written \(broken pipe\)$"), replacing_path(path):
        raise OSError("broken pipe\nand many lines of log")
    with pytest.raises(ValueError, match="a mistake of the caller"), replacing_path(path):
        raise ValueError("a mistake of the caller")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["x.mp4"]


def test_replacing_path_nothing_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"x.mp4 cannot be written \(No such file or directory\)"), replacing_path(tmp_path / "x.mp4"):
        pass


def test_write_json_is_always_valid_json(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"a": float("nan"), "b": [float("inf"), 1.5], "c": np.float64("nan"), "d": tmp_path, 3: (1, None)})
    content = json.loads((tmp_path / "x.json").read_text(), parse_constant=pytest.fail)
    assert content == {"a": None, "b": [None, 1.5], "c": None, "d": str(tmp_path), "3": [1, None]}


def test_read_json_damaged_or_absent_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(UserError, match=r"bad.json is not valid JSON"):
        read_json(tmp_path / "bad.json")
    with pytest.raises(UserError, match=r"absent.json cannot be read"):
        read_json(tmp_path / "absent.json")


def test_plain_nested_containers_become_json_types() -> None:
    assert plain({1: (Path("a/b"), [float("-inf"), 0.5], {"x": True})}) == {"1": ["a/b", [None, 0.5], {"x": True}]}


def test_read_tensors_reads_what_write_tensors_wrote(tmp_path: Path) -> None:
    content = {"step": 3, "x": torch.arange(4), "nested": {"names": ["a", None], 5: 2.5}}
    write_tensors(tmp_path / "x.pt", KIND, content)
    loaded = read_tensors(tmp_path / "x.pt", KIND, {"step": int, "x": torch.Tensor})
    assert loaded.keys() == {"format", *content}
    assert loaded["format"] == KIND
    assert torch.equal(loaded["x"], content["x"])
    assert (loaded["step"], loaded["nested"]) == (3, content["nested"])


def test_read_tensors_another_kind_or_missing_part_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    write_tensors(path, KIND, {"step": 3})
    refusal = rf"x.pt cannot be read: expected '{KIND}', found a damaged or foreign file"
    for kind, parts in ((KIND, {"state": dict}), (KIND, {"step": str}), ("mbkit toy 2", {"step": int})):
        with pytest.raises(UserError, match=refusal.replace(KIND, kind)):
            read_tensors(path, kind, parts)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match=refusal):
        read_tensors(path, KIND, {})
    with pytest.raises(UserError, match=rf"there is no file .*absent.pt: expected '{KIND}'"):
        read_tensors(tmp_path / "absent.pt", KIND, {})
