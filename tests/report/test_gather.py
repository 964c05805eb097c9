"""Paths that stand for runs."""

from pathlib import Path

import pytest
from run_directories import make_run
from typer.testing import CliRunner

from mbkit import cli
from mbkit.errors import UserError
from mbkit.report import write_report
from mbkit.report.gather import read_runs, run_directories


def test_run_directories_of_a_sweep_are_all_runs_below_it(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / "sweep" / "deep" / name, steps=400) for name in ("b", "a")]
    make_run(runs[0] / "inside", steps=400)  # a run's directory is one run
    waiting = tmp_path / "sweep" / "waiting"
    waiting.mkdir()
    (waiting / "config.yaml").write_text("algo: pets\n")
    (waiting / "metrics.jsonl").write_text("")
    directories, notes = run_directories([tmp_path / "sweep", runs[1]])
    assert directories == [runs[1].resolve(), runs[0].resolve()]
    assert notes == ["1 of 3 runs below sweep have logged nothing yet and are left out."]


def test_run_directories_mistakes_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"expected a file config.yaml in it, or runs below it, found none"):
        run_directories([tmp_path])
    (tmp_path / "a").mkdir()
    for name in ("config.yaml", "metrics.jsonl"):
        (tmp_path / "a" / name).write_text("")
    with pytest.raises(UserError, match=r"none of the 1 runs below .* holds metrics"):
        run_directories([tmp_path])


def test_write_report_of_a_directory_lies_in_it(tmp_path: Path) -> None:
    for seed in range(2):
        make_run(tmp_path / "sweep" / "pets" / str(seed), seed=seed, steps=400, learned=False)
    assert write_report([tmp_path / "sweep"]) == tmp_path.resolve() / "sweep" / "report.html"


def test_a_run_below_a_directory_that_cannot_be_read_is_left_out_and_told(tmp_path: Path) -> None:
    for name in ("whole", "cut", "broken"):
        make_run(tmp_path / "sweep" / name, steps=400, learned=False)
    (tmp_path / "sweep" / "cut" / "metrics.jsonl").write_text('{"step": 1')
    (tmp_path / "sweep" / "broken" / "config.yaml").write_text("algo: [")
    runs, notes = read_runs([tmp_path / "sweep"])
    assert [run.path.name for run in runs] == ["whole"]
    assert len(notes) == 2
    assert "broken/config.yaml is not valid YAML" in notes[0]
    assert "cut/metrics.jsonl holds no metrics" in notes[1]
    assert "cut/metrics.jsonl holds no metrics" in write_report([tmp_path / "sweep"]).read_text()
    with pytest.raises(UserError, match="holds no metrics"):
        read_runs([tmp_path / "sweep", tmp_path / "sweep" / "cut"])
    (tmp_path / "sweep" / "whole" / "metrics.jsonl").write_text("{")
    with pytest.raises(UserError, match="is not valid YAML"):
        read_runs([tmp_path / "sweep"])


def test_page_and_curves_are_two_files(tmp_path: Path) -> None:
    make_run(tmp_path / "run")
    result = CliRunner().invoke(cli.app, ["report", str(tmp_path / "run"), "--out", str(tmp_path / "x"), "--csv", str(tmp_path / "x")])
    assert "--out and --csv are both" in str(result.exception)
    assert not (tmp_path / "x").exists()
