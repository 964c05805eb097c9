"""Experiments on the theory: claims hold, files are complete, and a failing claim ends with status 1."""

import json

import pytest
from typer.testing import CliRunner

from mbkit import theory
from mbkit.cli import app
from mbkit.errors import UserError
from mbkit.report.figure import axes
from mbkit.theory import Claim, Findings, Setting, Table
from mbkit.theory.experiment import TheoryExperiment, as_markdown

NAMES = [e.name for e in theory.registered()]


def run(*arguments: str):
    return CliRunner().invoke(app, ["theory", *arguments])


@pytest.mark.parametrize("name", NAMES)
def test_theory_command_quick_claims_hold_and_files_are_complete(name, tmp_path):
    result = run(name, "--quick", "--out", str(tmp_path))
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / f"{name}.json").read_text())
    assert record["experiment"] == name
    assert record["claims"]
    assert all(claim["holds"] for claim in record["claims"])
    assert record["tables"]
    assert all(len(row) == len(table["columns"]) for table in record["tables"] for row in table["rows"])
    assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert f"({name}.png)" in (tmp_path / f"{name}.md").read_text()


def test_theory_command_failing_claim_is_reported_with_status_1(monkeypatch, tmp_path):
    def wrong(setting: Setting) -> Findings:
        return Findings([Claim("1 + 1 = 3", "2", False)], [Table("sums", ("a", "b"), [(1, 0.25)])], axes("x", "y")[0])

    monkeypatch.setitem(theory.experiment.__globals__["_EXPERIMENTS"], "wrong", TheoryExperiment("wrong", "A sum", wrong))
    result = run("wrong", "--out", str(tmp_path))
    assert result.exit_code == 1
    assert "FAILS: 1 + 1 = 3 (2)" in result.output
    assert "| 1 | 0.25 |" in (tmp_path / "wrong.md").read_text()


def test_find_short_name_is_the_named_experiment():
    short = {"d1": "one_step_equivalence", "d2": "equivalent_losses", "d3": "regularisation_weight"}
    short |= {"n1": "cql_weight", "n2": "approximate_equivalence", "n3": "cql_weight_continuous"}
    assert {alias: [e.name for e in theory.find(alias)] for alias in short} == {alias: [name] for alias, name in short.items()}
    assert not set(short) & set(NAMES)


def test_find_unknown_name_suggests_the_nearest():
    with pytest.raises(UserError, match="unknown experiment 'occupanci'; did you mean 'occupancy'"):
        theory.find("occupanci")


@pytest.mark.parametrize("inside", ["", "sub"])
def test_make_folder_blocked_by_a_file_is_refused_before_measuring(tmp_path, monkeypatch, inside):
    monkeypatch.setitem(
        theory.experiment.__globals__["_EXPERIMENTS"], "idle", TheoryExperiment("idle", "Nothing", lambda s: pytest.fail("measured"))
    )
    (tmp_path / "taken").write_text("")
    result = CliRunner().invoke(app, ["theory", "idle", "--out", str(tmp_path / "taken" / inside)])
    assert isinstance(result.exception, UserError)
    assert str(result.exception).startswith(f"--out {tmp_path / 'taken' / inside}: expected a folder to write into, but ")
    assert (tmp_path / "taken").read_text() == ""


def test_as_markdown_contains_the_command():
    findings = Findings([], [], axes("x", "y")[0])
    page = as_markdown(TheoryExperiment("a", "A claim", lambda s: findings), findings, Setting(True, 3), 1.0)
    assert "`mbkit theory a --quick --seed 3`" in page
