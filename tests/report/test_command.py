"""The command of a report repeats its run."""

import shlex
from pathlib import Path

import pytest
import yaml
from run_directories import make_run

from mbkit.config import compose, parse_overrides, to_yaml
from mbkit.report.collect import read_run
from mbkit.report.command import command, full_command, override


def test_full_command_repeats_every_option(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run")
    arguments = shlex.split(full_command(read_run(path)))
    assert arguments[:6] == ["mbkit", "train", "pets", "env=cartpole", "seed=0", "steps=3000"]
    assert {**parse_overrides(arguments[3:]), "algo": "pets"} == yaml.safe_load((path / "config.yaml").read_text())


@pytest.mark.parametrize(
    "options", [[], ["seed=3", "agent.horizon=7"], ["planner=cem", "planner.iterations=2", "env=reacher"], ["dynamics=mujoco"]]
)
def test_command_composes_the_same_experiment(tmp_path: Path, options: list[str]) -> None:
    path = make_run(tmp_path / "run")
    experiment = compose("pets", options)
    (path / "config.yaml").write_text(to_yaml(experiment))
    short, full = (shlex.split(text) for text in (command(read_run(path)), full_command(read_run(path))))
    assert compose(short[2], short[3:]) == experiment == compose(full[2], full[3:])
    assert len(short) <= 3 + 3 + len(options)


def test_command_unknown_algorithm_has_every_option(tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path / "run", algo="of_a_plugin"))
    assert command(run) == full_command(run)


@pytest.mark.parametrize(
    ("value", "text"), [(0.001, "0.001"), (None, "null"), ([200, 200], "[200,200]"), ("icem", "icem"), ("on", '"on"'), ("1e3", '"1e3"')]
)
def test_override_is_read_back_by_yaml(value: object, text: str) -> None:
    assert override(value) == text
    assert parse_overrides([f"key={text}"]) == {"key": value}
