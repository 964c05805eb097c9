"""Names of the numbers of an observation."""

import gymnasium
import numpy as np
import pytest
from gym_toys import StepCounter
from gymnasium import spaces

from mbkit.envs import make
from mbkit.envs.dimensions import NAMES, dimension_names


@pytest.mark.parametrize("name", NAMES)
def test_known_names_are_as_many_as_the_observation_has_numbers(name):
    env = make(name)
    assert env.dimension_names == list(NAMES[name])
    assert len(NAMES[name]) == env.spec.obs_dim
    env.close()


def test_parts_are_named_by_their_keys_in_the_order_of_the_vector():
    space = spaces.Dict({"who": spaces.Discrete(3), "arm": spaces.Dict({"angle": spaces.Box(-1, 1, (2,)), "load": spaces.Box(0, 1, (1,))})})
    names = dimension_names("Mine-v0", space)
    assert names == ["arm.angle 0", "arm.angle 1", "arm.load", "who 0", "who 1", "who 2"]
    row = spaces.flatten(space, {"who": 1, "arm": {"angle": np.array([0.1, 0.2]), "load": np.array([0.3])}})
    np.testing.assert_allclose(row, [0.1, 0.2, 0.3, 0, 1, 0], rtol=1e-6)


def test_a_tuple_is_named_by_number_and_a_box_by_obs():
    assert dimension_names("Mine-v0", spaces.Tuple([spaces.Box(0, 1, (1,)), spaces.Discrete(2)])) == ["0", "1 0", "1 1"]
    assert dimension_names("Mine-v0", StepCounter.observation_space) == ["obs 0", "obs 1", "obs 2"]


def test_a_task_of_other_dimensions_under_a_known_name_is_named_by_number():
    assert dimension_names("Pendulum-v1", gymnasium.spaces.Box(0, 1, (5,))) == [f"obs {i}" for i in range(5)]
