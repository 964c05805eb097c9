"""Live MuJoCo environments in the middle of an episode, and the comparison of simulated rows with their steps."""

from types import SimpleNamespace

import gymnasium
import numpy as np
import torch

from mbkit.dynamics.mujoco import MujocoConfig, MujocoDynamics
from mbkit.planning.objective import environment_of_rows, rows_of


def live(name, kwargs, count=2, started=6):
    """Environments in the middle of an episode, and their observations, float32 [M, O]."""
    envs = [gymnasium.make(name, disable_env_checker=True, **kwargs) for _ in range(count)]
    obs = []
    for i, env in enumerate(envs):
        obs.append(env.reset(seed=i)[0])
        env.action_space.seed(i)
        for _ in range(started + i):
            obs[i] = env.step(env.action_space.sample())[0]
    return envs, torch.tensor(np.array(obs), dtype=torch.float32)


def repeated(model, obs, particles, candidates):
    """The carry of a plan: P M N rows, particle-major."""
    return rows_of(model.init(obs), environment_of_rows(len(obs), particles, candidates, obs.device))


def compare(name, kwargs, horizon, expected):
    """Two environments, two particles, three candidates each: one row of each environment is then really stepped."""
    envs, obs = live(name, kwargs)
    model = MujocoDynamics(SimpleNamespace(envs=envs), MujocoConfig(threads=2))
    assert isinstance(model.simulator, expected)
    actions = torch.rand(12, horizon, envs[0].action_space.shape[0], generator=torch.Generator().manual_seed(0)) * 2 - 1
    carry = repeated(model, obs, 2, 3)
    exact, rolled = model.simulate(carry, actions), model.rollout(carry, actions)
    stepped, state = [], carry
    for k in range(horizon):
        stepped.append(model.step(state, actions[:, k]))
        state = stepped[-1].state
    for row, env in ((7, envs[0]), (4, envs[1])):
        for k in range(horizon):
            obs, reward, terminated, *_ = env.unwrapped.step(model.native(actions[row, k]))
            np.testing.assert_array_equal(exact.obs[row, k], obs)
            assert exact.reward[row, k] == reward
            assert exact.terminated[row, k] == terminated
            for result in (rolled.obs[row, k], stepped[k].obs[row]):
                np.testing.assert_array_equal(result, obs.astype(np.float32))
            for result in (rolled.reward[row, k], stepped[k].reward[row]):
                assert result == np.float32(reward)
            assert rolled.terminated[row, k] == stepped[k].terminated[row] == terminated
    model.close()
