"""The PETS tasks: their layouts, physics and rewards against MuJoCo itself."""

import gymnasium
import mujoco
import numpy as np
import pytest
import torch

from mbkit.envs import known
from mbkit.envs.benchmarks import TASKS, arm, cartpole

LAYOUT = {  # name: observation, action, horizon, seconds per action, action bound, model input
    "cartpole": (4, 1, 200, 0.04, 3, 5),
    "reacher": (17, 7, 150, 0.02, 20, 17),
    "pusher": (20, 7, 150, 0.04, 2, 20),
    "halfcheetah": (18, 6, 1000, 0.05, 1, 18),
}


def make(name):
    env = gymnasium.make(f"mbkit/{name}-v0")
    env.reset(seed=0)
    env.action_space.seed(0)
    return env


@pytest.mark.parametrize("name", TASKS)
def test_benchmark_layout_is_the_papers(name):
    obs_dim, action_dim, horizon, seconds, bound, inputs = LAYOUT[name]
    env = make(name)
    assert env.observation_space.shape == (obs_dim,)
    assert env.action_space.shape == (action_dim,)
    assert env.spec.max_episode_steps == TASKS[name].horizon == horizon
    assert env.unwrapped.dt == pytest.approx(seconds)
    assert env.metadata["render_fps"] == round(1 / seconds)
    np.testing.assert_array_equal(env.action_space.high, bound)
    assert TASKS[name].action_high == bound
    obs = torch.randn(3, 2, obs_dim)
    process = known.preprocess(name)
    assert (process(obs) if process else obs).shape == (3, 2, inputs)


@pytest.mark.parametrize("name", TASKS)
def test_benchmark_episode_does_not_terminate_and_repeats_with_its_seed(name):
    env, horizon = make(name), 60
    actions = [env.action_space.sample() for _ in range(horizon)]
    first = [env.step(a) for a in actions]
    assert not any(terminated or truncated for _, _, terminated, truncated, _ in first)
    env.reset(seed=0)
    for (obs, reward, *_), action in zip(first, actions, strict=True):
        again = env.step(action)
        np.testing.assert_array_equal(obs, again[0])
        assert reward == again[1]
    assert not env.unwrapped.data.warning.number.any()


@pytest.mark.parametrize("name", TASKS)
def test_benchmark_known_reward_equals_the_environments(name):
    env, reward_fn = make(name), known.reward_fn(name)
    obs, _ = env.reset(seed=1)
    for _ in range(100):
        action = env.action_space.sample()
        next_obs, reward, *_ = env.step(action)
        scaled = torch.as_tensor(action / env.action_space.high)
        rows = [torch.as_tensor(x, dtype=torch.float32).expand(2, 3, -1) for x in (obs, scaled, next_obs)]
        result = reward_fn(*rows)
        assert result.shape == (2, 3)
        torch.testing.assert_close(result, torch.full_like(result, reward), atol=1e-5, rtol=1e-5)
        obs = next_obs


def test_cartpole_starts_hanging_and_is_rewarded_for_standing():
    env = make("cartpole")
    assert abs(env.reset(seed=3)[0][1]) < 0.6
    assert env.unwrapped.reset_model().shape == (4,)
    standing, hanging = torch.tensor([0.0, torch.pi, 0, 0]), torch.zeros(4)
    reward = known.reward_fn("cartpole")
    assert reward(hanging, torch.zeros(1), standing) == pytest.approx(1, abs=1e-6)
    assert reward(hanging, torch.ones(1), standing) == pytest.approx(1 - 0.01 * 3**2, abs=1e-6)
    assert reward(hanging, torch.zeros(1), hanging) == pytest.approx(np.exp(-4), abs=1e-6)


def test_cartpole_tip_equals_mujocos_position():
    env = make("cartpole").unwrapped
    for _ in range(20):
        obs = env.step(env.action_space.sample())[0]
    mujoco.mj_forward(env.model, env.data)
    x, z = cartpole.tip(torch.as_tensor(obs))
    place = env.data.geom("tip").xpos
    assert (x.item(), z.item()) == pytest.approx((place[0], place[2]), abs=1e-12)


def test_arm_hand_equals_mujocos_position():
    env = make("pusher").unwrapped
    for _ in range(50):
        obs = env.step(env.action_space.sample())[0]
    mujoco.mj_forward(env.model, env.data)
    wrist = env.data.body("r_wrist_roll_link")
    qpos = torch.tensor(env.data.qpos)
    np.testing.assert_allclose(arm.hand(qpos), env.data.body("tips_arm").xpos, atol=1e-12)
    np.testing.assert_allclose(arm.hand(qpos, 0.1), wrist.xpos + wrist.xmat.reshape(3, 3) @ [0.1, 0, 0], atol=1e-12)
    np.testing.assert_allclose(obs[17:], env.data.body("object").xpos, atol=1e-12)
    np.testing.assert_allclose(env.data.body("goal").xpos, (0.45, -0.05, -0.323), atol=1e-12)


def test_reacher_goal_stays_and_differs_between_episodes():
    env = make("reacher")
    first = env.reset(seed=1)[0][14:]
    for _ in range(150):
        last = env.step(env.action_space.sample())[0][14:]
    np.testing.assert_array_equal(first, last)
    assert not np.array_equal(first, env.reset(seed=2)[0][14:])
    assert np.abs(env.unwrapped.data.qpos[:7]).max() == 0


def test_halfcheetah_equals_gymnasiums_with_its_speed_in_front():
    env, original = make("halfcheetah").unwrapped, gymnasium.make("HalfCheetah-v5").unwrapped
    np.testing.assert_array_equal(env.model.body_mass, original.model.body_mass)
    np.testing.assert_array_equal(env.model.body_inertia, original.model.body_inertia)
    original.reset(seed=0)
    original.set_state(env.data.qpos, env.data.qvel)
    env.set_state(env.data.qpos.copy(), env.data.qvel.copy())
    for _ in range(30):
        action = env.action_space.sample()
        obs, reward, *_ = env.step(action)
        expected, original_reward, _, _, info = original.step(action)
        np.testing.assert_allclose(obs[1:], expected, atol=1e-9)
        assert obs[0] == pytest.approx(info["x_velocity"], abs=1e-9)
        assert reward == pytest.approx(original_reward, abs=1e-6)  # both pay for speed and 0.1 |a|^2
    assert known.absolute_dims("halfcheetah") == (0,)


def test_preprocess_is_the_papers():
    obs = torch.arange(4.0)
    torch.testing.assert_close(known.preprocess("cartpole")(obs), torch.tensor([np.sin(1.0), np.cos(1.0), 0, 2, 3], dtype=torch.float32))
    obs = torch.arange(18.0)
    expected = torch.cat([torch.tensor([1.0, np.sin(2.0), np.cos(2.0)], dtype=torch.float32), torch.arange(3.0, 18.0)])
    torch.testing.assert_close(known.preprocess("halfcheetah")(obs), expected)
    assert known.preprocess("reacher") is None
