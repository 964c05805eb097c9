"""Commands that show what there is."""

import itertools

import pytest
from typer.testing import CliRunner

from mbkit import cli, registry
from mbkit.config import compose
from mbkit.config.presets import presets
from mbkit.config.reading import config_root
from mbkit.errors import UserError


def call(*arguments: str, columns: int = 80) -> str:
    """What the command prints on so many columns; it must succeed."""
    result = CliRunner().invoke(cli.app, list(arguments), env={"COLUMNS": str(columns)})
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


def option(printed: str, key: str) -> tuple[str, str]:
    """The line of an option, and the line with its meaning."""
    lines = printed.splitlines()
    place = next(n for n, line in enumerate(lines) if line.split()[:1] == [key] and line != key)
    return lines[place], lines[place + 1]


def test_config_shows_value_range_and_meaning():
    line, meaning = option(call("config", "pets", "planner.elites=7"), "planner.elites")
    assert line.split() == ["planner.elites", ">", "7", "int", ">=", "1"]
    assert "best candidates" in meaning


@pytest.mark.parametrize(
    ("options", "key", "marked"),
    [
        ([], "loop.log_every", ["100"]),
        ([], "loop.updates_per_step", ["*", "20.0"]),
        ([], "agent.hidden", ["*", "[128,128]"]),
        (["steps=15000"], "steps", [">", "15000"]),  # also where it is the preset's
        (["env_kwargs.xml_file=a.xml"], "env_kwargs", [">", '{"xml_file":"a.xml"}']),
        (["reward=auto"], "dynamics.reward", [">", "auto"]),
        (["dynamics=local_linear"], "dynamics", [">", "local_linear"]),
        (["dynamics=local_linear"], "dynamics.members", None),  # the preset's ensemble went
        (["preset=paper"], "preset", [">", "paper"]),
        (["preset=paper"], "steps", ["*", "125000"]),
    ],
)
def test_config_tells_defaults_from_what_the_preset_sets_and_what_is_typed(options, key, marked):
    printed = call("config", "mbpo", "env=Hopper-v5", *options)
    if marked is None:
        assert f"\n{key} " not in printed
    else:
        assert option(printed, key)[0].split()[1 : 1 + len(marked)] == marked


def test_config_of_a_file_of_presets_is_no_typed_option(tmp_path):
    (tmp_path / "own.yaml").write_text("steps: 4321\n")
    printed = call("config", "sac", f"preset={tmp_path / 'own.yaml'}")
    assert option(printed, "steps")[0].split()[1:3] == ["*", "4321"]


@pytest.mark.parametrize("arguments", [("config", "mbpo", "env=Hopper-v5"), ("list", "presets"), ("list", "presets", "mbpo")])
def test_config_and_presets_fit_80_columns(arguments):
    lines = [line.rstrip() for line in call(*arguments).splitlines()]
    long = [line for line in lines if len(line) > 80]
    assert long == [line for line in lines if line.startswith("`mbkit train ALGORITHM")]


def test_config_has_a_heading_for_each_group_and_a_legend():
    lines = [line.rstrip() for line in call("config", "mbpo", "env=Hopper-v5").splitlines()]
    assert lines[:2] == ["mbpo on Hopper-v5, default preset", "* set by the preset, > typed here; without a mark: the default"]
    headings = [line for before, line in itertools.pairwise(lines) if not before]
    assert headings == ["experiment", "evaluation", "checkpoints", "loop", "agent", "dynamics", "imagination"]


def test_list_presets_shows_every_file_with_its_steps_and_comment():
    rows = presets()
    assert len(rows) == len(list(config_root().glob("*/*.yaml")))
    for preset in rows:
        file = config_root() / preset.algo / f"{preset.env.replace('/', '-')}{f'.{preset.name}' if preset.name else ''}.yaml"
        first = file.read_text().splitlines()[0]
        assert first.lstrip("# ").rstrip() in preset.description
        assert preset.description
    steps = {(p.algo, p.env, p.name): p.steps for p in rows}
    assert steps["mbpo", "Hopper-v5", ""] == compose("mbpo", ["env=Hopper-v5"]).steps
    assert steps["mbpo", "dm_control/walker-stand-v0", "raw"] == 10000
    line = next(line for line in call("list", "presets", "mbpo", columns=200).splitlines() if "m2ac" in line)
    assert line.split()[:4] == ["mbpo", "Hopper-v5", "m2ac", "15000"]
    assert "longer rollouts" in line


def test_list_presets_of_what_is_no_algorithm_and_other_lists_of_one():
    with pytest.raises(UserError, match="unknown algorithm 'mbpoo'"):
        CliRunner().invoke(cli.app, ["list", "presets", "mbpoo"], catch_exceptions=False)
    with pytest.raises(UserError, match="list agents takes no algorithm, came 'sac'"):
        CliRunner().invoke(cli.app, ["list", "agents", "sac"], catch_exceptions=False)


def test_config_lists_only_what_counts():
    names = [line.split()[0] for line in call("config", "mbpo", "env=Hopper-v5", "imagination.gate=m2ac").splitlines() if line.strip()]
    assert "imagination.keep_ratio" in names
    assert "imagination.xi" not in names
    assert not any(name.startswith(("planner", "loop.rollout_steps")) for name in names)


def test_config_yaml_is_the_composed_experiment():
    assert "steps: 77" in call("config", "pets", "steps=77", "--yaml")
