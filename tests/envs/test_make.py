"""Environments by name: a user's classes, missing packages, wrong arguments, the list of names, MuJoCo's warnings."""

import logging
import os
import subprocess
import sys

import gymnasium
import numpy as np
import pytest
from gym_toys import ScriptedEnv

import mbkit.envs
from mbkit.envs.make import quiet
from mbkit.errors import UserError


class Base(gymnasium.Env):
    def __init__(self, length: int, *rest: int, width: int = 3) -> None: ...


class Passing(Base):
    def __init__(self, height: int, **kwargs: int) -> None: ...


@pytest.fixture
def registered():
    names = {"PlainToy-v0": ScriptedEnv, "PassingToy-v0": Passing, "AbsentToy-v0": "no_such_package_9:Env", "CarRacing-v9": ScriptedEnv}
    for name, entry in names.items():
        gymnasium.register(name, entry_point=entry)
    yield
    for name in names:
        del gymnasium.registry[name]


@pytest.mark.usefixtures("registered")
def test_make_class_without_a_render_mode_is_made() -> None:
    assert mbkit.envs.make("PlainToy-v0").reset().tolist() == [[0, 0, 0]]
    with pytest.raises(UserError, match="PlainToy-v0"):
        mbkit.envs.make("PlainToy-v0", render_mode="rgb_array")


@pytest.mark.parametrize("name", ["gym_toys:ScriptedEnv", "gym_toys:Steering"])
def test_make_task_without_a_render_mode_says_so_in_plain_words(name: str) -> None:
    with pytest.raises(UserError, match=f"^{name} takes no render_mode, without which it cannot be filmed$"):
        mbkit.envs.make(name, render_mode="rgb_array")


@pytest.mark.usefixtures("registered")
def test_make_missing_package_is_not_blamed_on_arguments() -> None:
    with pytest.raises(UserError, match=r"'AbsentToy-v0' cannot be made: .*no_such_package_9"):
        mbkit.envs.make("AbsentToy-v0", env_kwargs={"max_episode_steps": 5})


def test_make_missing_package_of_gymnasium_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "Box2D", None)
    for name in [name for name in sys.modules if name.startswith("gymnasium.envs.box2d")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(UserError, match=r"'LunarLander-v3' cannot be made: .*pip install"):
        mbkit.envs.make("LunarLander-v3", env_kwargs={"max_episode_steps": 5})


def test_make_dm_control_missing_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dm_control.suite", None)
    with pytest.raises(UserError, match=r'needs dm_control: pip install "mbkit\[dmc\]"'):
        mbkit.envs.make("dm_control/cheetah-run-v0")


@pytest.mark.usefixtures("registered")
def test_make_unknown_argument_lists_those_that_a_user_can_set() -> None:
    with pytest.raises(UserError, match=r"known: height, max_episode_steps, width$"):
        mbkit.envs.make("PassingToy-v0", env_kwargs={"kwargs": 1})
    with pytest.raises(UserError, match="known: ") as caught:
        mbkit.envs.make("Hopper-v5", env_kwargs={"foo": 1})
    assert not {"kwargs", "model_path", "observation_space", "render_mode"} & set(str(caught.value).replace(",", "").split())
    assert "frame_skip" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "arguments", "sentence"),
    [
        ("HalfCheeta-v5", {}, "unknown environment 'HalfCheeta-v5'; did you mean 'HalfCheetah-v5'"),
        ("HalfCheetah-v9", {}, "did you mean 'HalfCheetah-v5'"),
        ("cartpol", {}, "did you mean 'cartpole'"),
        ("Hopper-v3", {}, "environment 'Hopper-v3' cannot be made"),
        ("no_such_module_here:Thing-v0", {}, "module 'no_such_module_here' of .* can't be imported"),
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
def test_make_unknown_names_and_wrong_arguments_are_refused(name: str, arguments: dict, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        mbkit.envs.make(name, env_kwargs=arguments)


def test_make_num_envs_0_is_refused() -> None:
    with pytest.raises(UserError, match="num_envs of Hopper-v5: expected at least 1, got 0"):
        mbkit.envs.make("Hopper-v5", num_envs=0)


def test_make_arguments_reach_the_task_and_its_bases() -> None:
    environment = mbkit.envs.make("Ant-v5", env_kwargs={"include_cfrc_ext_in_observation": False, "healthy_z_range": [0.1, 2], "width": 64})
    assert environment.spec.obs_dim == 27
    assert environment.envs[0].unwrapped.width == 64


def test_make_invalid_mujoco_gl_is_named() -> None:
    code = "import mbkit.envs\ntry:\n    mbkit.envs.make('Hopper-v5')\nexcept mbkit.errors.UserError as error:\n    print(error)\n"
    wrong = os.environ | {"MUJOCO_GL": "crayon"}
    done = subprocess.run([sys.executable, "-c", code], env=wrong, capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("MuJoCo cannot be imported with MUJOCO_GL='crayon'"), done.stderr


@pytest.mark.parametrize(
    ("name", "kwargs", "camera"), [("HalfCheetah-v5", {}, 0), ("HalfCheetah-v5", {"camera_id": -1}, -1), ("Pusher-v5", {}, -1)]
)
def test_make_render_mode_selects_the_camera_that_follows(name, kwargs, camera):
    try:
        env = mbkit.envs.make(name, env_kwargs=kwargs, render_mode="rgb_array")
    except UserError as error:  # no renderer on this machine
        pytest.skip(str(error))
    assert env.envs[0].unwrapped.mujoco_renderer.camera_id == camera
    env.close()


@pytest.mark.usefixtures("registered")
def test_available_lists_what_can_be_made_with_vector_observations() -> None:
    rows = dict(mbkit.envs.available())
    assert rows["cartpole"] == "PETS benchmark: swing-up, 200 steps"
    assert rows["HalfCheetah-v5"] == "MuJoCo, Gymnasium"
    assert rows["Pendulum-v1"] == "classic control, Gymnasium"
    assert rows["PlainToy-v0"] == "gym_toys"
    assert not {"AbsentToy-v0", "CarRacing-v9"} & rows.keys()
    for name in rows.keys() - {"PassingToy-v0"}:
        mbkit.envs.make(name).close()


def test_quiet_hides_the_mass_warning_of_half_cheetah_only(tmp_path, caplog, capfd) -> None:
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
