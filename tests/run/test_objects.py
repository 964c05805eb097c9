"""Classes, functions and specifications as options: import paths where they have one, and where not, handed over again or refused."""

import functools
import re

import gymnasium
import pytest
import torch
from gym_toys import ScriptedEnv, Steering, StepCounter, steering_reward
from pets_runs import EPOCHS, MODEL, PLAN, SCORE
from resumption import check_same_end

import mbkit
from mbkit.config import imports
from mbkit.errors import UserError
from mbkit.run import objects

OPTIONS = (*PLAN, *MODEL, *EPOCHS, *SCORE, "threads=1", "loop.warmup_steps=10", "loop.log_every=10")


class Constant:
    """A reward that is an object with `__call__`."""

    def __call__(self, obs, action, next_obs):
        return torch.zeros(len(obs))

    def method(self, obs, action, next_obs):
        return torch.zeros(len(obs))

    @staticmethod
    def static(obs, action, next_obs):
        return torch.zeros(len(obs))


class Counter(StepCounter):
    """Another name for the same task."""


def make_counter(length=3):
    return StepCounter(length=length)


def fails(obs, action, next_obs):
    return next_obs[:, 0] > 1e9


def train(directory, steps=20, *options, **objects):
    return mbkit.train("pets", *OPTIONS, f"run_dir={directory}", f"steps={steps}", *options, **objects)


def local_task():
    class Local(StepCounter):
        pass

    return Local


@pytest.mark.parametrize(
    ("task", "text"),
    [
        (StepCounter, "gym_toys:StepCounter"),
        (steering_reward, "gym_toys:steering_reward"),
        (lambda: StepCounter(), "<lambda>"),
        (local_task(), "<Local>"),
        (functools.partial(StepCounter, length=2), "<StepCounter>"),
        (Constant(), "<Constant>"),
        (Constant().method, "<method>"),
    ],
)
def test_text_of_is_an_import_path_only_where_it_leads_back(task, text):
    assert imports.text_of(task) == text
    assert imports.without_path(text) == (":" not in text)


def test_path_of_finds_static_methods_and_module_level_instances_but_nothing_of_main_or_shadowed(monkeypatch):
    import gym_toys

    monkeypatch.setattr(
        gym_toys, "calm", constant := type("Calm", (), {"__module__": "gym_toys", "__call__": steering_reward})(), raising=False
    )
    assert imports.path_of(constant) == "gym_toys:calm"
    monkeypatch.setattr(gym_toys, "Steering", StepCounter)  # the module has another class under this name by now
    assert imports.path_of(Steering) is None
    static = type("Holder", (), {"__module__": "gym_toys", "static": staticmethod(steering_reward)})
    assert imports.path_of(static.static) == "gym_toys:steering_reward"
    monkeypatch.setattr(steering_reward, "__module__", "__main__")
    assert imports.path_of(steering_reward) is None


@pytest.mark.parametrize(
    ("options", "texts"),
    [
        ({"env": Steering, "reward": steering_reward}, {"env": "gym_toys:Steering", "dynamics.reward": "gym_toys:steering_reward"}),
        ({"dynamics": {"reward": steering_reward, "members": 2}}, {"dynamics.reward": "gym_toys:steering_reward"}),
        ({"dynamics.termination": steering_reward}, {"dynamics.termination": "gym_toys:steering_reward"}),
        ({"env": "cartpole", "reward": "learned"}, {}),
    ],
)
def test_named_finds_objects_in_every_form_of_an_option(options, texts):
    came = objects.named(options)
    assert came.texts == texts
    assert came.objects.keys() == texts.keys()


def test_importable_objects_become_import_paths_and_the_run_needs_nothing_more(tmp_path):
    run = train(tmp_path / "run", env=Steering, env_kwargs={"box": True}, planner="discrete_cem", reward=steering_reward, seed=3)
    assert (run.config.env, run.config.dynamics.config.reward) == ("gym_toys:Steering", "gym_toys:steering_reward")
    assert not any("import path" in note for note in run.notes)
    assert run.config.objects == {}
    for again in (mbkit.load(run.path), mbkit.load(run.path, env=Steering, reward=steering_reward)):
        assert mbkit.evaluate(again, 2)["return_mean"] == run.summary()["eval_return_mean"]
    assert mbkit.resume(run.path, steps=25).loop.step == 25


def test_objects_without_a_path_are_noted_and_needed_and_resume_bit_for_bit(tmp_path, capsys):
    task = local_task()
    kinds = {"env": lambda length=3: task(length=length), "reward": lambda obs, action, next_obs: next_obs[..., 1], "termination": fails}
    whole = train(tmp_path / "whole", 40, **kinds)
    train(tmp_path / "halves", 23, **kinds)
    assert (
        "This run has the Python objects env=<lambda>, dynamics.reward=<lambda> without an import path: it can" in capsys.readouterr().err
    )
    assert any('only by mbkit.load("RUN", env=..., reward=...)' in note for note in whole.summary()["notes"])
    needed = r"halves was trained with Python objects without an import path, env=<lambda>, dynamics.reward=<lambda>; expected mbkit.load\("
    for refused in (lambda: mbkit.load(tmp_path / "halves"), lambda: mbkit.resume(tmp_path / "halves", steps=40)):
        with pytest.raises(UserError, match=needed):
            refused()
    with pytest.raises(UserError, match=r"Python object without an import path, env=<lambda>; expected mbkit.load\(.*, env=\.\.\.\)$"):
        mbkit.load(tmp_path / "halves", reward=kinds["reward"])
    resumed = mbkit.resume(tmp_path / "halves", steps=40, **kinds)
    check_same_end(tmp_path / "whole", tmp_path / "halves")
    assert any("import path" in note for note in resumed.notes)
    with mbkit.load(tmp_path / "whole", env=kinds["env"], reward=kinds["reward"]) as loaded:
        assert mbkit.evaluate(loaded, 2)["return_mean"] == whole.summary()["eval_return_mean"]
        assert loaded.loop.step == 40
    assert re.search(r'`mbkit.resume\(".*", env=\.\.\., reward=\.\.\.\)` goes on from it$', whole.how_to_go_on())


@pytest.mark.parametrize(
    ("again", "sentence"),
    [
        ({"env": Counter}, "trained with env=gym_toys:StepCounter; env=.*Counter would be another experiment"),
        ({"env": "cartpole"}, "trained with env=gym_toys:StepCounter; env='cartpole' would be another"),
        ({"reward": fails}, "trained with dynamics.reward=gym_toys:steering_reward; dynamics.reward=.*fails"),
        ({"termination": fails}, "trained with dynamics.termination=auto; dynamics.termination=.*fails"),
    ],
)
def test_load_and_resume_refuse_objects_of_another_experiment(tmp_path, again, sentence):
    train(tmp_path / "run", env=StepCounter, reward=steering_reward)
    for function in (mbkit.load, functools.partial(mbkit.resume, steps=30)):
        with pytest.raises(UserError, match=f"{sentence}|resume takes .* another experiment; came 'env'"):
            function(tmp_path / "run", **again)


@pytest.mark.parametrize(
    ("objects", "sentence"),
    [
        ({"env": StepCounter()}, r"env is an instance of StepCounter, .* hand over its class \(env=StepCounter\).* or its specification"),
        ({"env": gymnasium.make("Pendulum-v1")}, "env is an instance of PendulumEnv"),
        ({"env": int}, "env is the class int, which is no subclass of gymnasium.Env"),
        ({"env": 3}, "env=3 is no task; expected the name of an environment, its class"),
        ({"env": lambda size: StepCounter(length=size)}, r"needs arguments: env_kwargs.size=\.\.\."),
        ({"env": lambda: 3}, "must inherit from the gymnasium.Env"),
        ({"env": functools.cache(ScriptedEnv)}, "returned the same one twice"),
        ({"env": StepCounter, "reward": lambda obs: obs}, "reward <lambda> of obs .* got TypeError"),
        ({"env": StepCounter, "reward": 3}, "'3' is no import path; expected package.module:function"),
        ({"env": StepCounter, "reward": fails, "dynamics": {"reward": fails}}, "reward= and dynamics.reward= set the same option"),
        ({"env": "cartpole", "dynamics": "mujoco", "reward": fails}, "reward= has no meaning for dynamics=mujoco"),
    ],
)
def test_train_refuses_objects_that_cannot_be_used_and_leaves_nothing_behind(tmp_path, objects, sentence):
    with pytest.raises(UserError, match=sentence):
        train(tmp_path / "run", **objects)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("algo", "short"), [("sac", "reward"), ("ppo", "termination"), ("dqn", "reward")])
def test_short_forms_are_refused_where_there_is_no_model(algo, short):
    with pytest.raises(UserError, match=f"^{short}= has no meaning for {algo}, which has no model"):
        mbkit.train(algo, env="CartPole-v1", **{short: fails})


def test_functions_and_partials_take_env_kwargs(tmp_path):
    run = train(tmp_path / "run", env=make_counter, env_kwargs={"length": 2})
    assert run.env.envs[0].unwrapped.length == 2
    part = train(tmp_path / "part", env=functools.partial(StepCounter, cut=3), env_kwargs={"length": 9})
    assert (part.env.envs[0].unwrapped.length, part.env.envs[0].unwrapped.cut) == (9, 3)


def test_specification_becomes_its_name_with_what_differs(tmp_path):
    spec = gymnasium.make("Pendulum-v1", g=9.0, max_episode_steps=15, render_mode="rgb_array").spec
    run = train(tmp_path / "run", env=spec)
    assert (run.config.env, run.config.env_kwargs) == ("Pendulum-v1", {"g": 9.0, "max_episode_steps": 15})
    assert mbkit.load(run.path, env=spec).config.env == "Pendulum-v1"


def test_wrapped_specification_is_kept_with_its_wrappers(tmp_path):
    wrapped = gymnasium.wrappers.RescaleAction(gymnasium.make("Pendulum-v1", max_episode_steps=15), -1, 1)
    run = train(tmp_path / "run", env=wrapped.spec)
    assert run.config.env == "<Pendulum-v1>"
    assert isinstance(run.env.envs[0], gymnasium.wrappers.RescaleAction)
    assert run.path.name == "run"
    with mbkit.load(run.path, env=wrapped.spec) as loaded:
        assert isinstance(loaded.env.envs[0], gymnasium.wrappers.RescaleAction)


def test_run_directory_of_an_object_has_a_plain_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = mbkit.train("random", env=lambda: StepCounter(), steps=5, eval={"episodes": 1, "video": False}, threads=1)
    assert re.fullmatch(r"runs/random/lambda/0-\d+-\d+", str(run.path))
