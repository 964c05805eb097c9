"""Both simulators against the environments themselves: copies of environments, any number of rows, threads, diverged physics."""

from types import SimpleNamespace

import gymnasium
import numpy as np
import pytest
import torch
from live_mujoco import compare, live, repeated

from mbkit.dynamics.mujoco import MujocoConfig, MujocoDynamics
from mbkit.dynamics.mujoco.simulators import Stepped, object_array

SLOW = [("Ant-v5", {}), ("Humanoid-v5", {}), ("HumanoidStandup-v5", {})]


@pytest.mark.parametrize(("name", "kwargs"), SLOW)
def test_stepped_rollout_equals_env_step(name, kwargs):
    compare(name, kwargs, 4, Stepped)


def test_stepped_rollout_of_a_subclass_uses_its_own_step():
    class Careful(gymnasium.envs.mujoco.half_cheetah_v5.HalfCheetahEnv):
        def step(self, action):
            obs, reward, *rest = super().step(action)
            self.total = getattr(self, "total", 0) + reward
            return obs, self.total, *rest

    env = Careful()
    env.reset(seed=0)
    env.step(env.action_space.sample())
    before = env.total
    model = MujocoDynamics(SimpleNamespace(envs=[env]), MujocoConfig(threads=2))
    assert isinstance(model.simulator, Stepped)
    actions = torch.rand(5, 3, 6) * 2 - 1
    exact = model.simulate(repeated(model, torch.zeros(1, 17), 1, 5), actions)
    assert env.total == before
    for k in range(3):
        obs, reward, *_ = env.step(model.native(actions[4, k]))
        np.testing.assert_array_equal(exact.obs[4, k], obs)
        assert exact.reward[4, k] == reward


def test_vectorised_rollout_of_any_number_of_rows_shares_one_simulator():
    envs, obs = live("Reacher-v5", {}, count=1)
    model = MujocoDynamics(SimpleNamespace(envs=envs), MujocoConfig(threads=2))
    actions = torch.rand(9, 6, 2) * 2 - 1
    whole = model.simulate(repeated(model, obs, 1, 9), actions)
    for count in (1, 4, 9, 2):
        part = model.simulate(repeated(model, obs, 1, count), actions[:count, :3])
        np.testing.assert_array_equal(part.obs, whole.obs[:count, :3])
        np.testing.assert_array_equal(part.reward, whole.reward[:count, :3])


def test_vectorised_rollout_does_not_depend_on_the_number_of_threads():
    envs, obs = live("HalfCheetah-v5", {}, count=1)
    actions = torch.rand(7, 8, 6) * 2 - 1
    one, three = (MujocoDynamics(SimpleNamespace(envs=envs), MujocoConfig(threads=t)) for t in (1, 3))
    a, b = (model.simulate(repeated(model, obs, 1, 7), actions) for model in (one, three))
    np.testing.assert_array_equal(a.obs, b.obs)


def test_vectorised_rollout_of_diverged_physics_has_no_reward():
    envs, obs = live("HalfCheetah-v5", {}, count=1)
    model = MujocoDynamics(SimpleNamespace(envs=envs), MujocoConfig(threads=1))
    carry = repeated(model, obs, 1, 2)
    carry.physics[1, 1 + envs[0].unwrapped.model.nq] = 1e11  # the simulator gives up on such a velocity
    out = model.rollout(carry, torch.zeros(2, 3, 6))
    assert out.reward[0].isfinite().all()
    assert out.reward[1].isnan().all()


def test_stepped_carry_is_an_array_of_copies():
    envs, _ = live("Ant-v5", {}, count=2)
    simulator = Stepped(envs[0].unwrapped, 1)
    carry = simulator.start([env.unwrapped for env in envs])
    assert (carry.shape, carry.dtype) == ((2,), object)
    action = np.zeros((3, *envs[0].action_space.shape), np.float32)
    after, _ = simulator.step(carry[[1, 1, 0]], action)
    for start, row, env in zip((1, 1, 0), after, [envs[1], envs[1], envs[0]], strict=True):
        assert row is not carry[start]
        np.testing.assert_array_equal(carry[start].data.qpos, env.unwrapped.data.qpos)
    np.testing.assert_array_equal(after[0].data.qpos, after[1].data.qpos)


def test_object_array_takes_sequences_as_single_objects():
    array = object_array([[1, 2], [3, 4]])
    assert array.shape == (2,)
    assert array[[1, 1, 0]].tolist() == [[3, 4], [3, 4], [1, 2]]
