"""Tasks that misbehave: what they return or raise is named with the environment and the step, or works."""

from fractions import Fraction

import gymnasium
import numpy as np
import pytest
import torch
from gym_toys import ScriptedEnv
from gymnasium import spaces
from gymnasium.vector import SyncVectorEnv

import mbkit.envs
from mbkit.envs.environment import single
from mbkit.errors import UserCodeError, UserError

ZEROS = np.zeros(3)


class Odd(ScriptedEnv):
    """Returns `result` from its second step, and raises `error` in the method named `where`."""

    def __init__(self, result=None, where: str = "", error: BaseException | None = None):
        self.result, self.where, self.error, self.count = result, where, error, 0

    def _raise(self, where):
        if where == self.where:
            raise self.error

    def reset(self, *, seed=None, options=None):
        self._raise("reset")
        return super().reset(seed=seed)

    def step(self, action):
        self.count += 1
        if self.count == 2:
            self._raise("step")
            return self.result
        return super().step(action)

    def render(self):
        self._raise("render")
        return self.result

    def close(self):
        self._raise("close")


def second_step(result, discrete: bool = False):
    """The second step of two environments, of which the second returns `result`."""
    environment = single("toy", [Odd((ZEROS, 0.0, False, False, {})), Odd(result)], 0)
    environment.reset()
    environment.step(torch.zeros(2, 1))
    return environment.step(torch.zeros(2, 1))


@pytest.mark.parametrize(
    "reward",
    [np.array([1.5]), np.array(1.5), np.array([[1.5]]), Fraction(3, 2), torch.tensor(1.5), [1.5], np.float16(1.5), np.longdouble(1.5)],
)
def test_step_reward_of_one_number_works(reward):
    assert second_step((ZEROS, reward, False, False, {})).reward.tolist() == [0, 1.5]


@pytest.mark.parametrize("over", [1, np.True_, np.array([True]), np.int64(1), 1.0, torch.tensor(True)])
def test_step_flags_of_one_or_zero_work(over):
    assert second_step((ZEROS, 0, over, 0, {})).terminated.tolist() == [False, True]
    assert second_step([ZEROS, 0, False, over, {}]).truncated.tolist() == [False, True]


@pytest.mark.parametrize(
    ("result", "sentence"),
    [
        (None, "step of toy {} at step 2: expected five values .*, got None"),
        ((ZEROS, 0.0, False, {}), r"step of toy {} at step 2: expected five values .*, got 4 \(ndarray, float, bool, dict\)"),
        (7, "step of toy {} at step 2: expected five values .*, got 7"),
        ((ZEROS, "much", False, False, {}), "reward of toy {} at step 2: expected a number, got 'much'"),
        ((ZEROS, "1.5", False, False, {}), "reward of toy {} at step 2: expected a number, got '1.5'"),
        ((ZEROS, 1j, False, False, {}), "reward of toy {} at step 2: expected a number, got 1j"),
        ((ZEROS, np.complex64(1), False, False, {}), "reward of toy {} at step 2: expected a number, got"),
        ((ZEROS, None, False, False, {}), "reward of toy {} at step 2: expected a number, got None"),
        ((ZEROS, np.zeros(2), False, False, {}), r"reward of toy {} at step 2: expected a number, got float64 \[2\]"),
        ((ZEROS, [1, [2]], False, False, {}), "reward of toy {} at step 2: expected a number"),
        ((ZEROS, 10**400, False, False, {}), "reward of toy {} at step 2: expected a number, got 1000"),
        ((ZEROS, 1e39, False, False, {}), r"reward of toy {} at step 2: expected numbers within float32, got 1e\+39"),
        ((ZEROS, -np.inf, False, False, {}), "reward of toy {} at step 2: expected finite numbers, got -inf"),
        ((ZEROS, 0.0, np.nan, False, {}), "terminated of toy {} at step 2: expected True or False, got nan"),
        ((ZEROS, 0.0, "no", False, {}), "terminated of toy {} at step 2: expected True or False, got 'no'"),
        ((ZEROS, 0.0, False, None, {}), "truncated of toy {} at step 2: expected True or False, got None"),
        ((ZEROS, 0.0, 2, False, {}), "terminated of toy {} at step 2: expected True or False, got 2"),
        ((ZEROS, 0.0, False, np.array([True, False]), {}), "truncated of toy {} at step 2"),
        ((ZEROS + 1j, 0.0, False, False, {}), r"observation of toy {} at step 2: expected shape \(3,\) .*, got complex128"),
        ((["1", "2", "3"], 0.0, False, False, {}), "observation of toy {} at step 2: expected shape"),
        ((None, 0.0, False, False, {}), "observation of toy {} at step 2: expected shape .*, got None"),
    ],
)
def test_step_result_that_is_none_is_named(result, sentence):
    with pytest.raises(UserError, match=sentence.format(r"\(environment 1\)")):
        second_step(result)


@pytest.mark.parametrize(
    ("space", "value"),
    [
        (spaces.Discrete(3), -1), (spaces.Discrete(3), 3), (spaces.Discrete(3, start=1), 0), (spaces.Discrete(3), 1.5),
        (spaces.Discrete(3), None),
        (spaces.MultiDiscrete([2, 3]), [1, -1]), (spaces.MultiDiscrete([2, 3]), [2, 0]), (spaces.MultiBinary(2), [0, 2]),
        (spaces.Dict({"a": spaces.Discrete(2)}), {"a": -1}), (spaces.Tuple([spaces.Discrete(2)]), (-1,)),
    ],
)  # fmt: skip
def test_reset_choice_outside_its_space_is_named(space, value):
    toy = ScriptedEnv()
    toy.observation_space, toy.script = space, (np.array(value) if isinstance(value, list) else value,)
    with pytest.raises(UserError, match=r"observation of toy \(environment 0\) on reset: expected .* as in its observation space, got"):
        single("toy", [toy], 0).reset()


@pytest.mark.parametrize(("where", "when"), [("step", " at step 2"), ("reset", ""), ("close", "")])
@pytest.mark.parametrize("error", [KeyError("no map"), ZeroDivisionError(), SystemExit(3)])
def test_exception_of_a_task_is_named_and_its_cause_kept(where, when, error):
    environment = single("toy", [Odd((ZEROS, 0.0, False, False, {})), Odd(None, where, error)], 0)
    if where == "step":
        environment.reset()
        environment.step(torch.zeros(2, 1))
    call = {"step": lambda: environment.step(torch.zeros(2, 1)), "reset": environment.reset, "close": environment.close}[where]
    with pytest.raises(UserCodeError, match=rf"^{where} of toy \(environment 1\){when} raised {type(error).__name__}") as caught:
        call()
    assert caught.value.__cause__ is error
    assert "\n" not in str(caught.value)


def test_exception_on_close_loses_no_result(caplog):
    with single("toy", [Odd(None, "close", KeyError("twice"))], 0) as environment:
        environment.reset()
    assert "close of toy (environment 0) raised KeyError: 'twice'" in caplog.text


@pytest.mark.parametrize("result", [np.zeros(3), None, (np.zeros(3),), [np.zeros(3), {}, 0]])
def test_reset_of_another_form_is_named(result):
    toy = ScriptedEnv()
    toy.reset = lambda seed=None, options=None: result
    with pytest.raises(UserError, match=r"reset of toy \(environment 0\): expected two values \(observation, info\), got"):
        single("toy", [toy], 0).reset()


@pytest.mark.parametrize(
    "frame", [np.zeros((4, 4)), np.zeros((4, 4, 3)), np.zeros((4, 4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8), None, "art"]
)
def test_render_of_no_image_is_no_renderer(frame):
    toy = Odd(frame)
    toy.render_mode = "rgb_array"
    with pytest.raises(mbkit.envs.NoRenderer, match="toy renders no image"):
        single("toy", [toy], 0).render()
    toy.where, toy.error = "render", KeyError("pen")
    with pytest.raises(UserCodeError, match="render of toy raised KeyError: 'pen'"):
        single("toy", [toy], 0).render()


@pytest.mark.parametrize("missing", ["observation_space", "action_space"])
def test_single_without_a_space_is_named(missing):
    class Bare(gymnasium.Env):
        observation_space, action_space = ScriptedEnv.observation_space, ScriptedEnv.action_space

    setattr(Bare, missing, None)
    with pytest.raises(UserError, match=f"{missing.replace('_', ' ')} of toy: expected .*, got None"):
        single("toy", [Bare()], 0)


@pytest.mark.parametrize("dt", ["fast", np.zeros(2), lambda: 0.1, -1, np.nan, property(lambda self: 1 / 0)])
def test_single_dt_that_is_no_time_is_none(dt):
    assert single("toy", [type("Timed", (ScriptedEnv,), {"dt": dt})()], 0).dt is None


class Vector(SyncVectorEnv):
    """A vector environment whose steps bring what it is told."""

    changed: dict = {}  # noqa: RUF012

    def step(self, action):
        parts = dict(zip(("obs", "reward", "terminated", "truncated", "info"), super().step(action), strict=True)) | self.changed
        return tuple(parts.values())


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"reward": np.array(["a", "b"])}, "reward of Vector at step 1: expected 2 numbers"),
        ({"reward": np.zeros(3)}, "reward of Vector at step 1: expected 2 numbers"),
        ({"terminated": np.array([np.nan, 0])}, "terminated of Vector at step 1: expected 2 times True or False"),
        ({"truncated": None}, "truncated of Vector at step 1"),
        ({"more": 1}, "step of Vector at step 1: expected five values"),
        ({"obs": np.zeros((2, 3), complex)}, "observation of Vector at step 1"),
    ],
)
def test_vector_step_result_that_is_none_is_named(changed, sentence):
    vector = Vector([ScriptedEnv, ScriptedEnv])
    vector.changed = changed
    environment = mbkit.envs.wrap(vector)
    environment.reset()
    with pytest.raises(UserError, match=sentence):
        environment.step(torch.zeros(2, 1))


def test_vector_rewards_in_a_column_work_and_exceptions_are_named():
    vector = Vector([ScriptedEnv, Odd])
    vector.changed = {"reward": np.ones((2, 1)), "terminated": np.zeros(2, int)}
    environment = mbkit.envs.wrap(vector)
    environment.reset()
    vector.envs[1].count = 0
    assert environment.step(torch.zeros(2, 1)).reward.tolist() == [1, 1]
    vector.envs[1].where, vector.envs[1].error = "step", KeyError("no map")
    with pytest.raises(UserCodeError, match="step of Vector at step 2 raised KeyError: 'no map'"):
        environment.step(torch.zeros(2, 1))
