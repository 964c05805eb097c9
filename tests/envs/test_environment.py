"""Rows against a brute-force rollout in every autoreset mode; seeds, numbers at the boundary, names and arguments refused."""

import os
import subprocess
import sys

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import mbkit.envs
from mbkit.envs.environment import Environment, single
from mbkit.errors import UserError

UNIT = spaces.Box(-1, 1, (1,))


class Counter(gymnasium.Env):
    """Counts its steps; every row tells which episode, which step, which action. Terminates at step `length`, also cuts at step `cut`."""

    observation_space = spaces.Box(-np.inf, np.inf, (3,), np.float64)

    def __init__(self, index: int = 0, length: int = 3, cut: int = 4, dictionary: bool = False) -> None:
        self.index, self.length, self.cut, self.episode, self.count = index, length, cut, 0, 0
        self.action_space = spaces.Box(-1, 1, (1,))
        self.dictionary = dictionary
        if dictionary:
            self.observation_space = spaces.Dict({"who": spaces.Discrete(4), "what": Counter.observation_space})

    def _obs(self, action: float) -> object:
        what = np.array([self.episode, self.count, action])
        return {"who": self.index, "what": what} if self.dictionary else what

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple:
        super().reset(seed=seed)
        self.episode, self.count = self.episode + 1, 0
        return self._obs(self.np_random.random()), {}

    def step(self, action: np.ndarray) -> tuple:
        self.count += 1
        terminated, truncated = self.count == self.length + self.episode % 2, self.count == self.cut
        return self._obs(action[0]), 10 * self.episode + self.count, terminated, truncated, {}


def counters(m: int, dictionary: bool) -> list[gymnasium.Env]:
    return [Counter(i, length=2 + i, dictionary=dictionary) for i in range(m)]


def vectorised(m: int, mode: AutoresetMode, dictionary: bool = False) -> Environment:
    return mbkit.envs.wrap(SyncVectorEnv([lambda env=env: env for env in counters(m, dictionary)], autoreset_mode=mode))


def policy(obs: Tensor) -> Tensor:
    """Actions that depend on all that was observed, so that a wrong `obs` shows in the rows."""
    return torch.sin(obs.sum(1, keepdim=True))


def rows_of(environment: Environment, steps: int) -> list[list[list[float]]]:
    """Valid rows of each environment, in order: obs, action, reward, next_obs, terminated, truncated."""
    obs = environment.reset()
    rows: list[list[list[float]]] = [[] for _ in range(environment.num_envs)]
    for _ in range(steps):
        action = policy(obs)
        out = environment.step(action)
        table = torch.cat([obs, action, out.reward[:, None], out.next_obs, out.terminated[:, None], out.truncated[:, None]], 1)
        for i, row in enumerate(table.tolist()):
            if environment.valid[i]:
                rows[i].append(row)
        obs = out.obs
        assert environment.obs is obs
    return rows


def brute_force(env: gymnasium.Env, seed: int, steps: int) -> list[list[float]]:
    """The same rows from one environment, stepped by hand."""
    rows, obs = [], None
    for _ in range(steps):
        if obs is None:
            obs, seed = torch.tensor(env.reset(seed=seed)[0], dtype=torch.float32), None
        action = policy(obs[None])[0]
        raw, reward, terminated, truncated, _ = env.step(action.numpy())
        successor = torch.tensor(raw, dtype=torch.float32)
        rows.append([*obs.tolist(), *action.tolist(), reward, *successor.tolist(), terminated, truncated and not terminated])
        obs = None if terminated or truncated else successor
    return rows


@settings(max_examples=20, deadline=None)
@given(m=st.integers(1, 4), steps=st.integers(1, 25), dictionary=st.booleans())
def test_every_autoreset_mode_yields_the_rows_of_one_environment_by_hand(m: int, steps: int, dictionary: bool) -> None:
    own = rows_of(single("counter", counters(m, dictionary), 0), steps)
    if not dictionary:
        assert own == [brute_force(env, i, steps) for i, env in enumerate(counters(m, False))]
    assert rows_of(vectorised(m, AutoresetMode.SAME_STEP, dictionary), steps) == own
    assert rows_of(vectorised(m, AutoresetMode.DISABLED, dictionary), steps) == own
    later = rows_of(vectorised(m, AutoresetMode.NEXT_STEP, dictionary), 2 * steps)
    assert [rows[:steps] for rows in later] == own


def test_a_next_step_reset_row_is_marked_and_carries_the_reset_observation() -> None:
    environment = vectorised(1, AutoresetMode.NEXT_STEP)
    environment.reset()
    ended = [environment.step(torch.zeros(1, 1)) for _ in range(3)][-1]
    assert ended.terminated.item()
    out = environment.step(torch.zeros(1, 1))
    assert not environment.valid.item()
    assert out.obs[0, :2].tolist() == [2, 0]
    environment.step(torch.zeros(1, 1))
    assert environment.valid.item()


def test_terminated_wins_where_both_are_set() -> None:
    environment = single("counter", [Counter(length=3, cut=4)], 0)
    environment.reset()
    steps = [environment.step(torch.zeros(1, 1)) for _ in range(4)]
    assert (steps[-1].terminated.item(), steps[-1].truncated.item()) == (True, False)
    cut = [environment.step(torch.zeros(1, 1)) for _ in range(3)]
    assert cut[-1].terminated.item()


def test_a_one_step_cut_is_truncation_with_the_true_successor() -> None:
    cut, uncut = (mbkit.envs.make("Pendulum-v1", env_kwargs=kwargs) for kwargs in ({"max_episode_steps": 1}, {}))
    assert torch.equal(cut.reset(), uncut.reset())
    out = cut.step(torch.zeros(1, 1))
    assert (out.truncated.item(), out.terminated.item()) == (True, False)
    assert torch.equal(out.next_obs, uncut.step(torch.zeros(1, 1)).next_obs)
    assert not torch.equal(out.obs, out.next_obs)


def test_a_vector_entry_point_of_its_own_is_accepted() -> None:
    environment = mbkit.envs.wrap(gymnasium.make_vec("CartPole-v1", num_envs=3))
    assert environment.spec.discrete
    assert environment.envs == []
    environment.reset(seed=0)
    ended = invalid = 0
    for _ in range(60):
        out = environment.step(torch.ones(3, dtype=torch.int64))
        invalid += int((~environment.valid).sum())
        ended += int(out.terminated.sum())
        assert not (out.terminated & ~environment.valid).any()
    assert ended > 3
    assert ended - 3 <= invalid <= ended


def test_environments_in_other_processes_yield_the_same_rows() -> None:
    make = [lambda i=i: Counter(i, length=2 + i) for i in range(2)]
    environment = mbkit.envs.wrap(AsyncVectorEnv(make, autoreset_mode=AutoresetMode.SAME_STEP))
    assert rows_of(environment, 9) == rows_of(single("counter", counters(2, False), 0), 9)
    assert "_state" in (environment.restart_reason or "") or "cannot be saved" in (environment.restart_reason or "")
    environment.close()


def test_environment_i_is_seeded_with_seed_plus_i_and_later_resets_go_on() -> None:
    environment = mbkit.envs.make("Hopper-v5", seed=7, num_envs=3)
    first = environment.reset()
    for i in range(3):
        obs, _ = gymnasium.make("Hopper-v5").reset(seed=7 + i)
        assert torch.equal(first[i], torch.tensor(obs, dtype=torch.float32))
    assert not torch.equal(environment.reset(), first)
    assert torch.equal(environment.reset(seed=7), first)


@pytest.mark.parametrize("name", ["InvertedPendulum-v5", "CartPole-v1", "HalfCheetah-v5"])
def test_the_boundary_is_float32_whatever_comes_inside(name: str) -> None:
    environment = mbkit.envs.make(name, num_envs=2)
    assert environment.reset().dtype == torch.float32
    m, a = 2, environment.spec.action_dim
    out = environment.step(torch.zeros(m, dtype=torch.int64) if environment.spec.discrete else torch.zeros(m, a))
    assert [x.dtype for x in out] == [torch.float32, torch.float32, torch.float32, torch.bool, torch.bool]
    assert out.reward.shape == (m,)
    assert out.next_obs.shape == (m, environment.spec.obs_dim)


def test_what_is_known_of_a_task() -> None:
    cheetah, cartpole = mbkit.envs.make("HalfCheetah-v5"), mbkit.envs.make("CartPole-v1")
    assert (cheetah.spec.obs_dim, cheetah.spec.action_dim, cheetah.max_episode_steps) == (17, 6, 1000)
    assert cheetah.dt == pytest.approx(0.05)
    assert (cartpole.spec.action_dim, cartpole.spec.discrete, cartpole.dt) == (2, True, 0.02)


def test_steps_are_those_of_gymnasium_to_the_last_digit() -> None:
    environment, bare = mbkit.envs.make("Humanoid-v5", seed=3), gymnasium.make("Humanoid-v5")
    environment.reset()
    bare.reset(seed=3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(10):
        action = torch.rand(1, 17, generator=generator) * 2 - 1
        obs, reward, _, _, _ = bare.step(environment.native_action(action)[0])
        out = environment.step(action)
        assert torch.equal(out.next_obs[0], torch.tensor(obs, dtype=torch.float32))
        assert out.reward.item() == np.float32(reward)
        assert np.allclose(environment.native_action(action)[0], 0.4 * action[0].numpy(), rtol=1e-6)


class Broken(Counter):
    """Fails in its second step, or on reset, as it is told."""

    def __init__(self, what: str) -> None:
        super().__init__(length=1 if what == "reset" else 9)
        self.what = what

    def reset(self, **kwargs: object) -> tuple:
        obs, info = super().reset()
        return (obs * np.nan if self.what == "reset" and self.episode == 2 else obs), info

    def step(self, action: np.ndarray) -> tuple:
        obs, reward, terminated, truncated, info = super().step(action)
        broken = self.what if self.count == 2 else None
        return (obs * np.nan if broken == "observation" else obs), (np.inf if broken == "reward" else reward), terminated, truncated, info


@pytest.mark.parametrize(("what", "came"), [("observation", "nan"), ("reward", "inf"), ("reset", "nan")])
def test_a_number_that_is_not_finite_is_named_with_environment_and_step(what: str, came: str) -> None:
    environment = single("broken", [Counter(length=9), Broken(what)], 0)
    environment.reset()
    kind = "observation" if what == "reset" else what
    environment.step(torch.zeros(2, 1))
    with pytest.raises(UserError, match=rf"{kind} of broken \(environment 1\) .*at step 2: expected finite numbers, got .*{came}"):
        environment.step(torch.zeros(2, 1))


@pytest.mark.parametrize(
    ("name", "arguments", "sentence"),
    [
        ("HalfCheeta-v5", {}, "unknown environment 'HalfCheeta-v5'; did you mean 'HalfCheetah-v5'"),
        ("HalfCheetah-v9", {}, "did you mean 'HalfCheetah-v5'"),
        ("cartpol", {}, "did you mean 'cartpole'"),
        ("Hopper-v3", {}, "environment 'Hopper-v3' cannot be made"),
        ("no_such_module_here:Thing-v0", {}, "module 'no_such_module_here' cannot be imported"),
        ("Hopper-v5", {"healthy_rewrd": 1}, "'Hopper-v5' has no argument 'healthy_rewrd'; did you mean 'healthy_reward'"),
        ("Pendulum-v1", {"gravity": 1}, "'Pendulum-v1' has no argument 'gravity'"),
        ("Hopper-v5", {"healthy_reward": "much"}, "env_kwargs.healthy_reward of Hopper-v5: expected a value like 1.0, got 'much'"),
        ("Hopper-v5", {"frame_skip": 2.5}, "env_kwargs.frame_skip of Hopper-v5: expected a value like 4, got 2.5"),
        ("Hopper-v5", {"terminate_when_unhealthy": 1}, "env_kwargs.terminate_when_unhealthy"),
        ("Hopper-v5", {"healthy_z_range": [0.7]}, "env_kwargs.healthy_z_range of Hopper-v5: expected 2 numbers"),
        ("Hopper-v5", {"healthy_z_range": [0.7, "x"]}, "env_kwargs.healthy_z_range of Hopper-v5: expected a value like inf, got 'x'"),
        ("Hopper-v5", {"max_episode_steps": 0}, "env_kwargs.max_episode_steps of Hopper-v5: expected an integer of at least 1, got 0"),
        ("Hopper-v5", {"xml_file": "./nowhere.xml"}, "with env_kwargs xml_file: .*nowhere.xml"),
    ],
)
def test_names_and_arguments_refused(name: str, arguments: dict, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        mbkit.envs.make(name, env_kwargs=arguments)


def test_arguments_reach_the_task_and_its_bases() -> None:
    environment = mbkit.envs.make("Ant-v5", env_kwargs={"include_cfrc_ext_in_observation": False, "healthy_z_range": [0.1, 2], "width": 64})
    assert environment.spec.obs_dim == 27
    assert environment.envs[0].unwrapped.width == 64


def test_dm_control_without_its_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dm_control.suite", None)
    with pytest.raises(UserError, match=r'needs dm_control: pip install "mbkit\[dmc\]"'):
        mbkit.envs.make("dm_control/cheetah-run-v0")


def test_a_wrong_number_of_environments_or_actions_is_refused() -> None:
    with pytest.raises(UserError, match="num_envs of Hopper-v5: expected at least 1, got 0"):
        mbkit.envs.make("Hopper-v5", num_envs=0)
    environment = mbkit.envs.make("Hopper-v5")
    environment.reset()
    with pytest.raises(UserError, match=r"action for Hopper-v5: expected shape \(1, 3\), got \(3,\)"):
        environment.step(torch.zeros(3))


def test_wrap_refuses_what_it_cannot_read() -> None:
    with pytest.raises(UserError, match=r"expected a gymnasium.vector.VectorEnv, got Counter"):
        mbkit.envs.wrap(Counter())
    vector = SyncVectorEnv([Counter])
    vector.metadata = {}
    with pytest.raises(UserError, match=r"metadata\['autoreset_mode'\] of vector environment SyncVectorEnv: expected one of .*, got None"):
        mbkit.envs.wrap(vector)


def test_a_picture_needs_no_setting_and_its_absence_has_a_type_of_its_own() -> None:
    """In processes of their own: MUJOCO_GL and the EGL device (there is no number 99) are read once."""
    code = (
        "import mbkit.envs\n"
        "environment = mbkit.envs.make('InvertedPendulum-v5', render_mode='rgb_array', env_kwargs={'width': 32, 'height': 24})\n"
        "environment.reset()\n"
        "try:\n"
        "    print(environment.render().shape)\n"
        "except mbkit.envs.NoRenderer as error:\n"
        "    print('none:', error)\n"
    )
    clean = {key: value for key, value in os.environ.items() if key not in ("MUJOCO_GL", "DISPLAY", "WAYLAND_DISPLAY")}
    none = "none: InvertedPendulum-v5 cannot be rendered on this machine"
    for setting, expected in (({}, ("(24, 32, 3)", none)), ({"MUJOCO_EGL_DEVICE_ID": "99"}, (none,))):
        done = subprocess.run([sys.executable, "-c", code], env=clean | setting, capture_output=True, text=True, timeout=60)
        assert done.stdout.startswith(expected), done.stderr


def test_a_graphics_setting_mujoco_rejects_is_named() -> None:
    code = "import mbkit.envs\ntry:\n    mbkit.envs.make('Hopper-v5')\nexcept mbkit.errors.UserError as error:\n    print(error)\n"
    wrong = os.environ | {"MUJOCO_GL": "crayon"}
    done = subprocess.run([sys.executable, "-c", code], env=wrong, capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("MuJoCo cannot be imported with MUJOCO_GL='crayon'"), done.stderr


def test_rendering_without_a_mode_is_refused() -> None:
    environment = mbkit.envs.make("InvertedPendulum-v5")
    environment.reset()
    with pytest.raises(mbkit.envs.NoRenderer, match="expected render_mode='rgb_array', got None"):
        environment.render()
