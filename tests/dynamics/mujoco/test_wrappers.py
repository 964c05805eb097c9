"""The true model is of the task as it is wrapped, or it is refused."""

from types import SimpleNamespace

import gymnasium
import pytest
from gymnasium import wrappers
from gymnasium.vector import SyncVectorEnv
from gymnasium.wrappers import vector as vector_wrappers

import mbkit.envs
from mbkit.dynamics.mujoco import MujocoDynamics
from mbkit.dynamics.mujoco.simulators import Stepped
from mbkit.envs.benchmarks.cartpole import TASK
from mbkit.errors import UserError


class Limit(wrappers.TimeLimit):
    """A subclass of a wrapper that changes nothing may change anything."""


class Round(gymnasium.Env):
    """Pays for the task inside, whose physics it shows."""

    def __init__(self, env):
        self.env, self.action_space, self.observation_space = env, env.action_space, env.observation_space

    @property
    def unwrapped(self):
        return self.env.unwrapped


def replaced(env):
    env.unwrapped.step = lambda action: None
    return env


CHANGES = {
    "TransformReward": lambda env: wrappers.TransformReward(env, lambda r: -r),
    "TransformAction": lambda env: wrappers.TransformAction(env, lambda a: -a, env.action_space),
    "FrameStackObservation": lambda env: wrappers.FrameStackObservation(env, 2),
    "NormalizeReward": lambda env: wrappers.OrderEnforcing(wrappers.NormalizeReward(env)),
    "Limit": lambda env: Limit(env, 5),
    "Round": Round,
    "step was replaced": replaced,
}


@pytest.mark.parametrize("part", CHANGES)
def test_mujoco_of_a_changed_task_is_refused_by_name(part):
    env = CHANGES[part](gymnasium.make("Reacher-v5", disable_env_checker=True))
    with pytest.raises(UserError, match=rf"would not be true of the environment, where .*{part}"):
        MujocoDynamics(SimpleNamespace(envs=[env]))


def test_mujoco_of_a_vector_environment_that_changes_rewards_is_refused():
    def vector():
        return SyncVectorEnv([lambda: gymnasium.make("Reacher-v5")])

    MujocoDynamics(mbkit.envs.wrap(vector_wrappers.RecordEpisodeStatistics(vector()))).close()
    with pytest.raises(UserError, match="the wrapper TransformReward"):
        MujocoDynamics(mbkit.envs.wrap(vector_wrappers.TransformReward(vector(), lambda r: -r)))
    with pytest.raises(UserError, match="the vector environment Mine"):
        MujocoDynamics(mbkit.envs.wrap(type("Mine", (SyncVectorEnv,), {})([lambda: gymnasium.make("Reacher-v5")])))


def test_mujoco_of_a_task_in_wrappers_that_change_nothing_is_made():
    env = wrappers.RecordEpisodeStatistics(wrappers.TimeLimit(gymnasium.make("Reacher-v5"), 5))
    MujocoDynamics(SimpleNamespace(envs=[env])).close()


@pytest.mark.parametrize("method", ["step", "_observe", "do_simulation"])
def test_readout_of_a_benchmark_task_with_another_method_steps_copies(method):
    cls = type("Mine", (TASK.env,), {method: lambda self, *args: getattr(TASK.env, method)(self, *args)})
    model = MujocoDynamics(SimpleNamespace(envs=[cls()]))
    assert isinstance(model.simulator, Stepped)
    model.close()
