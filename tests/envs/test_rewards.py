"""Rewards and terminations against the environments that they describe, over random steps through the scaling to [-1, 1]."""

import gymnasium
import numpy as np
import pytest
import torch

from mbkit.envs import known

WITH_X = {"exclude_current_positions_from_observation": False}
REWARDS = [  # name, env_kwargs, tolerance in float64
    ("InvertedPendulum-v5", {}, 0),
    ("InvertedDoublePendulum-v5", {}, 1e-4),
    ("InvertedDoublePendulum-v5", {"healthy_reward": 3.0}, 1e-4),
    ("Hopper-v5", WITH_X, 1e-6),
    ("Hopper-v5", WITH_X | {"healthy_reward": 2.0, "ctrl_cost_weight": 0.2, "terminate_when_unhealthy": False}, 1e-6),
    ("Walker2d-v5", WITH_X | {"forward_reward_weight": 3.0, "frame_skip": 2}, 1e-6),
    ("HalfCheetah-v5", WITH_X, 1e-6),
    ("HalfCheetah-v5", WITH_X | {"ctrl_cost_weight": 1.0}, 1e-5),
    ("Swimmer-v5", WITH_X, 1e-6),
    ("Reacher-v5", {}, 1e-6),
    ("Reacher-v5", {"reward_dist_weight": 2.0, "reward_control_weight": 0.5}, 1e-6),
    ("Pusher-v5", {}, 1e-6),
    ("Pusher-v5", {"reward_near_weight": 0.1, "reward_dist_weight": 2.0, "reward_control_weight": 0.3}, 1e-5),
    ("Pendulum-v1", {}, 1e-5),
    ("CartPole-v1", {}, 0),
    ("CartPole-v1", {"sutton_barto_reward": True}, 0),
    ("MountainCarContinuous-v0", {}, 1e-6),
    ("MountainCar-v0", {}, 0),
]
ENDINGS = [
    ("InvertedPendulum-v5", {}),
    ("InvertedDoublePendulum-v5", {}),
    ("Hopper-v5", {}),
    ("Hopper-v5", WITH_X | {"healthy_z_range": (1.1, 1.3), "healthy_state_range": (-4.0, 4.0)}),
    ("Walker2d-v5", {"healthy_angle_range": (-0.3, 0.3)}),
    ("Walker2d-v5", {"terminate_when_unhealthy": False}),
    ("Ant-v5", {}),
    ("Ant-v5", WITH_X | {"healthy_z_range": (0.4, 0.8), "include_cfrc_ext_in_observation": False}),
    ("Humanoid-v5", {}),
    ("Humanoid-v5", WITH_X | {"healthy_z_range": (1.2, 2.0)}),
    ("HalfCheetah-v5", {}),
    ("CartPole-v1", {}),
    ("MountainCarContinuous-v0", {}),
]


def random_steps(name, kwargs, count):
    """Random steps as (obs, scaled action, next_obs) in float64, reward, terminated."""
    env = gymnasium.make(name, disable_env_checker=True, **kwargs)
    env.action_space.seed(0)
    obs, _ = env.reset(seed=0)
    for _ in range(count):
        action = env.action_space.sample()
        next_obs, reward, terminated, truncated, _ = env.step(action)
        scaled = action / getattr(env.action_space, "high", 1)
        yield tuple(torch.as_tensor(x, dtype=torch.float64) for x in (obs, scaled, next_obs)), float(reward), terminated
        obs = env.reset()[0] if terminated or truncated else next_obs
    env.close()


@pytest.mark.parametrize(("name", "kwargs", "tolerance"), REWARDS)
def test_reward_equals_the_environments(name, kwargs, tolerance):
    reward_fn = known.reward_fn(name, kwargs)
    for rows, reward, _ in random_steps(name, kwargs, 200):
        assert reward_fn(*rows).item() == pytest.approx(reward, abs=tolerance)
    assert known.why_learned(name, kwargs) == ""


@pytest.mark.parametrize(("name", "kwargs"), ENDINGS)
def test_termination_equals_the_environments(name, kwargs):
    termination_fn, terminations = known.termination_fn(name, kwargs), 0
    for rows, _, terminated in random_steps(name, kwargs, 400):
        result = termination_fn(*(x.float() for x in rows))
        assert result.dtype == torch.bool
        assert result.item() == terminated
        terminations += terminated
    can_end = kwargs.get("terminate_when_unhealthy", True) and name not in ("HalfCheetah-v5", "MountainCarContinuous-v0")
    assert terminations > 0 if can_end else terminations == 0


def test_hopper_healthy_velocity_limits_beyond_the_clipping_do_not_terminate():
    env = gymnasium.make("Hopper-v5").unwrapped
    env.reset(seed=0)
    env.set_state(env.init_qpos, env.init_qvel + np.eye(6)[0] * 50)
    obs, _, terminated, *_ = env.step(np.zeros(3))
    assert not terminated
    assert not known.termination_fn("Hopper-v5")(*(torch.as_tensor(x) for x in (obs, np.zeros(3), obs)))


@pytest.mark.parametrize("name", ["InvertedPendulum-v5", "Hopper-v5", "Ant-v5"])
def test_termination_nan_terminates(name):
    obs = torch.as_tensor(gymnasium.make(name).reset(seed=0)[0])[None]
    broken = obs.clone()
    broken[0, 3] = torch.nan
    fn = known.termination_fn(name)
    assert not fn(obs, obs, obs)
    assert fn(obs, obs, broken)


@pytest.mark.parametrize("name", ["Reacher-v5", "Pusher-v5"])
def test_reward_of_distances_has_finite_gradients_at_zero(name):
    obs = torch.zeros(1, 23, requires_grad=True)
    known.reward_fn(name)(obs, torch.zeros(1, 7), obs).sum().backward()
    assert obs.grad.isfinite().all()


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("Hopper-v5", {}),
        ("Hopper-v5", WITH_X | {"healthy_reward": 2.0, "ctrl_cost_weight": 0.2}),
        ("Hopper-v5", {"terminate_when_unhealthy": False}),
        ("Walker2d-v5", {"healthy_angle_range": (-0.3, 0.3)}),
        ("HalfCheetah-v5", {}),
        ("Swimmer-v5", {"ctrl_cost_weight": 0.1}),
        ("Ant-v5", {}),
        ("Ant-v5", {"healthy_z_range": (0.4, 0.8), "healthy_reward": 3.0}),
        ("Humanoid-v5", {}),
        ("Humanoid-v5", {"ctrl_cost_weight": 1.0}),
    ],
)
def test_reward_part_is_control_cost_and_healthy_bonus(name, kwargs):
    """As the environment itself tells them, also in rows where the body falls."""
    part, bonuses = known.reward_part(name, kwargs), set()
    env = gymnasium.make(name, disable_env_checker=True, **kwargs)
    env.action_space.seed(0)
    obs, _ = env.reset(seed=0)
    for _ in range(300):
        action = env.action_space.sample()
        next_obs, _, terminated, truncated, info = env.step(action)
        rows = (torch.as_tensor(x, dtype=torch.float64) for x in (obs, action / env.action_space.high, next_obs))
        assert part(*rows).item() == pytest.approx(info["reward_ctrl"] + info.get("reward_survive", 0.0), abs=1e-5)
        bonuses.add(float(info.get("reward_survive", 0.0)))
        obs = env.reset()[0] if terminated or truncated else next_obs
    env.close()
    assert len(bonuses) == (1 if name.startswith(("HalfCheetah", "Swimmer")) else 2)


def test_reward_part_of_other_tasks_is_none():
    assert known.reward_part("Pendulum-v1") is None
    assert known.reward_part("cartpole") is None
    assert known.reward_part("Mine-v0") is None
