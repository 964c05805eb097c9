"""Composition of experiments: layers, ranges, and a sentence for every mistake."""

import subprocess
import sys
from dataclasses import dataclass

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from mbkit import registry
from mbkit.config import PlanLoop, compose, from_dict, reading, to_yaml
from mbkit.config.describe import describe
from mbkit.errors import UserError
from mbkit.fields import between, positive


@dataclass(frozen=True)
class ToyAgent:
    """An agent group."""

    horizon: int = positive(25)  # planning horizon, steps


@dataclass(frozen=True)
class Model:
    """A dynamics group."""

    lr: float = positive(0.1)  # Adam learning rate
    hidden: tuple[int, ...] = (2, 2)  # width of each layer
    ratio: float = between(0.5, 0, 1)


@dataclass(frozen=True)
class Search:
    """A planner group."""

    sigma: float = positive(0.5)  # search width


@pytest.fixture(autouse=True)
def toy(tmp_path, monkeypatch):
    """A registry with one algorithm of its own and a folder of presets."""
    for kind in (registry.recipes, registry.dynamics, registry.planners):
        list(kind)  # the built-in parts register
        monkeypatch.setattr(kind, "_entries", dict(kind._entries))
    registry.dynamics.register("toymodel", Model)(Model)
    registry.planners.register("toysearch", Search)(Search)
    registry.planners.register("othersearch", Model)(Model)
    defaults = {"env": "cartpole", "steps": 300, "planner": {"name": "toysearch"}, "dynamics": {"name": "toymodel", "lr": 1}}
    registry.recipes.register("toy", ToyAgent, loop=PlanLoop, defaults=defaults)(lambda: None)
    presets = tmp_path / "toy"
    presets.mkdir()
    (presets / "cartpole.yaml").write_text("steps: 400\nplanner: {sigma: 2}\n")
    (presets / "cartpole.long.yaml").write_text("steps: 4000\n")
    (presets / "octal.yaml").write_text("dynamics:\n  lr: 00143\n")
    (presets / "broken.yaml").write_text("dynamics: [lr: 1\n")
    (tmp_path / "mine.yaml").write_text("steps: 700\nplanner: {sigma: 9}\n")
    monkeypatch.setattr(reading, "config_root", lambda: tmp_path)


def test_compose_layers_go_defaults_preset_options():
    experiment = compose("toy", ["planner.sigma=3", "dynamics.hidden=[8, 9]"])
    assert (experiment.steps, experiment.env) == (400, "cartpole")  # the preset beats the recipe
    assert experiment.planner.config.sigma == 3  # the word beats the preset
    assert experiment.dynamics.config == Model(lr=1.0, hidden=(8, 9))
    assert compose("toy", ["preset=long"]).steps == 4000


def test_compose_another_part_forgets_the_options_of_the_old_one():
    experiment = compose("toy", ["planner=othersearch", "planner.lr=7"])
    assert experiment.planner.name == "othersearch"
    assert experiment.planner.config.lr == 7


def test_compose_a_file_of_the_users_is_a_preset(tmp_path):
    experiment = compose("toy", [f"preset={tmp_path / 'mine.yaml'}", "planner.sigma=3"])
    assert (experiment.steps, experiment.planner.config.sigma) == (700, 3)


def test_compose_works_from_a_script():
    """Built-in parts register on first look-up: nothing else need be imported."""
    code = "from mbkit.config import compose; print(compose('sac').agent.name, compose('pets').planner.name)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "sac icem\n"


def test_to_yaml_is_read_back_by_from_dict():
    experiment = compose("toy", ["env_kwargs.depth=2", "dynamics.ratio=0.25", "eval.episodes=3"])
    assert from_dict(yaml.safe_load(to_yaml(experiment))) == experiment


@settings(max_examples=25)
@given(lr=st.floats(1e-30, 1e30), seed=st.integers(0, 2**32 - 1), widths=st.lists(st.integers(1, 999), min_size=1, max_size=4))
def test_to_yaml_keeps_any_valid_value(lr, seed, widths):
    experiment = compose("toy", [f"dynamics.lr={lr!r}", f"seed={seed}", f"dynamics.hidden={widths}"])
    assert (experiment.dynamics.config.lr, experiment.seed, experiment.dynamics.config.hidden) == (lr, seed, tuple(widths))
    assert from_dict(yaml.safe_load(to_yaml(experiment))) == experiment


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["loop.num_envs=0"], r"loop.num_envs=0 is out of range: expected >= 1"),
        (["loop.numenvs=2"], r"unknown option loop.numenvs; did you mean 'loop.num_envs'"),
        (["loop.n_step=1"], r"loop.n_step has no meaning for toy, which plans with a model; of loop.\* these have one: buffer_size, fit"),
        (["planner.sigmaa=3"], "unknown option planner.sigmaa; did you mean 'planner.sigma'"),
        (["stepz=3"], "unknown option 'stepz'; did you mean 'steps'"),
        (["planner=toyserch"], "unknown planner 'toyserch'; did you mean 'toysearch'"),
        (["steps=abc"], "steps='abc' does not fit: expected int"),
        (["dynamics.hidden=[1.5]"], "dynamics.hidden=.* does not fit: expected tuple"),
        (["device=tpu"], "device='tpu' does not fit: expected one of .*cpu"),
        (["dynamics.lr=0"], "dynamics.lr=.* is out of range: expected > 0"),
        (["dynamics.ratio=1.01"], r"expected in \[0, 1\]"),
        (["gamma=nan"], "gamma=.* is out of range"),
        (["seed=007"], "seed=007: 007 has a leading zero"),
        (["dynamics.lr=007e-3"], "007e-3 has a leading zero"),
        (["steps=00100.0"], "00100.0 has a leading zero"),
        (["steps=1:30"], "1:30 is a number to the base of sixty"),
        (["dynamics.lr=.inf"], "out of range"),
        (["algo=toy"], "algo= is not an option"),
        (["agent.name=toy"], "agent= is not an option"),
        (["dynamics.hidden=[200, 0200]"], "0200 has a leading zero"),
        (["imagination.horizon=3"], "toy has no imagination"),
        (["eval=3"], "eval is a group of options"),
        (["steps"], "options are written key=value"),
        (["planner.sigma=[1"], "cannot read the value of 'planner.sigma=\\[1'"),
        (["preset=lang"], "no preset 'lang' for toy on cartpole; did you mean 'long'"),
        (["env=octal"], "octal.yaml: 00143 has a leading zero"),
        (["env=broken"], "broken.yaml is not valid YAML"),
        (["env=null"], "env must be the name of an environment"),
        (["preset=nowhere.yaml"], "preset=nowhere.yaml cannot be read .No such file"),
    ],
)
def test_compose_a_mistake_is_one_sentence(words, sentence):
    with pytest.raises(UserError, match=sentence) as caught:
        compose("toy", words)
    assert "\n" not in str(caught.value)


def test_algorithm_unknown_names_the_nearest():
    with pytest.raises(UserError, match="unknown algorithm 'tooy'; did you mean 'toy'"):
        compose("tooy")


def test_compose_decimals_are_not_octal():
    assert compose("toy", ["dynamics.lr=0.05", "seed=0", "dynamics.ratio=1e-03"]).dynamics.config.lr == 0.05
    assert compose("toy", ["run_dir=/my 01 run/007x"]).run_dir == "/my 01 run/007x"


def test_compose_whole_floats_are_integers_where_integers_are_meant():
    assert compose("toy", ["steps=1e5"]).steps == 100_000


def test_describe_shows_meaning_value_and_range():
    lines = {d.key: d for d in describe(compose("toy"))}
    assert lines["planner.sigma"].meaning == "search width"
    assert lines["planner.sigma"].value == 2
    assert lines["dynamics.lr"].limits == "> 0"
    assert lines["eval.every"].meaning.startswith("environment steps")
    assert lines["env"].meaning  # inherited fields keep theirs


def test_register_refuses_two_owners_of_a_name():
    class Other:
        __module__ = "somewhere.else"

    with pytest.raises(UserError, match="registered twice"):
        registry.planners.register("toysearch", Search)(Other)
