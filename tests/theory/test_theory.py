"""Every experiment of theory: its claims hold, its files are whole, and a claim that fails is told and ends with status 1."""

import json

import pytest
from typer.testing import CliRunner

from mbkit import theory
from mbkit.cli import app
from mbkit.errors import UserError
from mbkit.report.figure import axes
from mbkit.theory import Claim, Findings, Setting, Table
from mbkit.theory.experiment import Experiment, as_markdown

NAMES = [e.name for e in theory.registered()]


def run(*words: str):
    return CliRunner().invoke(app, ["theory", *words])


@pytest.mark.parametrize("name", NAMES)
def test_claims_hold_and_files_are_whole(name, tmp_path):
    result = run(name, "--quick", "--out", str(tmp_path))
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / f"{name}.json").read_text())
    assert found["experiment"] == name
    assert found["claims"]
    assert all(claim["holds"] for claim in found["claims"])
    assert found["tables"]
    assert all(len(row) == len(table["columns"]) for table in found["tables"] for row in table["rows"])
    assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert f"({name}.png)" in (tmp_path / f"{name}.md").read_text()


def test_a_claim_that_fails_is_told(monkeypatch, tmp_path):
    def wrong(setting: Setting) -> Findings:
        return Findings([Claim("1 + 1 = 3", "2", False)], [Table("sums", ("a", "b"), [(1, 0.25)])], axes("x", "y")[0])

    monkeypatch.setitem(theory.experiment.__globals__["_EXPERIMENTS"], "wrong", Experiment("wrong", "A sum", wrong))
    result = run("wrong", "--out", str(tmp_path))
    assert result.exit_code == 1
    assert "FAILS: 1 + 1 = 3 (2)" in result.output
    assert "| 1 | 0.25 |" in (tmp_path / "wrong.md").read_text()


def test_an_unknown_name_is_named():
    with pytest.raises(UserError, match="unknown experiment 'occupanci'; did you mean 'occupancy'"):
        theory.find("occupanci")


@pytest.mark.parametrize("inside", ["", "sub"])
def test_a_file_in_the_folders_place_is_named_before_anything_is_measured(tmp_path, monkeypatch, inside):
    monkeypatch.setitem(
        theory.experiment.__globals__["_EXPERIMENTS"], "idle", Experiment("idle", "Nothing", lambda s: pytest.fail("measured"))
    )
    (tmp_path / "taken").write_text("")
    result = CliRunner().invoke(app, ["theory", "idle", "--out", str(tmp_path / "taken" / inside)])
    assert isinstance(result.exception, UserError)
    assert str(result.exception).startswith(f"--out {tmp_path / 'taken' / inside}: expected a folder to write into, but ")
    assert (tmp_path / "taken").read_text() == ""


def test_the_command_that_repeats_it_stands_in_the_page():
    found = Findings([], [], axes("x", "y")[0])
    page = as_markdown(Experiment("a", "A claim", lambda s: found), found, Setting(True, 3), 1.0)
    assert "`mbkit theory a --quick --seed 3`" in page
