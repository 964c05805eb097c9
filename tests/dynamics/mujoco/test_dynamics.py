"""The true model against the environments themselves: every number equal, from mid-episode."""

from types import SimpleNamespace

import gymnasium
import numpy as np
import pytest
import torch

import mbkit.envs.benchmarks  # registers the tasks
from mbkit.dynamics.mujoco.dynamics import MujocoConfig, MujocoDynamics, owners
from mbkit.dynamics.mujoco.simulators import Stepped, Vectorised
from mbkit.envs import make
from mbkit.errors import UserError
from mbkit.registry import dynamics
from mbkit.types import Dynamics

BENCHMARKS = [f"mbkit/{name}-v0" for name in mbkit.envs.benchmarks.TASKS]
WITH_X = {"exclude_current_positions_from_observation": False}
FAST = [(name, {}) for name in BENCHMARKS] + [
    ("InvertedPendulum-v5", {}),
    ("InvertedDoublePendulum-v5", {}),
    ("Hopper-v5", {}),
    ("Hopper-v5", WITH_X | {"terminate_when_unhealthy": False, "healthy_reward": 2.0, "ctrl_cost_weight": 0.1}),
    ("Walker2d-v5", {}),
    ("HalfCheetah-v5", {}),
    ("HalfCheetah-v5", WITH_X | {"forward_reward_weight": 2.0}),
    ("Swimmer-v5", {}),
    ("Reacher-v5", {}),
    ("Pusher-v5", {}),
    ("Ant-v5", {"include_cfrc_ext_in_observation": False, "contact_cost_weight": 0}),
]
SLOW = [("Ant-v5", {}), ("Humanoid-v5", {}), ("HumanoidStandup-v5", {})]


def live(name, kwargs, count=2, started=6):
    """Environments in the middle of an episode, and what they show, float32 [M, O]."""
    envs = [gymnasium.make(name, disable_env_checker=True, **kwargs) for _ in range(count)]
    obs = []
    for i, env in enumerate(envs):
        obs.append(env.reset(seed=i)[0])
        env.action_space.seed(i)
        for _ in range(started + i):
            obs[i] = env.step(env.action_space.sample())[0]
    return envs, torch.tensor(np.array(obs), dtype=torch.float32)


def compare(name, kwargs, horizon, expected):
    """Two environments, two particles, three candidates each: one row of each environment is then really stepped."""
    envs, obs = live(name, kwargs)
    model = MujocoDynamics(SimpleNamespace(envs=envs), MujocoConfig(threads=2))
    assert isinstance(model.simulator, expected)
    rows = obs.repeat_interleave(3, 0).repeat(2, 1)
    actions = torch.rand(12, horizon, envs[0].action_space.shape[0], generator=torch.Generator().manual_seed(0)) * 2 - 1
    carry = model.init(rows)
    seen, rolled = model.simulate(carry, actions), model.rollout(carry, actions)
    stepped, state = [], carry
    for k in range(horizon):
        stepped.append(model.step(state, actions[:, k]))
        state = stepped[-1].state
    for row, env in ((7, envs[0]), (4, envs[1])):
        for k in range(horizon):
            obs, reward, terminated, *_ = env.unwrapped.step(model.native(actions[row, k]))
            np.testing.assert_array_equal(seen.obs[row, k], obs)
            assert seen.reward[row, k] == reward
            assert seen.terminated[row, k] == terminated
            for result in (rolled.obs[row, k], stepped[k].obs[row]):
                np.testing.assert_array_equal(result, obs.astype(np.float32))
            for result in (rolled.reward[row, k], stepped[k].reward[row]):
                assert result == np.float32(reward)
            assert rolled.terminated[row, k] == stepped[k].terminated[row] == terminated
    model.close()


@pytest.mark.parametrize(("name", "kwargs"), FAST)
def test_vectorised_rows_equal_env_step(name, kwargs):
    compare(name, kwargs, 25, Vectorised)


@pytest.mark.parametrize(("name", "kwargs"), SLOW)
def test_stepped_rows_equal_env_step(name, kwargs):
    compare(name, kwargs, 4, Stepped)


def test_a_subclass_may_have_another_step():
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
    seen = model.simulate(model.init(torch.zeros(5, 17)), actions)
    assert env.total == before
    for k in range(3):
        obs, reward, *_ = env.step(model.native(actions[4, k]))
        np.testing.assert_array_equal(seen.obs[4, k], obs)
        assert seen.reward[4, k] == reward


@pytest.mark.parametrize(("name", "kwargs"), [("HalfCheetah-v5", {}), ("InvertedDoublePendulum-v5", {}), ("Ant-v5", {})])
def test_planning_leaves_the_environment_alone(name, kwargs):
    (used, alone), _ = live(name, kwargs, started=6)
    alone.reset(seed=0)
    alone.action_space.seed(0)
    for _ in range(6):
        alone.step(alone.action_space.sample())
    model = MujocoDynamics(SimpleNamespace(envs=[used]), MujocoConfig(threads=2))
    actions = torch.rand(4, 5, used.action_space.shape[0]) * 2 - 1
    model.rollout(model.init(torch.zeros(4, 1)), actions)
    for _ in range(3):
        action = alone.action_space.sample()
        np.testing.assert_array_equal(used.step(action)[0], alone.step(action)[0])


def test_works_with_an_mbkit_environment_to_the_last_float():
    environment = make("cartpole", seed=4, num_envs=3)
    obs = environment.reset()
    for _ in range(5):
        obs = environment.step(torch.rand(3, 1) * 2 - 1).obs
    model = MujocoDynamics(environment)
    assert isinstance(model, Dynamics)
    actions = torch.rand(3, 10, 1) * 2 - 1
    out = model.rollout(model.init(obs), actions)
    for k in range(10):
        step = environment.step(actions[:, k])
        torch.testing.assert_close(out.obs[:, k], step.next_obs, rtol=0, atol=0)
        torch.testing.assert_close(out.reward[:, k], step.reward, rtol=0, atol=0)


def test_batches_of_any_size_share_one_simulator():
    envs, obs = live("Reacher-v5", {}, count=1)
    model = MujocoDynamics(SimpleNamespace(envs=envs), MujocoConfig(threads=2))
    actions = torch.rand(9, 6, 2) * 2 - 1
    whole = model.simulate(model.init(obs.repeat(9, 1)), actions)
    for count in (1, 4, 9, 2):
        part = model.simulate(model.init(obs.repeat(count, 1)), actions[:count, :3])
        np.testing.assert_array_equal(part.obs, whole.obs[:count, :3])
        np.testing.assert_array_equal(part.reward, whole.reward[:count, :3])


def test_results_do_not_depend_on_the_number_of_threads():
    envs, obs = live("HalfCheetah-v5", {}, count=1)
    actions = torch.rand(7, 8, 6) * 2 - 1
    one, three = (MujocoDynamics(SimpleNamespace(envs=envs), MujocoConfig(threads=t)) for t in (1, 3))
    a, b = (model.simulate(model.init(obs.repeat(7, 1)), actions) for model in (one, three))
    np.testing.assert_array_equal(a.obs, b.obs)


def test_diverged_physics_has_no_reward():
    envs, obs = live("HalfCheetah-v5", {}, count=1)
    model = MujocoDynamics(SimpleNamespace(envs=envs), MujocoConfig(threads=1))
    carry = model.init(obs.repeat(2, 1))
    carry.physics[1, 1 + envs[0].unwrapped.model.nq] = 1e11  # the simulator gives up on such a velocity
    out = model.rollout(carry, torch.zeros(2, 3, 6))
    assert out.reward[0].isfinite().all()
    assert out.reward[1].isnan().all()


def test_rows_belong_to_environments():
    obs = torch.arange(6.0).view(3, 2)
    rows = obs.repeat_interleave(4, 0)
    np.testing.assert_array_equal(owners(rows, 3), np.repeat([0, 1, 2], 4))
    np.testing.assert_array_equal(owners(rows.repeat(5, 1), 3), np.tile(np.repeat([0, 1, 2], 4), 5))
    np.testing.assert_array_equal(owners(rows, 1), np.zeros(12))
    for wrong in (rows[:-1], rows[torch.randperm(12, generator=torch.Generator().manual_seed(0))]):
        with pytest.raises(UserError, match="no repetition"):
            owners(wrong, 3)


def test_other_simulators_are_refused():
    with pytest.raises(UserError, match="CartPoleEnv"):
        MujocoDynamics(SimpleNamespace(envs=[gymnasium.make("CartPole-v1")]))
    with pytest.raises(UserError, match="access"):
        MujocoDynamics(SimpleNamespace(envs=[]))


def test_is_registered():
    assert dynamics["mujoco"].target is MujocoDynamics
    assert dynamics["mujoco"].config is MujocoConfig
