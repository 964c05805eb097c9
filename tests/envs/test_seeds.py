"""Seeds of tasks lie below 2**31 whatever the user's seed, and ordinary ones stay what they are."""

import gymnasium
import numpy as np
import pytest
from gym_toys import StepCounter
from gymnasium.vector import SyncVectorEnv
from hypothesis import given, settings
from hypothesis import strategies as st

import mbkit.envs
from mbkit.envs.environment import single
from mbkit.envs.rows import vector_seed
from mbkit.envs.seeds import LIMIT, task_seed
from mbkit.errors import UserError
from mbkit.run.evaluation import evaluation_seed


class Legacy(StepCounter):
    """Seeds NumPy's old generator, which takes whole numbers below 2**32."""

    def reset(self, *, seed=None, options=None):
        if seed is not None:
            assert type(seed) is int
            np.random.RandomState(seed)
            self.seeded = seed
        return super().reset(seed=seed)


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), episode=st.integers(0, 10**6))
def test_task_seed_is_below_the_limit_and_an_ordinary_one_stays(seed, episode):
    assert 0 <= task_seed(evaluation_seed(seed, episode)) < LIMIT
    assert task_seed(seed) == seed if seed < LIMIT else LIMIT // 2 <= task_seed(seed) < LIMIT


def test_task_seed_of_neighbours_differ():
    first = evaluation_seed(20240101)
    assert len({task_seed(first + i) for i in range(1000)}) == 1000


def test_task_seed_negative_is_refused():
    with pytest.raises(UserError, match="seed=-1: expected an integer >= 0"):
        task_seed(-1)


@pytest.mark.parametrize("seed", [0, LIMIT - 1, LIMIT - 2, 2**32 - 1, np.int64(7), evaluation_seed(2**32 - 1)])
def test_reset_hands_folded_seeds_to_every_environment(seed):
    expected = [task_seed(seed + i) for i in range(2)]
    environment = single("legacy", [Legacy(), Legacy()], seed)
    environment.reset()
    assert [env.seeded for env in environment.envs] == expected
    vector = mbkit.envs.wrap(SyncVectorEnv([Legacy, Legacy]), seed)
    vector.reset()
    assert [env.seeded for env in vector.envs] == [vector_seed(seed, 2), vector_seed(seed, 2) + 1]


def test_vector_seed_is_one_number_with_room_for_all():
    assert vector_seed(5, 3) == 5
    assert vector_seed(None, 3) is None
    assert vector_seed(LIMIT - 1, 2) == LIMIT - 2
    gymnasium.make_vec("CartPole-v1", num_envs=2).reset(seed=vector_seed(LIMIT, 2))
