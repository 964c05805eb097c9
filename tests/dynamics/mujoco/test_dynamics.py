"""The true model as dynamics: rows repeated over a plan, live environments left alone, refusals."""

from types import SimpleNamespace

import gymnasium
import numpy as np
import pytest
import torch
from live_mujoco import live, repeated

from mbkit.dynamics.mujoco import MujocoConfig, MujocoDynamics
from mbkit.envs import make
from mbkit.errors import UserError
from mbkit.planning.objective import open_loop_return
from mbkit.registry import dynamics
from mbkit.types import Dynamics


@pytest.mark.parametrize(("name", "kwargs"), [("HalfCheetah-v5", {}), ("InvertedDoublePendulum-v5", {}), ("Ant-v5", {})])
def test_rollout_leaves_the_environment_alone(name, kwargs):
    (used, alone), _ = live(name, kwargs, started=6)
    alone.reset(seed=0)
    alone.action_space.seed(0)
    for _ in range(6):
        alone.step(alone.action_space.sample())
    model = MujocoDynamics(SimpleNamespace(envs=[used]), MujocoConfig(threads=2))
    actions = torch.rand(4, 5, used.action_space.shape[0]) * 2 - 1
    model.rollout(repeated(model, torch.zeros(1, 1), 1, 4), actions)
    for _ in range(3):
        action = alone.action_space.sample()
        np.testing.assert_array_equal(used.step(action)[0], alone.step(action)[0])


def test_rollout_of_an_mbkit_environment_equals_its_steps():
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


@pytest.mark.parametrize(("name", "kwargs"), [("Hopper-v5", {}), ("Ant-v5", {})])
def test_init_rows_repeated_by_an_index_equal_env_step(name, kwargs):
    """Two particles of three environments with two candidates each: every row gives what the environment it belongs to gives."""
    envs, obs = live(name, kwargs, count=3)
    model = MujocoDynamics(SimpleNamespace(envs=envs), MujocoConfig(threads=2))
    actions = torch.rand(12, 2, envs[0].action_space.shape[0]) * 2 - 1
    exact = model.simulate(repeated(model, obs, 2, 2), actions)
    for row, m in enumerate([0, 0, 1, 1, 2, 2] * 2):
        single = MujocoDynamics(SimpleNamespace(envs=[envs[m]]), MujocoConfig(threads=1))
        alone = single.simulate(single.init(obs[m : m + 1]), actions[row : row + 1])
        np.testing.assert_array_equal(exact.obs[row], alone.obs[0])
        np.testing.assert_array_equal(exact.reward[row], alone.reward[0])
    last = envs[2].unwrapped
    for k in range(2):
        after, reward, terminated, *_ = last.step(model.native(actions[10, k]))
        np.testing.assert_array_equal(exact.obs[10, k], after)
        assert (exact.reward[10, k], exact.terminated[10, k]) == (reward, terminated)


def test_open_loop_return_of_several_environments_is_that_of_their_steps():
    envs, obs = live("Hopper-v5", {}, count=2)
    model = MujocoDynamics(SimpleNamespace(envs=envs), MujocoConfig(threads=2))
    actions = 0.1 * torch.rand(2, 3, 4, 3)
    scores = open_loop_return(model, obs, 1)(actions)
    for m in range(2):
        steps = [envs[m].unwrapped.step(model.native(actions[m, 1, k])) for k in range(4)]
        assert not any(terminated for _, _, terminated, *_ in steps)
        torch.testing.assert_close(scores[m, 1], torch.tensor([reward for _, reward, *_ in steps]).sum().float())


def test_init_of_another_number_of_rows_than_environments_is_refused():
    envs, obs = live("Reacher-v5", {}, count=2)
    model = MujocoDynamics(SimpleNamespace(envs=envs), MujocoConfig(threads=1))
    with pytest.raises(UserError, match="got 6 rows of observations; expected one for each of 2 environments"):
        model.init(obs.repeat(3, 1))


def test_mujoco_dynamics_refuses_other_simulators():
    with pytest.raises(UserError, match="CartPoleEnv"):
        MujocoDynamics(SimpleNamespace(envs=[gymnasium.make("CartPole-v1")]))
    with pytest.raises(UserError, match="access"):
        MujocoDynamics(SimpleNamespace(envs=[]))


def test_mujoco_dynamics_is_registered():
    assert dynamics["mujoco"].config is MujocoConfig
