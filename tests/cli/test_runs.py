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
    assert f"pets on cartpole, default preset: 60 steps on cpu, 1 thread, in {directory}\n" in printed
    assert "step 60: evaluation\n" in printed
    assert "writing the report\nreturn" in printed
    assert (tmp_path / "run/report.html").stat().st_size > 10_000
    score = json.loads(call("evaluate", directory, "--episodes", "3", "--json"))
    assert len(score["returns"]) == 3
    printed = call("evaluate", directory, "--episodes", "3")
    assert printed == f"return {score['return_mean']:.1f} ± {score['return_std']:.1f} over 3 episodes of {score['length_mean']:.0f} steps\n"
    options = ["--checkpoint", "60", "--seed", "4", "--json", "device=cpu", "env_kwargs.max_episode_steps=9"]
    assert json.loads(call("evaluate", directory, "--episodes", "2", *options))["length_mean"] == 9
    resumed = call("resume", directory, "steps=80", "--verbose")
    assert "after 80 steps" in resumed
    assert f"pets on cartpole, default preset: steps 61 to 80 on cpu, 1 thread, in {directory}\n" in resumed
    assert "time/act_ms " in resumed
    assert call("report", directory, "--out", str(tmp_path / "page.html")).strip() == str(tmp_path / "page.html")


def test_train_quiet_prints_the_result_only(tmp_path, capfd):
    result = CliRunner().invoke(
        cli.app, ["train", "random", "env=CartPole-v1", "steps=20", "eval.video=false", "-q", f"run_dir={tmp_path / 'run'}"]
    )
    assert result.exit_code == 0
    assert result.stderr == ""
    assert [line.partition(" ")[0] for line in result.stdout.splitlines()] == ["return", "run:", "report:"]


def test_paths_are_printed_one_way_whether_typed_or_made_up(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for directory in ("runs/one", str(tmp_path / "runs/two")):
        printed = call("train", "random", "env=Pendulum-v1", "steps=5", "eval.episodes=1", "eval.video=false", f"run_dir={directory}")
        name = directory.rpartition("/")[2]
        assert f"in runs/{name}\n" in printed
        assert printed.endswith(f"run:    runs/{name}\nreport: runs/{name}/report.html\n")
        assert call("report", directory) == f"runs/{name}/report.html\n"


def test_task_without_a_render_mode_is_not_filmed_and_its_one_note_says_so(tmp_path):
    printed = call(
        "train", "random", "env=gym_toys:ScriptedEnv", "steps=5", "eval={episodes: 1, max_steps: 5}", f"run_dir={tmp_path / 'run'}"
    )
    assert printed.count("No video: gym_toys:ScriptedEnv takes no render_mode, without which it cannot be filmed.\n") == 1
    assert not (tmp_path / "run/videos").exists()
