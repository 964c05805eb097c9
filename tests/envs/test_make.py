"""Environments by name: plain classes, missing packages, arguments a user can set, what is listed, MuJoCo's noise."""

import logging
import os
import subprocess
import sys

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import SyncVectorEnv

import mbkit.envs
from mbkit.envs.environment import single
from mbkit.envs.make import quiet
from mbkit.errors import UserError


class Plain(gymnasium.Env):
    """Takes no argument; observes whatever `rows` holds, first on reset, then in each step."""

    observation_space = spaces.Box(-1, 1, (3,))
    action_space = spaces.Box(-1, 1, (1,))
    rows: tuple = (np.zeros(3),)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple:
        super().reset(seed=seed)
        self.left = iter(self.rows)
        return next(self.left), {}

    def step(self, action: np.ndarray) -> tuple:
        return next(self.left, self.rows[-1]), 0.0, False, False, {}


class Base(gymnasium.Env):
    def __init__(self, length: int, *rest: int, width: int = 3) -> None: ...


class Passing(Base):
    def __init__(self, height: int, **kwargs: int) -> None: ...


@pytest.fixture
def registered():
    names = {"PlainToy-v0": Plain, "PassingToy-v0": Passing, "AbsentToy-v0": "no_such_package_9:Env", "CarRacing-v9": Plain}
    for name, entry in names.items():
        gymnasium.register(name, entry_point=entry)
    yield
    for name in names:
        del gymnasium.registry[name]


@pytest.mark.usefixtures("registered")
def test_a_class_without_a_render_mode_is_made() -> None:
    assert mbkit.envs.make("PlainToy-v0").reset().tolist() == [[0, 0, 0]]
    with pytest.raises(UserError, match="PlainToy-v0"):
        mbkit.envs.make("PlainToy-v0", render_mode="rgb_array")


@pytest.mark.usefixtures("registered")
def test_a_missing_package_is_not_blamed_on_arguments() -> None:
    with pytest.raises(UserError, match=r"'AbsentToy-v0' cannot be made: .*no_such_package_9"):
        mbkit.envs.make("AbsentToy-v0", env_kwargs={"max_episode_steps": 5})


def test_gymnasium_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "Box2D", None)
    for name in [name for name in sys.modules if name.startswith("gymnasium.envs.box2d")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(UserError, match=r"'LunarLander-v3' cannot be made: .*pip install"):
        mbkit.envs.make("LunarLander-v3", env_kwargs={"max_episode_steps": 5})


@pytest.mark.usefixtures("registered")
def test_arguments_named_are_those_a_user_can_set() -> None:
    with pytest.raises(UserError, match=r"known: height, max_episode_steps, width$"):
        mbkit.envs.make("PassingToy-v0", env_kwargs={"kwargs": 1})
    with pytest.raises(UserError, match="known: ") as caught:
        mbkit.envs.make("Hopper-v5", env_kwargs={"foo": 1})
    assert not {"kwargs", "model_path", "observation_space", "render_mode"} & set(str(caught.value).replace(",", "").split())
    assert "frame_skip" in str(caught.value)


@pytest.mark.usefixtures("registered")
def test_what_is_available_is_what_can_be_made_of_vectors() -> None:
    rows = dict(mbkit.envs.available())
    assert rows["cartpole"] == "PETS benchmark: swing-up, 200 steps"
    assert rows["HalfCheetah-v5"] == "MuJoCo, Gymnasium"
    assert rows["Pendulum-v1"] == "classic control, Gymnasium"
    assert rows["PlainToy-v0"] == __name__.partition(".")[0]
    assert not {"AbsentToy-v0", "CarRacing-v9"} & rows.keys()
    for name in rows.keys() - {"PassingToy-v0"}:
        mbkit.envs.make(name).close()


BOX = r"observation of toy: expected shape \(3,\) as in its observation space, got "


@pytest.mark.parametrize(
    ("came", "said"),
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
def test_an_observation_of_another_shape_than_its_space_is_named(came: object, said: str, when: str) -> None:
    toy = Plain()
    toy.rows = (came,) if when == "reset" else (np.zeros(3), came)
    environment = single("toy", [Plain(), toy], 0)
    if when == "step":
        environment.reset()
    with pytest.raises(UserError, match=BOX + said):
        environment.reset() if when == "reset" else environment.step(torch.zeros(2, 1))


@pytest.mark.parametrize("came", [{"a": np.zeros(3)}, {"a": np.zeros(2), "b": 0}, np.zeros(5), {"a": np.zeros(3), "b": 7}])
def test_a_part_of_another_shape_is_named(came: object) -> None:
    toy = Plain()
    toy.observation_space, toy.rows = spaces.Dict({"a": Plain.observation_space, "b": spaces.Discrete(2)}), (came,)
    with pytest.raises(UserError, match=r"observation of toy: expected Dict\(.*, got .*"):
        single("toy", [toy], 0).reset()


def test_a_vector_environment_of_another_shape_than_its_space_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    vector = SyncVectorEnv([Plain, Plain])
    monkeypatch.setattr(vector, "reset", lambda **_: (np.zeros((2, 4)), {}))
    with pytest.raises(UserError, match=r"observation of SyncVectorEnv: expected shape \(2, 3\) .*, got shape \(2, 4\)"):
        mbkit.envs.wrap(vector).reset()


def test_mujoco_is_quiet_about_the_half_cheetahs_mass_and_about_nothing_else(tmp_path, caplog, capfd) -> None:
    """In a process of its own for the log file, which is opened once."""
    code = "import mbkit.envs\nmbkit.envs.make('HalfCheetah-v5', num_envs=2).reset()\n"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60, env=dict(os.environ))
    assert (done.returncode, done.stdout, done.stderr, list(tmp_path.iterdir())) == (0, "", "", [])

    import mujoco

    xml = '<mujoco><compiler settotalmass="1"/><worldbody><body><joint/><geom size="1"/></body></worldbody></mujoco>'
    with caplog.at_level(logging.WARNING, "mujoco"), quiet(gymnasium.spec("HalfCheetah-v5")):
        model = mujoco.MjModel.from_xml_string(xml)
        assert not caplog.records
        data = mujoco.MjData(model)
        data.qpos[0] = np.nan
        mujoco.mj_step(model, data)
    assert "Nan" in caplog.text
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("name", "kwargs", "camera"), [("HalfCheetah-v5", {}, 0), ("HalfCheetah-v5", {"camera_id": -1}, -1), ("Pusher-v5", {}, -1)]
)
def test_a_runner_is_filmed_by_the_camera_that_follows_it(name, kwargs, camera):
    try:
        env = mbkit.envs.make(name, env_kwargs=kwargs, render_mode="rgb_array")
    except UserError as error:  # no renderer on this machine
        pytest.skip(str(error))
    assert env.envs[0].unwrapped.mujoco_renderer.camera_id == camera
    env.close()
