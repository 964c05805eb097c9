"""Many values of a space at once are what Gymnasium makes of one after the other."""

import json

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from minari.serialization import serialize_space

from mbkit.data.nested import NotInSpace, flattened, space_of, unflattened
from mbkit.envs.spaces import ObservationMap
from mbkit.errors import UserError

LEAVES = st.sampled_from(
    [
        spaces.Box(-2, 3, (2,), np.float32),
        spaces.Box(-np.inf, np.inf, (2, 1), np.float64),
        spaces.Box(0, 9, (3,), np.int32),
        spaces.Discrete(4, start=2),
        spaces.MultiDiscrete([2, 3], start=[1, 0]),
        spaces.MultiBinary(3),
    ]
)
SPACES = st.recursive(
    LEAVES,
    lambda parts: st.one_of(
        st.dictionaries(st.sampled_from("cab"), parts, min_size=1, max_size=3).map(spaces.Dict),
        st.lists(parts, min_size=1, max_size=3).map(spaces.Tuple),
    ),
    max_leaves=4,
)


def stacked(space, values):
    """Values of a space as nested dicts and tuples of arrays."""
    if isinstance(space, spaces.Dict):
        return {key: stacked(part, [value[key] for value in values]) for key, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(stacked(part, [value[n] for value in values]) for n, part in enumerate(space.spaces))
    return np.stack([np.asarray(value, space.dtype) for value in values])


def child(node, space, key):
    return node[int(key)] if isinstance(node, tuple) else node[key]


def rows_of(space, node):
    return flattened(space, node, child, lambda leaf, _: leaf)


def leaves(node):
    parts = node.values() if isinstance(node, dict) else node if isinstance(node, tuple) else None
    return [node] if parts is None else [leaf for part in parts for leaf in leaves(part)]


@settings(max_examples=50)
@given(space=SPACES, seed=st.integers(0, 99))
def test_flattened_is_gymnasiums_and_can_be_undone(space, seed):
    space.seed(seed)
    values = [space.sample() for _ in range(5)]
    node = stacked(space, values)
    rows = rows_of(space, node)
    expected = np.stack([spaces.flatten(space, value) for value in values])
    assert rows.dtype == expected.dtype
    assert np.array_equal(rows, expected)
    to_vector = ObservationMap(space, "test")
    assert np.array_equal(rows, np.stack([to_vector(value) for value in values]))
    for before, after in zip(leaves(node), leaves(unflattened(space, rows)), strict=True):
        assert (before.dtype, before.shape) == (after.dtype, after.shape)
        assert np.array_equal(before, after)


@settings(max_examples=25)
@given(space=SPACES)
def test_space_of_reads_what_minari_serialises(space):
    again = space_of(serialize_space(space), "here", "observation_space")
    assert again == space
    assert json.loads(serialize_space(again)) == json.loads(serialize_space(space))


@pytest.mark.parametrize(
    "text", ["", "[]", '{"type": "Box"}', '{"type": "Text"}', None, '{"type": "Discrete", "n": -1, "start": 0}', "[" * 9999]
)
def test_space_of_something_else_is_refused(text):
    with pytest.raises(UserError, match="here: observation_space: expected a serialised space"):
        space_of(text, "here", "observation_space")


def test_flattened_values_outside_their_space_are_named():
    with pytest.raises(NotInSpace) as error:
        rows_of(spaces.Discrete(3), np.array([0, 2, 3]))
    assert error.value.row == 2
    with pytest.raises(NotInSpace):
        rows_of(spaces.Box(0, 1, (2,)), np.zeros((4, 3)))
