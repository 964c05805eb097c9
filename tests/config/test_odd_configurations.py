"""Configurations that nobody meant: each is refused with one sentence, or composed as it was written."""

from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from odd_values import ODD, places, refusal_of, with_leaf

from mbkit import config
from mbkit.errors import UserError
from mbkit.run.reading import read_config

ALGORITHMS = ["pets", "mbpo", "sac", "ppo", "dqn", "random", "loop", "mve"]
ENVS = {"dqn": "CartPole-v1"}
KEYS = [
    "steps",
    "seed",
    "preset",
    "env",
    "algo",
    "agent",
    "dynamics",
    "planner",
    "loop",
    "eval",
    "agent.lr",
    "loop.batch_size",
    "env_kwargs.a",
]
KEYS += ["planner.elites", "dynamics.hidden", "imagination", "gamma", "run_dir", "checkpoint.keep", "eval.max_steps", "agent.name", "typed"]
TEXTS = [
    "1",
    "-1",
    "${x}",
    "${env:HOME}",
    "[]",
    "{}",
    "{1: 2}",
    "[1, [2]]",
    "null",
    "true",
    "nan",
    ".inf",
    "1e400",
    "'",
    "[",
    "a: b",
    "!!python/object:x",
    "&a",
    "*a",
]
TEXTS += [
    "",
    "x" * 300,
    "0x1F",
    "1_000",
    "2026-01-01",
    "!!binary aGk=",
    "{a: {b: {c: 1}}}",
    "\t",
    "?",
    "- x",
    "${",
    "$",
    "\\",
    "é",
    "\x00",
    "!!set {a}",
]
TREES = {algo: config.compose(algo, [f"env={ENVS.get(algo, 'Pendulum-v1')}"]).to_dict() for algo in ALGORITHMS}
EXTRA = [
    {1: 2},
    {None: 1},
    {"name": 3},
    {"name": "nothing"},
    {"name": [1]},
    "ensemble",
    [1, 2],
    {"a": {"b": 1}},
    3,
    "1",
    False,
    {"${x}": 1},
]
QUICK = settings(max_examples=150, suppress_health_check=list(HealthCheck), database=None, phases=[Phase.generate])
MANY = settings(QUICK, max_examples=5000)


def check_tree(tree) -> None:
    """Refused, or an experiment whose configuration file gives the same experiment again."""
    made: list[tuple[config.Experiment, str]] = []
    if refusal_of(lambda: made.append((experiment := config.from_dict(tree), config.to_yaml(experiment)))) is None:
        experiment, text = made[0]
        assert config.from_dict(config.read_yaml(text, "config.yaml")) == experiment


def check_arguments(algo: str, arguments: list[str]) -> None:
    made: list[config.Experiment] = []
    if refusal_of(lambda: made.append(config.compose(algo, arguments))) is None:
        assert config.from_dict(made[0].to_dict()) == made[0]


TREE = st.sampled_from(ALGORITHMS).flatmap(
    lambda algo: st.builds(
        lambda place, change, odd: with_leaf(TREES[algo], place, change, odd),
        st.sampled_from(list(places(TREES[algo]))),
        st.sampled_from(["drop", "odd", "odd", "odd"]),
        st.sampled_from([*ODD, *EXTRA]),
    )
)
ARGUMENTS = st.lists(st.builds("{}={}".format, st.sampled_from(KEYS), st.sampled_from(TEXTS) | st.text(max_size=8)), min_size=1, max_size=3)


@QUICK
@given(TREE)
def test_from_dict_odd_tree_is_refused_or_kept(tree):
    check_tree(tree)


@QUICK
@given(st.sampled_from(ALGORITHMS), ARGUMENTS)
def test_compose_odd_options_are_refused_or_kept(algo, arguments):
    check_arguments(algo, arguments)


@pytest.mark.slow
@MANY
@given(TREE)
def test_from_dict_thousands_of_odd_trees_are_refused_or_kept(tree):
    check_tree(tree)


@pytest.mark.slow
@MANY
@given(st.sampled_from(ALGORITHMS), ARGUMENTS)
def test_compose_thousands_of_odd_options_are_refused_or_kept(algo, arguments):
    check_arguments(algo, arguments)


@pytest.mark.parametrize(
    "text",
    [
        "1: 2\nalgo: sac\n",
        "algo: sac\npreset: ${x}\n",
        "algo: sac\nagent: [1]\n",
        "null",
        "- 1",
        "algo: {a: 1}",
        "algo: sac\nloop: 3\n",
        "a: *b",
        "x: ${y",
    ],
)
def test_read_config_odd_file_is_one_sentence(tmp_path: Path, text):
    (tmp_path / "config.yaml").write_text(text)
    assert refusal_of(lambda: read_config(tmp_path)) is not None


def test_compose_preset_that_is_a_number_is_one_sentence():
    with pytest.raises(UserError, match="preset"):
        config.compose("pets", ["preset=1"])


@given(st.dictionaries(st.sampled_from(["steps", "env_kwargs", "seed"]), st.sampled_from([*ODD[:-4], [1], {"a": 1}]), max_size=2))
@QUICK
def test_parse_overrides_odd_keywords_are_read_or_refused(options):
    refusal_of(lambda: config.parse_overrides((), options=options))


def test_trees_are_kept_as_they_are():
    for tree in TREES.values():
        assert config.from_dict(yaml.safe_load(config.to_yaml(config.from_dict(tree)))).to_dict() == tree
