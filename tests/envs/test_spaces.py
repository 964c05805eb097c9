"""Maps of actions and observations: affine identities, one-hot encoding, flattening, and the spaces that are refused."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.spaces.utils import flatten
from gymnasium.vector.utils import batch_space
from hypothesis import given
from hypothesis import strategies as st

from mbkit.envs.spaces import ActionMap, ObservationMap, component_names
from mbkit.errors import UserError

bounds = st.floats(-1e3, 1e3, width=32)


@given(low=bounds, span=st.floats(0.125, 1e3, width=32), action=st.floats(-1, 1, width=32))
def test_action_map_box_is_affine(low: float, span: float, action: float) -> None:
    box = spaces.Box(np.float32(low), np.float32(low + span), (2,))
    native = ActionMap(box, "toy")
    assert np.allclose(native(torch.tensor([[-1.0, 1.0]])), [[box.low[0], box.high[0]]], rtol=1e-6, atol=1e-12)
    result = native(torch.full((3, 2), action))
    assert result.dtype == np.float32
    assert result.shape == (3, 2)
    assert all(box.contains(row) for row in result)
    assert result[0, 0] == pytest.approx(low + (action + 1) / 2 * (float(box.high[0]) - low), abs=1e-4)


@given(action=st.floats(-1, 1, width=32))
def test_action_map_unit_box_is_the_identity_to_the_last_digit(action: float) -> None:
    native = ActionMap(spaces.Box(-1, 1, (1,)), "toy")
    assert native(torch.tensor([[action]])).item() == np.float32(action)


def test_action_map_actions_beyond_1_are_clipped_to_bounds_per_axis() -> None:
    native = ActionMap(spaces.Box(np.array([-2.0, 0.0]), np.array([2.0, 10.0]), dtype=np.float64), "toy")
    assert native(torch.tensor([[3.0, -9.0], [0.5, 0.5]])).tolist() == [[2.0, 0.0], [1.0, 7.5]]


def test_action_map_box_of_two_axes_has_its_shape() -> None:
    native = ActionMap(spaces.Box(-1, 1, (2, 3)), "toy")
    assert native.dim == 6
    assert native(torch.arange(6.0)[None] / 6).shape == (1, 2, 3)


def test_action_map_discrete_actions_are_int64_from_the_start() -> None:
    native = ActionMap(spaces.Discrete(3, start=5), "toy")
    result = native(torch.tensor([0, 2]))
    assert (native.dim, native.discrete, result.tolist(), result.dtype) == (3, True, [5, 7], np.int64)


@pytest.mark.parametrize(
    ("space", "parts"),
    [
        (spaces.MultiDiscrete([3, 2]), (3, 2)),
        (spaces.MultiDiscrete([3, 2, 4], start=[-1, 0, 7]), (3, 2, 4)),
        (spaces.MultiDiscrete([[3, 2], [4, 5]], dtype=np.int32), (3, 2, 4, 5)),
        (spaces.MultiDiscrete([200, 56], start=[0, 200], dtype=np.uint8), (200, 56)),
        (spaces.MultiBinary(3), (2, 2, 2)),
        (spaces.MultiBinary((2, 2)), (2, 2, 2, 2)),
        (spaces.Box(0, 5, (2,), int), (6, 6)),
        (spaces.Box(np.array([-2, 3]), np.array([0, 3]), dtype=np.int8), (3, 1)),
        (spaces.Box(250, 255, (2, 1), np.uint8), (6, 6)),
        (spaces.Box(0, 1, (2,), np.bool_), (2, 2)),
    ],
    ids=str,
)
def test_action_map_several_discrete_actions_reach_every_element_of_the_space(space: spaces.Space, parts: tuple[int, ...]) -> None:
    native = ActionMap(space, "toy")
    assert (native.discrete, native.parts, native.dim, native.row) == (True, parts, sum(parts), (len(parts),))
    every = torch.cartesian_prod(*map(torch.arange, parts))
    result = native(every.view(1, -1, len(parts)))
    assert result.shape == (1, len(every), *space.shape)
    assert result.dtype == space.dtype
    assert all(space.contains(row) for row in result[0])
    assert len({row.tobytes() for row in result[0]}) == len(every)


@pytest.mark.parametrize(
    ("space", "first"),
    [
        (spaces.MultiDiscrete([4]), [0]),
        (spaces.MultiDiscrete([4], start=[2]), [2]),
        (spaces.Box(-1, 2, (1,), int), [-1]),
        (spaces.Box(-1, 2, (), int), -1),
    ],
    ids=str,
)
def test_action_map_of_a_single_dimension_is_like_discrete(space: spaces.Space, first: object) -> None:
    native = ActionMap(space, "toy")
    assert (native.discrete, native.parts, native.dim, native.row) == (True, (), 4, ())
    result = native(torch.arange(4))
    assert result[0].tolist() == first
    assert all(space.contains(np.asarray(row)) for row in result)


def test_action_map_non_finite_action_is_named() -> None:
    with pytest.raises(UserError, match=r"action for toy: expected finite numbers, got .*nan"):
        ActionMap(spaces.Box(-1, 1, (1,)), "toy")(torch.tensor([[float("nan")]]))


@pytest.mark.parametrize(
    ("space", "sentence"),
    [
        (spaces.Box(-np.inf, np.inf, (2,)), "action space of toy: expected finite bounds"),
        (
            spaces.Box(0, 30_000, (1,), np.int64),
            "action space of toy: expected 1 to 10000 discrete actions .*, got 30001",
        ),
        (spaces.Box(0, 255, (50,), np.uint8), "expected 1 to 10000 discrete actions in all dimensions, got 12800; a Box of floats"),
        (spaces.MultiDiscrete([9_999, 2]), "expected 1 to 10000 discrete actions in all dimensions, got 10001"),
        (spaces.Box(0, 3, (0,), np.int64), "expected 1 to 10000 discrete actions in all dimensions, got 0$"),
        (spaces.Box(-np.inf, np.inf, (2,), np.int64), "action space of toy: expected finite bounds of whole numbers"),
        (spaces.Tuple([spaces.Discrete(2)] * 2), "action space of toy: expected Discrete, MultiDiscrete, MultiBinary or a Box, got Tuple"),
    ],
)
def test_action_map_other_spaces_are_refused(space: spaces.Space, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        ActionMap(space, "toy")


NESTED = spaces.Dict(
    {
        "velocity": spaces.Box(-1, 1, (2, 2)),
        "gear": spaces.Discrete(3),
        "arm": spaces.Tuple((spaces.Box(-1, 1, (1,)), spaces.MultiBinary(2))),
    }
)


@pytest.mark.parametrize(
    "space",
    [NESTED, spaces.Discrete(4, start=-1), spaces.Box(-1, 1, (3,), np.float64), spaces.Box(-1, 1, ()), spaces.MultiDiscrete([2, 3])],
)
def test_observation_map_single_observation_equals_its_row_in_a_batch(space: spaces.Space) -> None:
    space.seed(0)
    rows = [space.sample() for _ in range(5)]
    vector = ObservationMap(space, "toy")
    batched = batch_space(space, 5)
    stacked = vector.stack(batched, _batch(space, rows))
    assert stacked.shape == (5, vector.dim)
    assert stacked.dtype == np.float32
    for row, one in zip(stacked, rows, strict=True):
        assert np.array_equal(row, np.asarray(vector(one), np.float32))
        assert np.array_equal(row, flatten(space, one).astype(np.float32))


def test_observation_map_dict_is_sorted_by_key_and_discrete_is_one_hot() -> None:
    obs = {
        "velocity": np.array([[1, 2], [3, 4]], np.float32) / 4,
        "gear": 1,
        "arm": (np.array([0.5], np.float32), np.array([0, 1], np.int8)),
    }
    assert ObservationMap(NESTED, "toy")(obs).tolist() == [0.5, 0, 1, 0, 1, 0, 0.25, 0.5, 0.75, 1]


@pytest.mark.parametrize(
    ("space", "sentence"),
    [
        (spaces.Box(0, 255, (8, 8, 3), np.uint8), r"observation space of toy: expected vectors, got an image, uint8 \(8, 8, 3\)"),
        (spaces.Box(0, 1, (4, 4, 4)), "got an image, float32"),
        (spaces.Box(0, 255, (8, 8), np.uint8), "got an image, uint8"),
        (spaces.Dict({"a": spaces.Dict({"eye": spaces.Box(0, 255, (8, 8, 3), np.uint8)})}), "observation space 'a.eye' of toy"),
        (
            spaces.Tuple((spaces.Discrete(2), spaces.Text(3))),
            "observation space '1' of toy: expected a space that can be flattened to a vector",
        ),
        (spaces.Sequence(spaces.Discrete(2)), "expected a space that can be flattened to a vector"),
    ],
)
def test_observation_map_spaces_without_vectors_are_refused(space: spaces.Space, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        ObservationMap(space, "toy")


def _batch(space: spaces.Space, rows: list) -> object:
    """Rows laid out as a vector environment does."""
    if isinstance(space, spaces.Dict):
        return {key: _batch(part, [row[key] for row in rows]) for key, part in space.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(_batch(part, [row[i] for row in rows]) for i, part in enumerate(space))
    return np.array(rows)


@pytest.mark.parametrize("space", [spaces.Box(-1, 1, (0,)), spaces.Box(-1, 1, (3, 0)), spaces.Dict({}), spaces.Tuple(())])
def test_observation_map_space_without_numbers_is_refused(space: spaces.Space) -> None:
    with pytest.raises(UserError, match="observation space of toy: expected at least one number, got "):
        ObservationMap(space, "toy")


def test_observation_map_one_empty_part_does_no_harm() -> None:
    space = spaces.Dict({"empty": spaces.Box(-1, 1, (0,)), "full": spaces.Box(-1, 1, (2,))})
    assert ObservationMap(space, "toy")(space.sample()).shape == (2,)


def test_action_map_box_without_numbers_is_refused() -> None:
    with pytest.raises(UserError, match="action space of toy: expected at least one number, got "):
        ActionMap(spaces.Box(-1, 1, (0,)), "toy")


def test_component_names_follow_the_order_of_the_vector():
    box, choice = spaces.Box(-1, 1, (2,)), spaces.Discrete(2, start=3)
    assert component_names(box) == ["obs[0]", "obs[1]"]
    assert component_names(choice) == ["obs=3", "obs=4"]
    nested = spaces.Dict({"b": box, "a": spaces.Tuple((choice, box))})
    assert component_names(nested) == ["a.0=3", "a.0=4", "a.1[0]", "a.1[1]", "b[0]", "b[1]"]
    assert len(component_names(spaces.MultiDiscrete([3, 2]))) == 5
