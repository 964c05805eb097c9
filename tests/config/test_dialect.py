"""Options in YAML: what is written is read back as the same value of the same type, and what cannot be written is named."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mbkit.config import dialect
from mbkit.config.reading import read_value, read_yaml
from mbkit.errors import UserError

ODD = ["no", "on", "1e-3", "007", "1:30", "null", "~", "=", "2024-01-01", "${oc.env:HOME}", "a #b", "a: b", "\U0001f680", "!tuple [1]"]
TEXT = st.text(max_size=12) | st.sampled_from(ODD)
DTYPES = st.sampled_from(["float16", "float32", "float64", "int8", "uint64", "bool", ">f8", "<U3"])
NUMBERS = st.integers() | st.floats() | st.booleans() | st.none()
ARRAYS = st.builds(lambda dtype, shape: np.ones(shape).astype(dtype), DTYPES, st.lists(st.integers(0, 3), max_size=3))
VALUES = st.recursive(
    NUMBERS | TEXT | ARRAYS | DTYPES.map(lambda dtype: np.ones(()).astype(dtype)[()]) | st.just(Path("a b/no")),
    lambda inner: st.lists(inner, max_size=3) | st.lists(inner, max_size=3).map(tuple) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


def same(a: object, b: object) -> bool:
    """Equal values of equal types, NaN included."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(a) == list(b) and all(map(same, a.values(), b.values()))
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, np.ndarray | np.generic):
        return a.dtype == b.dtype and a.shape == b.shape and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
    return repr(a) == repr(b)


@settings(max_examples=100, deadline=None)
@given(value=VALUES)
@example(value="\ud83d")
@example(value=[np.float32(0.1), (1, [2]), np.zeros((0, 3)), float("inf")])
def test_dump_is_read_back_as_the_same_value(value):
    text = dialect.dump({"env_kwargs": {"it": value}})
    assert same(read_yaml(text, "config.yaml")["env_kwargs"]["it"], value)
    assert same(dialect.argument_value(value, "it"), value)


@settings(max_examples=100, deadline=None)
@given(value=VALUES)
def test_value_text_is_read_back_on_the_command_line(value):
    assert same(read_value(dialect.value_text(value), "key", of_task=True), value)


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (object(), "env_kwargs.noise: expected .*, got a object"),
        ([1, {"deep": len}], r"env_kwargs.noise\[1\].deep: .* got a builtin_function_or_method"),
        ({1, 2}, "got a set"),
        (1j, "got a complex"),
        (np.array([1j]), "got a NumPy ndarray of complex128"),
        (np.array([None]), "of object"),
        (np.longdouble(1), "NumPy longdouble"),
        (np.datetime64("2024-01-01"), "datetime64"),
    ],
)
def test_argument_value_that_config_yaml_cannot_hold_is_named(value, name):
    with pytest.raises(UserError, match=name):
        dialect.argument_value(value, "env_kwargs.noise")


def test_argument_value_is_a_copy():
    noise = np.zeros(2)
    copied = dialect.argument_value({"noise": [noise]}, "it")
    noise[0] = 1
    assert copied["noise"][0][0] == 0


@pytest.mark.parametrize(
    "text",
    ["!array {dtype: object, shape: [1], values: [1]}", "!array {dtype: x, shape: [1], values: [1]}", "!array {shape: [1]}", "!array 3",
     "!array {dtype: int8, shape: [2], values: [1]}", "a: 1\na: 2", "!!python/object:os.system x", "!path [1]", "{[1]: 2}"],
)  # fmt: skip
def test_load_odd_content_is_a_yaml_error(text):
    with pytest.raises(yaml.YAMLError):
        dialect.load(text)
