"""Run directories: their names, what is refused, and the summary."""

from pathlib import Path

import pytest

from mbkit.errors import UserError
from mbkit.recording.rundir import Summary, create_run_dir, shown, versions, write_summary
from mbkit.storage import read_json, write_text


def test_create_run_dir_default_names_algorithm_environment_and_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    paths = [create_run_dir("pets", "dm_control/cheetah-run-v0", 3) for _ in range(3)]
    assert len(set(paths)) == 3  # also within one second
    assert all(p.is_dir() and p.parts[:3] == ("runs", "pets", "dm_control-cheetah-run-v0") and p.name.startswith("3-") for p in paths)
    assert all(not list(p.iterdir()) for p in paths)


def test_create_run_dir_unwritable_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/run cannot be written to \(Not a directory\)"):
        create_run_dir("pets", "cartpole", 0, tmp_path / "file" / "run")
    with pytest.raises(UserError, match="/proc/run"):
        create_run_dir("pets", "cartpole", 0, "/proc/run")


def test_create_run_dir_existing_run_is_refused(tmp_path: Path) -> None:
    assert create_run_dir("pets", "cartpole", 0, tmp_path) == tmp_path
    write_text(tmp_path / "config.yaml", "algo: pets\n")
    with pytest.raises(UserError, match="ended before its first checkpoint; remove it, or choose another with run_dir=") as caught:
        create_run_dir("pets", "cartpole", 0, tmp_path)
    assert "resume" not in str(caught.value)
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "step-0000000001.json").write_text("{}")
    with pytest.raises(UserError, match="ended before its first checkpoint"):
        create_run_dir("pets", "cartpole", 0, tmp_path)
    (tmp_path / "checkpoint" / "step-0000000001.pt").write_bytes(b"")
    with pytest.raises(UserError, match="mbkit resume"):
        create_run_dir("pets", "cartpole", 0, tmp_path)


@pytest.mark.parametrize("name", ["", "  "])
def test_create_run_dir_empty_name_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="run_dir must name a directory"):
        create_run_dir("pets", "cartpole", 0, name)


def test_write_summary_writes_the_documented_keys(tmp_path: Path) -> None:
    write_summary(tmp_path, Summary("pets", "cartpole", 1, 3000, 170.0, float("nan"), 5, 180.0, 60.0, "cpu"), plan_milliseconds=12.0)
    content = read_json(tmp_path / "summary.json")
    keys = "algo env seed steps eval_return_mean eval_return_std eval_episodes best_eval_return wall_seconds device versions"
    assert set(content) == {*keys.split(), "plan_milliseconds"}
    assert content["eval_return_std"] is None
    assert content["versions"]["torch"] == versions()["torch"] is not None


@pytest.mark.parametrize("env", ["my_tasks:Mine-v0", "a:b/Name-v0", "..", "dm_control/x-v0", ".hidden", "C:\\x", "m:" + "é" * 300])
def test_create_run_dir_default_names_hold_no_signs_of_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, env: str) -> None:
    monkeypatch.chdir(tmp_path)
    path = create_run_dir("random", env, 0)
    assert len(path.parts) == 4
    assert not {":", "\\", ".."} & set(path.parts) | set(":\\") & set(str(path))
    assert not path.parts[2].startswith(".")


def test_create_run_dir_null_character_is_refused() -> None:
    with pytest.raises(UserError, match=r"run directory a\\x00b cannot be written to \(its name holds a NUL\)"):
        create_run_dir("random", "cartpole", 0, "a\0b")


def test_create_run_dir_below_a_link_to_nowhere_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/random").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match="cannot be written to"):
        create_run_dir("random", "Task-v0", 0)


def test_shown_is_relative_below_the_working_directory_and_absolute_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path.resolve() / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    assert [shown(path) for path in ("runs/one", "./runs/one", here / "runs/one", Path("runs", "one"))] == ["runs/one"] * 4
    assert shown(tmp_path / "other") == str(tmp_path / "other")
    (tmp_path / "link").symlink_to(here)
    assert shown(tmp_path / "link/runs/one") == "runs/one"
    here.rmdir()
    assert shown("runs/one") == "runs/one"
