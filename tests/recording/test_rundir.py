"""Run directories and files that are whole or not there."""

import json
import os
import resource
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch

from mbkit.errors import UserError
from mbkit.recording.rundir import Summary, create_run_dir, versions, write_summary
from mbkit.storage import read_json, replacing, write_json, write_text


def test_default_directory_names_algorithm_environment_and_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    paths = [create_run_dir("pets", "dm_control/cheetah-run-v0", 3) for _ in range(3)]
    assert len(set(paths)) == 3  # also within one second
    assert all(p.is_dir() and p.parts[:3] == ("runs", "pets", "dm_control-cheetah-run-v0") and p.name.startswith("3-") for p in paths)
    assert all(not list(p.iterdir()) for p in paths)


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/run cannot be written to \(Not a directory\)"):
        create_run_dir("pets", "cartpole", 0, tmp_path / "file" / "run")
    with pytest.raises(UserError, match="/proc/run"):
        create_run_dir("pets", "cartpole", 0, "/proc/run")


def test_a_directory_with_a_run_is_refused(tmp_path: Path) -> None:
    assert create_run_dir("pets", "cartpole", 0, tmp_path) == tmp_path
    write_text(tmp_path / "config.yaml", "algo: pets\n")
    with pytest.raises(UserError, match="died before its first checkpoint; remove it, or choose another with run_dir=") as caught:
        create_run_dir("pets", "cartpole", 0, tmp_path)
    assert "resume" not in str(caught.value)
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "step-0000000001.json").write_text("{}")
    with pytest.raises(UserError, match="died before its first checkpoint"):
        create_run_dir("pets", "cartpole", 0, tmp_path)
    (tmp_path / "checkpoint" / "step-0000000001.pt").write_bytes(b"")
    with pytest.raises(UserError, match="mbkit resume"):
        create_run_dir("pets", "cartpole", 0, tmp_path)


@pytest.mark.parametrize("name", ["", "  "])
def test_an_empty_name_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="run_dir must name a directory"):
        create_run_dir("pets", "cartpole", 0, name)


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    write_text(path, "old")
    with suppress(KeyboardInterrupt), replacing(path) as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["x.txt"]


def test_a_full_disk_is_the_users_to_mend(tmp_path: Path) -> None:
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


def test_json_is_always_valid(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"a": float("nan"), "b": [float("inf"), 1.5], "c": np.float64("nan"), "d": tmp_path, 3: (1, None)})
    content = json.loads((tmp_path / "x.json").read_text(), parse_constant=pytest.fail)
    assert content == {"a": None, "b": [None, 1.5], "c": None, "d": str(tmp_path), "3": [1, None]}
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(UserError, match=r"bad.json is not valid JSON"):
        read_json(tmp_path / "bad.json")
    with pytest.raises(UserError, match=r"absent.json cannot be read"):
        read_json(tmp_path / "absent.json")


def test_summary_has_the_agreed_keys(tmp_path: Path) -> None:
    write_summary(tmp_path, Summary("pets", "cartpole", 1, 3000, 170.0, float("nan"), 5, 180.0, 60.0, "cpu"), plan_milliseconds=12.0)
    content = read_json(tmp_path / "summary.json")
    keys = "algo env seed steps eval_return_mean eval_return_std eval_episodes best_eval_return wall_seconds device versions"
    assert set(content) == {*keys.split(), "plan_milliseconds"}
    assert content["eval_return_std"] is None
    assert content["versions"]["torch"] == versions()["torch"] is not None
