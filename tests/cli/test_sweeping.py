"""The command `sweep`: the table first, mistakes in one sentence, and nothing that is imported before it is needed."""

import pytest
from typer.testing import CliRunner

from mbkit import cli
from mbkit.errors import UserError

QUICK = ["env=CartPole-v1", "steps=20", "eval.episodes=1", "eval.video=false"]


def refusal(*arguments: str) -> str:
    """The sentence with which the command ends."""
    result = CliRunner().invoke(cli.app, ["sweep", *arguments])
    assert isinstance(result.exception, UserError), result.output
    return str(result.exception)


def test_a_dry_run_shows_the_table_and_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    arguments = ["dqn,double_dqn", "env=CartPole-v1", "agent.lr=1e-4,3e-4", "--seeds", "1..5", "--workers", "2", "--dry-run"]
    result = CliRunner().invoke(cli.app, ["sweep", *arguments])
    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines[0] == ["algorithm", "environment", "lr", "steps", "seeds"]
    assert [line[:3] for line in lines[1:5]] == [[algo, "CartPole-v1", lr] for algo in ("dqn", "double_dqn") for lr in ("1e-4", "3e-4")]
    assert result.stdout.splitlines()[5].startswith("20 runs, 2 at once, ")
    assert result.stdout.splitlines()[5].rpartition("-")[0].endswith(", in runs/sweep-dqn-double_dqn")
    assert list(tmp_path.iterdir()) == []


def test_the_result_has_a_line_for_each_combination_and_says_how_to_report(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ["sweep", "random", *QUICK, "gamma=0.9", "--seeds", "3", "--out", "s"]
    assert isinstance(CliRunner().invoke(cli.app, arguments).exception, UserError)  # gamma has no meaning for random
    arguments.remove("gamma=0.9")
    result = CliRunner().invoke(cli.app, arguments)
    assert result.exit_code == 0, result.output
    head, row, last = result.stdout.splitlines()[-3:]
    assert head.split()[:4] == ["group", "runs", "median", "IQM"]
    assert row.split()[:2] == ["random", "1"]
    assert last == "report: mbkit report s"
    again = CliRunner().invoke(cli.app, [*arguments, "-q"])
    assert again.stdout.splitlines() == [head, row, last]
    assert ", in s, 1 of them finished" in CliRunner().invoke(cli.app, [*arguments, "--dry-run"]).stdout
    assert CliRunner().invoke(cli.app, ["report", str(tmp_path / "s/random/seed-3")]).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["dqn", "--seeds", "5..1"], "--seeds 5..1: expected the smaller number first"),
        (["dqn,sca"], "unknown algorithm 'sca'; did you mean 'sac'?"),
        (["dqn", "agent.lr=1,-1"], "agent.lr=-1.0 is out of range"),
        (["dqn", "--backend", "cloud"], "--backend cloud: expected one of local, ray, slurm"),
        (["dqn", "--trials", "3"], "--trials 3 counts where an option is drawn"),
        (["dqn", "env=CartPol-v1"], "CartPol-v1"),
    ],
)
def test_mistakes_are_told_in_a_sentence_before_anything_is_written(tmp_path, monkeypatch, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    assert sentence in refusal(*arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("backend", "package", "options"), [("ray", "ray", []), ("slurm", "submitit", []), ("local", "optuna", ["agent.lr=log(1e-5..1e-3)"])]
)
def test_a_missing_extra_is_named_with_its_command(tmp_path, monkeypatch, backend, package, options):
    monkeypatch.setitem(__import__("sys").modules, package, None)
    extra = {"submitit": "slurm"}.get(package, package)
    sentence = refusal("dqn", *options, "env=CartPole-v1", "--backend", backend, "--out", str(tmp_path / "s"), "-q")
    assert f'is not installed; `pip install "mbkit[{extra}]"` brings it' in sentence


def test_a_dry_run_in_the_directory_of_another_sweep_is_refused_before_its_table(tmp_path):
    from mbkit.sweep.planning import opened, planned

    opened(tmp_path, planned("dqn", ["env=CartPole-v1", "steps=100"], [0]), 1, None)
    shown = CliRunner().invoke(cli.app, ["sweep", "dqn", "env=CartPole-v1", "steps=200", "--out", str(tmp_path), "--dry-run"])
    assert isinstance(shown.exception, UserError)
    assert "holds another sweep: options differ in steps=200" in str(shown.exception)
    assert shown.output == ""
