"""Options as they are typed: names and paths are taken as they are, a task's arguments keep their types."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mbkit.config import compose, from_dict, parse_overrides, to_yaml
from mbkit.config.reading import read_value, read_yaml
from mbkit.errors import UserError

ODD_NAMES = ["no", "on", "y", "true", "007", "1e3", "2024", "1:30", "[a]", "{a}", "a: b", "a #b", "#", "*", "&x", "!x", "~", "=", "- a",
             "${oc.env:HOME}", "${", "???", " a ", "%", "a\tb", "\U0001f680", "'", '"a', "2024-01-01", ".inf", "-"]  # fmt: skip


@pytest.mark.parametrize("name", ODD_NAMES)
def test_compose_names_of_directories_are_taken_as_they_are_typed(name):
    for experiment in (compose("pets", [f"run_dir={name}"]), compose("pets", [], {"run_dir": name})):
        assert experiment.run_dir == name
        assert from_dict(read_yaml(to_yaml(experiment), "config.yaml")).run_dir == name


@pytest.mark.parametrize("name", ODD_NAMES)
def test_compose_names_of_files_in_groups_are_taken_as_they_are_typed(name):
    assert compose("pets", [f"dynamics.load={name}"]).dynamics.config.load == name
    assert compose("pets", [], {"dynamics": {"load": Path(name)}}).dynamics.config.load == str(Path(name))


@settings(max_examples=100, deadline=None)
@given(name=st.text(min_size=1, max_size=10).filter(lambda name: name != "null" and not (len(name) > 1 and name[0] == name[-1] in "'\"")))
def test_read_value_of_a_name_is_its_text(name):
    assert read_value(name, "run_dir=", verbatim=True) == name


def test_read_value_null_and_quoted_names():
    assert read_value("null", "run_dir=null", verbatim=True) is None
    assert [read_value(text, "", verbatim=True) for text in ("'null'", '"null"', '"\\"a\\""')] == ["null", "null", '"a"']


@pytest.mark.parametrize(
    "text", ["no", "a: b", "a #b", "${oc.env:HOME}", "007", "1:30", "=", "- a", "*a", "!a", "\U0001f680", "a,b]", "???"]
)
def test_compose_text_of_a_task_is_taken_as_it_is_typed(text):
    assert compose("pets", [f"env_kwargs.name={text}"]).env_kwargs == {"name": text}


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", 1), ("1.5", 1.5), ("1e-3", 0.001), ("true", True), ("null", None), ("[1, [no, 0.5]]", [1, ["no", 0.5]]), ("'1'", "1"),
     ("{a: [1]}", {"a": [1]}), (".inf", float("inf")), ("!tuple [1, 2]", (1, 2)), ("", "")],
)  # fmt: skip
def test_compose_numbers_and_lists_of_a_task_are_read(text, value):
    assert compose("pets", [f"env_kwargs.it={text}"]).env_kwargs == {"it": value}


def test_compose_arguments_from_python_keep_their_types():
    arguments = {"a": (1, 2), "b": np.float32(2), "c": np.array([1, 2]), "planner": "cem", "d.e": 1, "deep": {"x": Path("y")}}
    experiment = compose("pets", ["env_kwargs.first=1"], {"env_kwargs": arguments})
    assert list(experiment.env_kwargs) == ["first", *arguments]
    for key, value in arguments.items():
        assert type(experiment.env_kwargs[key]) is type(value)
    assert experiment.env_kwargs["planner"] == "cem"
    again = from_dict(read_yaml(to_yaml(experiment), "config.yaml"))
    assert to_yaml(again) == to_yaml(experiment)
    assert type(again.env_kwargs["b"]) is np.float32


def test_compose_numpy_numbers_of_other_options_are_numbers():
    options = {"steps": np.int64(40), "dynamics": {"lr": np.float64(0.5), "hidden": np.array([8, 9])}, "eval": {"video": np.bool_(False)}}
    experiment = compose("pets", [], options)
    assert (experiment.steps, experiment.dynamics.config.lr, experiment.dynamics.config.hidden) == (40, 0.5, (8, 9))
    assert experiment.eval.video is False
    assert compose("pets", ["eval.video=no", "loop.fit=off"]).eval.video is False  # text that means false, where true or false is meant


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"run_dir": True}, "run_dir=True does not fit: expected text"),
        ({"run_dir": 1.5}, "run_dir=1.5 does not fit"),
        ({"env_kwargs": 3}, "env_kwargs=3 does not fit: expected a mapping"),
        ({"env_kwargs": {3: 1}}, "env_kwargs=.* does not fit: expected a mapping of names"),
        ({"env_kwargs": {"f": len}}, "env_kwargs.f: expected what config.yaml can hold"),
        ({"steps": "${oc.env:HOME}"}, "steps='\\${oc.env:HOME}' does not fit: expected int"),
        ({"dynamics": {"hidden": ["${oc.env:HOME}"]}}, "dynamics.hidden=.* does not fit"),
        ({"device": "???"}, "device='\\?\\?\\?' does not fit"),
        ({"steps": len}, "steps=.* does not fit: expected int"),
    ],
)
def test_compose_python_value_that_does_not_fit_is_named(options, sentence):
    with pytest.raises(UserError, match=sentence):
        compose("pets", [], options)


def test_parse_overrides_lists_arguments_before_python_values():
    options = {"env": "cartpole", "planner": {"elites": 5}, "preset": None, "loop": {}}
    tree = parse_overrides(["planner=cem", "planner.elites=3"], options=options)
    assert tree == {"planner": {"name": "cem", "elites": 5}, "env": "cartpole", "preset": None}
