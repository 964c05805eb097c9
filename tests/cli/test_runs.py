"""Commands on runs: train, evaluate, resume, and the report of what they left."""

import json

from pets_runs import TINY
from typer.testing import CliRunner

from mbkit import cli


def call(*arguments: str) -> str:
    """What the command prints; it must succeed."""
    result = CliRunner().invoke(cli.app, list(arguments))
    assert result.exit_code == 0, result.output
    return result.output


def test_train_evaluate_resume_and_report_of_one_run(tmp_path):
    directory = str(tmp_path / "run")
    printed = call("train", "pets", *TINY, "steps=60", f"run_dir={directory}")
    assert "return" in printed
    assert f"report: {directory}/report.html" in printed
    assert (tmp_path / "run/report.html").stat().st_size > 10_000
    score = json.loads(call("evaluate", directory, "--episodes", "3", "--json"))
    assert len(score["returns"]) == 3
    printed = call("evaluate", directory, "--episodes", "3")
    assert printed == f"return {score['return_mean']:.1f} ± {score['return_std']:.1f} over 3 episodes of {score['length_mean']:.0f} steps\n"
    assert "after 80 steps" in call("resume", directory, "steps=80")
    assert call("report", directory, "--out", str(tmp_path / "page.html")).strip() == str(tmp_path / "page.html")
