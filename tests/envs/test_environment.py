"""Environments: seeds, numbers and shapes at the boundary, a user's vector environments, rendering."""

import os
import subprocess
import sys

import gymnasium
import numpy as np
import pytest
import torch
from gym_toys import ScriptedEnv, StepCounter
from gymnasium import spaces
from gymnasium.vector import SyncVectorEnv

import mbkit.envs
from mbkit.envs.environment import single
from mbkit.errors import UserError


def test_environment_step_terminated_wins_over_truncated() -> None:
    environment = single("counter", [StepCounter(length=3, cut=4)], 0)
    environment.reset()
    steps = [environment.step(torch.zeros(1, 1)) for _ in range(4)]
    assert (steps[-1].terminated.item(), steps[-1].truncated.item()) == (True, False)
    cut = [environment.step(torch.zeros(1, 1)) for _ in range(3)]
    assert cut[-1].terminated.item()


def test_environment_step_time_limit_truncates_with_the_true_successor() -> None:
    cut, uncut = (mbkit.envs.make("Pendulum-v1", env_kwargs=kwargs) for kwargs in ({"max_episode_steps": 1}, {}))
    assert torch.equal(cut.reset(), uncut.reset())
    out = cut.step(torch.zeros(1, 1))
    assert (out.truncated.item(), out.terminated.item()) == (True, False)
    assert torch.equal(out.next_obs, uncut.step(torch.zeros(1, 1)).next_obs)
    assert not torch.equal(out.obs, out.next_obs)


def test_environment_reset_seeds_environment_i_with_seed_plus_i() -> None:
    environment = mbkit.envs.make("Hopper-v5", seed=7, num_envs=3)
    first = environment.reset()
    for i in range(3):
        obs, _ = gymnasium.make("Hopper-v5").reset(seed=7 + i)
        assert torch.equal(first[i], torch.tensor(obs, dtype=torch.float32))
    assert not torch.equal(environment.reset(), first)
    assert torch.equal(environment.reset(seed=7), first)


@pytest.mark.parametrize("name", ["InvertedPendulum-v5", "CartPole-v1", "HalfCheetah-v5"])
def test_environment_outputs_are_float32(name: str) -> None:
    environment = mbkit.envs.make(name, num_envs=2)
    assert environment.reset().dtype == torch.float32
    m, a = 2, environment.spec.action_dim
    out = environment.step(torch.zeros(m, dtype=torch.int64) if environment.spec.discrete else torch.zeros(m, a))
    assert [x.dtype for x in out] == [torch.float32, torch.float32, torch.float32, torch.bool, torch.bool]
    assert out.reward.shape == (m,)
    assert out.next_obs.shape == (m, environment.spec.obs_dim)


def test_environment_has_dimensions_time_step_and_limit_of_the_task() -> None:
    cheetah, cartpole = mbkit.envs.make("HalfCheetah-v5"), mbkit.envs.make("CartPole-v1")
    assert (cheetah.spec.obs_dim, cheetah.spec.action_dim, cheetah.max_episode_steps) == (17, 6, 1000)
    assert cheetah.dt == pytest.approx(0.05)
    assert (cartpole.spec.action_dim, cartpole.spec.discrete, cartpole.dt) == (2, True, 0.02)


def test_environment_step_equals_gymnasium_to_the_last_digit() -> None:
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


class Broken(StepCounter):
    """Returns a number that is not finite in its second step, or on its second reset."""

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


@pytest.mark.parametrize(("what", "value"), [("observation", "nan"), ("reward", "inf"), ("reset", "nan")])
def test_environment_step_non_finite_number_is_named_with_environment_and_step(what: str, value: str) -> None:
    environment = single("broken", [StepCounter(length=9), Broken(what)], 0)
    environment.reset()
    kind = "observation" if what == "reset" else what
    environment.step(torch.zeros(2, 1))
    with pytest.raises(UserError, match=rf"{kind} of broken \(environment 1\) .*at step 2: expected finite numbers, got .*{value}"):
        environment.step(torch.zeros(2, 1))


BOX = r"observation of toy \(environment 1\) (on reset|at step 1): expected shape \(3,\) as in its observation space, got "


@pytest.mark.parametrize(
    ("observed", "outline"),
    [
        (np.zeros(2), r"shape \(2,\)"),
        (np.zeros(1), r"shape \(1,\)"),
        (np.zeros((1, 3)), r"shape \(1, 3\)"),
        (0.5, r"0\.5"),
        (None, "None"),
        ([0.0, [1.0]], r"\[0\.0, \[1\.0\]\]"),
    ],
)
@pytest.mark.parametrize("when", ["reset", "step"])
def test_environment_observation_of_another_shape_than_its_space_is_named(observed: object, outline: str, when: str) -> None:
    toy = ScriptedEnv()
    toy.script = (observed,) if when == "reset" else (np.zeros(3), observed)
    environment = single("toy", [ScriptedEnv(), toy], 0)
    if when == "step":
        environment.reset()
    with pytest.raises(UserError, match=BOX + outline):
        environment.reset() if when == "reset" else environment.step(torch.zeros(2, 1))


@pytest.mark.parametrize("observed", [{"a": np.zeros(3)}, {"a": np.zeros(2), "b": 0}, np.zeros(5), {"a": np.zeros(3), "b": 7}])
def test_environment_part_of_an_observation_of_another_shape_is_named(observed: object) -> None:
    toy = ScriptedEnv()
    toy.observation_space, toy.script = spaces.Dict({"a": ScriptedEnv.observation_space, "b": spaces.Discrete(2)}), (observed,)
    with pytest.raises(UserError, match=r"observation of toy \(environment 0\) on reset: expected Dict\(.*, got .*"):
        single("toy", [toy], 0).reset()


def test_environment_step_action_of_another_shape_is_refused() -> None:
    environment = mbkit.envs.make("Hopper-v5")
    environment.reset()
    with pytest.raises(UserError, match=r"action for Hopper-v5: expected shape \(1, 3\), got \(3,\)"):
        environment.step(torch.zeros(3))


def test_wrap_vector_entry_point_without_single_environments_is_accepted() -> None:
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


@pytest.mark.parametrize("name", ["Steering-v0", "SteeringBox-v0"])
def test_wrap_several_discrete_actions_step_as_single_environments_do(name: str) -> None:
    vector, single_envs = (
        mbkit.envs.wrap(gymnasium.make_vec(name, 2, vectorization_mode="sync"), seed=3),
        mbkit.envs.make(name, seed=3, num_envs=2),
    )
    assert vector.spec == single_envs.spec
    assert vector.spec.parts == (3, 2)
    assert torch.equal(vector.reset(), single_envs.reset())
    action = torch.tensor([[0, 1], [2, 0]])
    one, other = vector.step(action), single_envs.step(action)
    assert torch.equal(one.next_obs, other.next_obs)
    assert torch.equal(one.reward, other.reward)
    with pytest.raises(UserError, match=r"expected shape \(2, 2\), got \(2,\)"):
        vector.step(torch.tensor([0, 1]))


def test_wrap_refuses_other_objects_and_unknown_autoreset_modes() -> None:
    with pytest.raises(UserError, match=r"expected a gymnasium.vector.VectorEnv, got StepCounter"):
        mbkit.envs.wrap(StepCounter())
    vector = SyncVectorEnv([StepCounter])
    vector.metadata = {}
    with pytest.raises(UserError, match=r"metadata\['autoreset_mode'\] of vector environment SyncVectorEnv: expected one of .*, got None"):
        mbkit.envs.wrap(vector)


def test_wrap_observation_of_another_shape_than_its_space_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    vector = SyncVectorEnv([ScriptedEnv, ScriptedEnv])
    monkeypatch.setattr(vector, "reset", lambda **_: (np.zeros((2, 4)), {}))
    with pytest.raises(UserError, match=r"observation of SyncVectorEnv on reset: expected shape \(2, 3\) .*, got shape \(2, 4\)"):
        mbkit.envs.wrap(vector).reset()


def test_environment_render_works_without_settings_or_raises_no_renderer() -> None:
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


def test_environment_render_without_a_mode_is_refused() -> None:
    environment = mbkit.envs.make("InvertedPendulum-v5")
    environment.reset()
    with pytest.raises(mbkit.envs.NoRenderer, match="expected render_mode='rgb_array', got None"):
        environment.render()


class Sampler(gymnasium.Env):
    """Observes a sample of its action space, which is an attribute of the class."""

    observation_space = spaces.Box(-1, 1, (1,))
    action_space = spaces.Box(-1, 1, (1,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.action_space.sample(), {}

    def step(self, action):
        return self.action_space.sample(), 0.0, False, False, {}


class Inherited(Sampler):
    """The same, one class further up."""


@pytest.mark.parametrize("task", [Sampler, Inherited])
def test_copies_of_a_task_do_not_reseed_the_spaces_of_its_class(task):
    def stream(disturbed):
        env = mbkit.envs.make("Mine", seed=3, task=task)
        rows = [env.reset().clone()]
        for step in range(6):
            if disturbed and step == 2:
                mbkit.envs.make("Mine", seed=99, task=task).reset()
            rows.append(env.step(torch.zeros(1, 1)).obs.clone())
        return torch.cat(rows)

    assert torch.equal(stream(False), stream(True))
    assert "action_space" in vars(mbkit.envs.make("Mine", task=task).envs[0].unwrapped)


def test_space_that_a_task_computes_stays_its_own():
    class Computed(Sampler):
        @property
        def action_space(self):
            return self.__dict__.setdefault("space", spaces.Box(-1, 1, (1,)))

    assert mbkit.envs.make("Mine", task=Computed).reset().shape == (1, 1)
