"""Policies as users call them: types and shapes that are taken, a sentence for the rest, and actions in the task's own units."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from mbkit.envs.environment import single
from mbkit.envs.spaces import ActionMap, ObservationMap
from mbkit.errors import UserError
from mbkit.run.acting import CheckedActor, TaskPolicy, to_vectors
from mbkit.types import EnvSpec

SPEC = EnvSpec(3, 2, torch.device("cpu"))


class First:
    """Acts with the first two numbers of an observation, or with the number 1 where actions are discrete."""

    def __init__(self, discrete=False):
        self.discrete, self.resets = discrete, []

    def act(self, obs, explore=True):
        assert obs.dtype == torch.float32
        assert obs.ndim == 2
        return torch.ones(len(obs), dtype=torch.int64) if self.discrete else obs[:, :2] + 0.5 * explore

    def reset(self, mask):
        self.resets.append(len(mask))


ROW = [0.1, -0.2, 0.3]
KINDS = [
    np.array(ROW), np.array(ROW, np.float16), np.array(ROW, np.float32), np.array(ROW, np.longdouble), ROW, tuple(ROW), torch.tensor(ROW),
    torch.tensor(ROW).double(), torch.tensor(ROW).half(), torch.tensor(ROW).bfloat16(), torch.tensor(ROW, requires_grad=True),
    np.broadcast_to(np.array(ROW), (3,)), np.array(ROW)[::-1][::-1],
]  # fmt: skip


@pytest.mark.parametrize("obs", KINDS, ids=lambda obs: f"{type(obs).__name__} {getattr(obs, 'dtype', '')}")
def test_checked_actor_takes_one_observation_or_several_of_any_real_type(obs):
    agent = CheckedActor(First(), SPEC, "Mine-v0")
    one = agent.act(obs, explore=False)
    assert one.shape == (2,)
    torch.testing.assert_close(one, torch.tensor(ROW[:2]), atol=1e-2, rtol=0)
    several = torch.stack([obs] * 4) if isinstance(obs, torch.Tensor) else np.stack([obs] * 4) if isinstance(obs, np.ndarray) else [obs] * 4
    assert torch.equal(agent.act(several, explore=False), one.expand(4, 2))


def test_checked_actor_takes_integers_and_truth_values_as_numbers():
    agent = CheckedActor(First(), SPEC, "Mine-v0")
    for obs in (np.array([1, 0, 1]), np.array([True, False, True]), torch.tensor([1, 0, 1]), np.array([1, 0, 1], np.uint8)):
        assert agent.act(obs, explore=False).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("obs", "came"),
    [
        (torch.zeros(1, 5), r"shape \(1, 5\)"),
        (np.zeros(4), r"shape \(4,\)"),
        (np.zeros((2, 2, 3)), r"shape \(2, 2, 3\)"),
        (np.zeros((0, 3)), r"shape \(0, 3\)"),
        (0.5, r"shape \(\)"),
        (torch.tensor(1.0), r"shape \(\)"),
        (np.array(["1", "2", "3"]), "a ndarray of <U1"),
        (np.zeros(3, complex), "a ndarray of complex128"),
        (torch.zeros(3, dtype=torch.complex64), "torch.complex64"),
        (None, "a NoneType of object"),
        ({"a": 1}, "a dict of object"),
        ([[1, 2, 3], [1, 2]], "rows of different lengths"),
        ([0.1, float("nan"), 0.2], "NaN or infinity"),
        (np.array([1e300, 0, 0]), "NaN or infinity"),
        (torch.tensor([torch.inf, 0, 0]), "NaN or infinity"),
    ],
)
def test_checked_actor_says_what_is_wrong(obs, came):
    with pytest.raises(UserError, match=rf"^observation for Mine-v0: expected 3 finite numbers, or several such rows; came {came}$"):
        CheckedActor(First(), SPEC, "Mine-v0").act(obs)


def test_checked_actor_is_otherwise_the_actor():
    actor = First()
    agent = CheckedActor(actor, SPEC, "Mine-v0")
    agent.reset(torch.ones(5, dtype=torch.bool))
    assert agent.resets == [5]
    with pytest.raises(AttributeError, match="absent"):
        agent.absent  # noqa: B018


def test_to_vectors_does_not_share_memory_with_arrays():
    obs = np.array(ROW, np.float32)
    rows, _ = to_vectors(obs, SPEC, "Mine-v0")
    obs[:] = 0
    assert rows.tolist() == [pytest.approx(ROW)]


class Any(gymnasium.Env):
    """A task of these spaces."""

    def __init__(self, observation, action):
        self.observation_space, self.action_space = observation, action


def policy(observation, action):
    env = single("Mine-v0", [Any(observation, action)], 0)
    maps = ObservationMap(observation, env.name), ActionMap(action, env.name)
    return TaskPolicy(First(env.spec.discrete), env.spec, *maps)


def test_task_policy_acts_in_the_units_shape_and_type_of_the_action_space():
    act = policy(spaces.Box(-1, 1, (3,)), spaces.Box(np.array([[0.0, -10.0]]), np.array([[4.0, 10.0]]), dtype=np.float64))
    action = act(np.array([0.5, -0.5, 0.0]))
    assert action.dtype == np.float64
    np.testing.assert_allclose(action, [[3.0, -5.0]])
    assert act(np.zeros((6, 3))).shape == (6, 1, 2)
    assert act(np.zeros(3), explore=True).tolist() == [[3.0, 5.0]]


def test_task_policy_discrete_actions_begin_where_the_space_does():
    space = spaces.Discrete(4, start=-1)
    act = policy(spaces.Box(-1, 1, (3,)), space)
    assert act(np.zeros(3)) == 0
    assert space.contains(act(np.zeros(3)))


SPACES = [
    spaces.Discrete(5, start=2), spaces.MultiDiscrete([2, 3]), spaces.MultiBinary(4), spaces.Box(-1, 1, (2, 3)), spaces.Box(-1, 1, (1,)),
    spaces.Dict({"z": spaces.Box(-1, 1, (2,)), "a": spaces.Discrete(3)}),
    spaces.Tuple((spaces.Discrete(2), spaces.Box(0, 9, (2,), np.int64))),
]  # fmt: skip


@pytest.mark.parametrize("space", SPACES, ids=lambda space: type(space).__name__)
def test_task_policy_takes_what_the_task_returns(space):
    act = policy(space, spaces.Discrete(3))
    space.seed(0)
    for _ in range(5):
        obs = space.sample()
        rows, one = act.vectors(obs)
        assert one
        np.testing.assert_allclose(rows[0].numpy(), spaces.flatten(space, obs))
        assert torch.equal(act.vectors(np.stack([rows[0]] * 3))[0], rows.expand(3, -1))  # several, flattened already
    with pytest.raises(UserError, match="Mine-v0"):
        act(np.zeros(77))


def test_task_policy_begins_a_plan_where_it_is_told_or_the_number_of_rows_changes():
    act = policy(spaces.Box(-1, 1, (3,)), spaces.Box(-1, 1, (2,)))
    for obs, new in ((ROW, False), (ROW, False), (ROW, True), ([ROW] * 4, False), ([ROW] * 4, False)):
        act(obs, new_episode=new)
    assert act.actor.resets == [1, 1, 4]
