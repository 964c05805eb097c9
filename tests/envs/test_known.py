"""Known rewards and terminations against the environments they describe, over random steps through the scaling to [-1, 1]."""

import gymnasium
import numpy as np
import pytest
import torch

from mbkit.envs import known
from mbkit.errors import UserError

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


def steps(name, kwargs, count):
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
def test_reward(name, kwargs, tolerance):
    reward_fn = known.reward_fn(name, kwargs)
    for rows, reward, _ in steps(name, kwargs, 200):
        assert reward_fn(*rows).item() == pytest.approx(reward, abs=tolerance)
    assert known.why_learned(name, kwargs) == ""


@pytest.mark.parametrize(("name", "kwargs"), ENDINGS)
def test_termination(name, kwargs):
    termination_fn, seen = known.termination_fn(name, kwargs), 0
    for rows, _, terminated in steps(name, kwargs, 400):
        result = termination_fn(*(x.float() for x in rows))
        assert result.dtype == torch.bool
        assert result.item() == terminated
        seen += terminated
    can_end = kwargs.get("terminate_when_unhealthy", True) and name not in ("HalfCheetah-v5", "MountainCarContinuous-v0")
    assert seen > 0 if can_end else seen == 0


def test_hidden_velocity_limits_do_not_end_an_episode_that_goes_on():
    env = gymnasium.make("Hopper-v5").unwrapped
    env.reset(seed=0)
    env.set_state(env.init_qpos, env.init_qvel + np.eye(6)[0] * 50)
    obs, _, terminated, *_ = env.step(np.zeros(3))
    assert not terminated
    assert not known.termination_fn("Hopper-v5")(*(torch.as_tensor(x) for x in (obs, np.zeros(3), obs)))


@pytest.mark.parametrize("name", ["InvertedPendulum-v5", "Hopper-v5", "Ant-v5"])
def test_what_is_not_a_number_terminates(name):
    obs = torch.as_tensor(gymnasium.make(name).reset(seed=0)[0])[None]
    broken = obs.clone()
    broken[0, 3] = torch.nan
    fn = known.termination_fn(name)
    assert not fn(obs, obs, obs)
    assert fn(obs, obs, broken)


@pytest.mark.parametrize(("name", "kwargs", "word"), [
    ("HalfCheetah-v5", {}, "position"),
    ("Hopper-v5", {}, "position"),
    ("HalfCheetah-v5", WITH_X | {"xml_file": "mine.xml"}, "xml_file"),
    ("Ant-v5", WITH_X, "contact"),
    ("Humanoid-v5", {}, "contact"),
    ("Mine-v0", {}, "pkg.mod:fn"),
])  # fmt: skip
def test_a_reward_that_is_learned_says_why(name, kwargs, word):
    assert known.reward_fn(name, kwargs) is None
    assert word in known.why_learned(name, kwargs)
    assert known.why_learned(name, kwargs).endswith(".")


@pytest.mark.parametrize("name", ["cartpole", "reacher", "pusher", "halfcheetah", "mbkit/cartpole-v0"])
def test_benchmarks_never_terminate_and_their_rewards_have_gradients(name):
    task = known.benchmark(name)
    obs, action = torch.zeros(5, 2, task.env.obs_dim), torch.zeros(5, 2, {"cartpole": 1, "halfcheetah": 6}.get(name.split("/")[0], 7))
    action, obs = action[..., : 1 if "cartpole" in name else None].requires_grad_(), obs.requires_grad_()
    known.reward_fn(name)(obs, action, obs).sum().backward()
    assert obs.grad.isfinite().all()
    assert action.grad.isfinite().all()
    ended = known.termination_fn(name)(obs, action, obs)
    assert ended.shape == (5, 2)
    assert not ended.any()


@pytest.mark.parametrize("name", ["Reacher-v5", "Pusher-v5"])
def test_gradients_of_distances_are_finite_at_zero(name):
    obs = torch.zeros(1, 23, requires_grad=True)
    known.reward_fn(name)(obs, torch.zeros(1, 7), obs).sum().backward()
    assert obs.grad.isfinite().all()


def test_no_termination_is_known_for_a_stranger():
    assert known.termination_fn("Mine-v0") is None
    assert known.preprocess("Mine-v0") is None
    assert known.absolute_dims("Mine-v0") == ()


def test_load_fn_finds_a_function_in_the_working_directory(tmp_path, monkeypatch):
    (tmp_path / "my_task_7.py").write_text("def height(obs, action, next_obs):\n    return next_obs[:, 0]\nlimit = 3\n")
    monkeypatch.chdir(tmp_path)
    obs = torch.tensor([[2.0, 1.0]])
    assert known.load_fn("my_task_7:height")(obs, obs, obs) == 2
    with pytest.raises(UserError, match="did you mean 'height'"):
        known.load_fn("my_task_7:heigth")
    with pytest.raises(UserError, match="is a int; expected a function"):
        known.load_fn("my_task_7:limit")


def test_load_fn_names_what_is_missing(tmp_path, monkeypatch):
    (tmp_path / "broken_task_7.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"package\.module:function"):
        known.load_fn("no_colon")
    with pytest.raises(UserError, match="'no_such_module_7'"):
        known.load_fn("no_such_module_7:fn")
    with pytest.raises(UserError, match="ZeroDivisionError"):
        known.load_fn("broken_task_7:fn")


@pytest.mark.parametrize(("kind", "fn", "came"), [
    ("reward", lambda o, a, n: 1 / 0, "ZeroDivisionError: division by zero"),
    ("reward", lambda o, a: o[:, 0], "TypeError"),
    ("reward", lambda o, a, n: n.numpy()[:, 0], "got a numpy.ndarray$"),
    ("reward", lambda o, a, n: 1.0, "got a float$"),
    ("reward", lambda o, a, n: n[:, :1], r"got torch.float32 \[2, 1\]"),
    ("reward", lambda o, a, n: n[:, 0] > 0, r"got torch.bool \[2\]"),
    ("reward", lambda o, a, n: n[:, 0] / 0, "got NaN everywhere on zeros"),
    ("termination", lambda o, a, n: n[:, 0], r"a bool tensor of shape \[2\], got torch.float32 \[2\]"),
    ("termination", lambda o, a, n: (n > 0).any(), r"got torch.bool \[\]"),
])  # fmt: skip
def test_check_fn_says_what_a_users_function_gave(kind, fn, came):
    with pytest.raises(UserError, match=rf"^{kind} pkg.mod:fn of obs \[2, 3\], action \[2, 1\], next_obs \[2, 3\]: expected .*{came}"):
        known.check_fn(fn, "pkg.mod:fn", 3, 1, False, kind)


def test_check_fn_takes_what_is_right():
    known.check_fn(lambda o, a, n: torch.tensor([torch.nan, 0.0]), "m:f", 3, 1, False, "reward")
    known.check_fn(lambda o, a, n: (o * a)[:, 0].double(), "m:f", 3, 1, False, "reward")
    known.check_fn(lambda o, a, n: a == torch.nn.functional.one_hot(a, 2)[:, 1], "m:f", 3, 2, True, "termination")
