"""Commands that show what there is."""

import pytest
from typer.testing import CliRunner

from mbkit import cli, registry


def call(*arguments: str) -> str:
    """What the command prints; it must succeed."""
    result = CliRunner().invoke(cli.app, list(arguments))
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize(
    ("what", "name"),
    [
        ("agents", "sac"),
        ("planners", "icem"),
        ("dynamics", "mujoco"),
        ("recipes", "pets"),
        ("envs", "HalfCheetah-v5"),
        ("envs", "reacher"),
        ("experiments", "occupancy"),
    ],
)
def test_list_shows_names_with_a_summary(what, name):
    line = next(line for line in call("list", what).splitlines() if line.split()[0] == name)
    assert len(line.split()) > 2


@pytest.mark.parametrize("what", cli.listing.LISTED)
def test_list_shows_every_registered_name(what):
    lines = [line.split()[0] for line in call("list", what).splitlines() if line.strip()]
    assert {entry.name for entry in getattr(registry, what)} <= set(lines)


def test_config_shows_value_range_and_meaning():
    printed = call("config", "pets", "planner.elites=7")
    line = next(line for line in printed.splitlines() if line.startswith("planner.elites"))
    assert "7" in line
    assert ">= 1" in line
    assert "best candidates" in line


def test_config_lists_only_what_counts():
    names = [line.split()[0] for line in call("config", "mbpo", "env=Hopper-v5", "imagination.gate=m2ac").splitlines() if line.strip()]
    assert "imagination.keep_ratio" in names
    assert "imagination.xi" not in names
    assert not any(name.startswith(("planner", "loop.rollout_steps")) for name in names)


def test_config_yaml_is_the_composed_experiment():
    assert "steps: 77" in call("config", "pets", "steps=77", "--yaml")
