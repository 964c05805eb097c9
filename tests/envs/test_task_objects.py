"""Tasks as objects: what their specifications become, and what an import path finds."""

import gymnasium
import pytest
from gym_toys import StepCounter

from mbkit.envs import make
from mbkit.envs.task_objects import named_task, registration_of
from mbkit.errors import UserError

LOCAL = gymnasium.spec("Pendulum-v1")


def registered(name, **options):
    gymnasium.register(name, **options)
    return gymnasium.spec(name)


@pytest.mark.parametrize(
    ("spec", "text", "kwargs"),
    [
        (LOCAL, "Pendulum-v1", {}),
        (gymnasium.make("FrozenLake-v1", is_slippery=False).spec, "FrozenLake-v1", {"is_slippery": False}),
        (registered("Counter-v0", entry_point=StepCounter, max_episode_steps=7), "gym_toys:StepCounter", {"max_episode_steps": 7}),
        (registered("Named-v0", entry_point="gym_toys:StepCounter", kwargs={"length": 2}), "gym_toys:StepCounter", {"length": 2}),
        (registered("Closure-v0", entry_point=lambda: StepCounter()), "<Closure-v0>", {}),
        (registered("Odd-v0", entry_point=StepCounter, kwargs={"index": object()}), "<Odd-v0>", {}),
        (gymnasium.make("Pendulum-v1", max_episode_steps=-1).spec, "gymnasium.envs.classic_control.pendulum:PendulumEnv", {}),
    ],
)
def test_specification_is_named_as_another_process_finds_it(spec, text, kwargs):
    assert named_task(spec)[:2] == (text, kwargs)


@pytest.mark.parametrize("name", ["gym_toys:StepCounter", "gym_toys:Steering"])
def test_import_path_of_a_class_is_an_environment(name):
    env = make(name, num_envs=2)
    assert type(env.envs[0].unwrapped).__name__ == name.partition(":")[2]
    env.close()


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("gym_toys:StepCount", "gym_toys neither registers nor defines it; did you mean 'StepCounter'"),
        ("gym_toys:spaces", "is no task"),
        ("gymnasium:Space", "is the class .*Space, which is no subclass"),
        ("no_such_tasks:One", "No module named"),
    ],
)
def test_import_path_of_anything_else_is_refused(name, sentence):
    with pytest.raises(UserError, match=sentence):
        make(name)


def test_registration_of_a_specification_forgets_the_render_mode():
    spec = gymnasium.make("Pendulum-v1", render_mode="rgb_array").spec
    assert "render_mode" not in registration_of(spec, "Pendulum-v1").kwargs
    assert spec.kwargs["render_mode"] == "rgb_array"
