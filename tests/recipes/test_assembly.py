"""What an assembly puts together, and every shipped preset put together once."""

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from mbkit import recipes, registry
from mbkit.config import OfflineLoop, compose
from mbkit.config.reading import config_root
from mbkit.envs import make
from mbkit.errors import UserError
from mbkit.loops import ModelFits, Until
from mbkit.recipes.assembly import Assembly, Greedy
from mbkit.replay.buffer import ReplayBuffer
from mbkit.replay.n_step import NStep
from mbkit.replay.trajectory import TrajectoryBuffer

PRESETS = sorted(config_root().glob("*/*.yaml"))


def assembly(algo: str = "dyna", *options: str) -> Assembly:
    """An assembly for Pendulum-v1 from which nothing has been asked yet."""
    return Assembly(compose(algo, ["env=Pendulum-v1", "loop.buffer_size=50", *options]), make("Pendulum-v1"))


@dataclass(frozen=True)
class NoOptions:
    """No options."""


class Model:
    """A learned model with a state."""

    def fit(self, data):
        return {}

    def state_dict(self):
        return {"weight": torch.ones(2)}

    def load_state_dict(self, state):
        pass


def small(experiment) -> list[str]:
    """Options that leave the shapes of actions as they are and make networks, replay and searches small."""
    options = {"loop": {"buffer_size": 1000}, "planner": {"candidates": 20, "elites": 4, "iterations": 1}}
    options |= {"agent": {"hidden": [8], "particles": 2}}
    if experiment.dynamics is not None:
        options["dynamics"] = {"hidden": [8] * len(getattr(experiment.dynamics.config, "hidden", ()))}
    return [
        f"{group}.{key}={value}"
        for group, chosen in options.items()
        for key, value in chosen.items()
        if hasattr(experiment.group(group), key)
    ]


class NoRows:
    """A data set of which only the dimensions are at hand, as for a run that is loaded to act."""

    present = False

    def __init__(self, spec) -> None:
        self.spec = spec

    def rows(self, spec):
        raise AssertionError("nothing asks for the rows")


@pytest.mark.parametrize("path", PRESETS, ids=[f"{p.parent.name}/{p.stem}" for p in PRESETS])
def test_build_of_every_preset_acts(path: Path):
    env, _, preset = path.stem.partition(".")
    if env.startswith("dm_control-"):
        env = env.replace("-", "/", 1)
        pytest.importorskip("dm_control")
    chosen = [f"env={env}", *([f"preset={preset}"] if preset else [])]
    experiment = compose(path.parent.name, [*chosen, *small(compose(path.parent.name, chosen))])
    environment = make(env, env_kwargs=experiment.env_kwargs)
    offline = isinstance(experiment.loop, OfflineLoop)
    x = recipes.build(experiment, None if offline else environment, data=NoRows(environment.spec) if offline else None)
    assert x.actor.act(environment.reset()).shape == ((1,) if environment.spec.discrete else (1, environment.spec.action_dim))
    assert offline or x.store is x.stateful["buffer"]


def test_assembly_part_names_the_recipe_without_a_default_for_its_group():
    with pytest.raises(TypeError, match="the recipe 'random' uses planner, for which its registry entry has no default"):
        assembly("random").planner()


def test_assembly_stores_into_the_replay_unless_told_otherwise():
    x = assembly()
    assert x.store is x.replay is x.stateful["buffer"]
    assert x.replay.capacity == 50
    x = assembly()
    other = x.stores(TrajectoryBuffer(4, 1, x.spec))
    assert x.store is other is x.stateful["buffer"]


def test_assembly_agent_acts_and_is_scored_without_exploration():
    x = assembly("sac")
    agent = x.agent()
    assert x.actor is agent is x.stateful["agent"]
    obs = torch.randn(5, 3)
    scored = x.actor_for(x.env)
    assert isinstance(scored, Greedy)
    assert torch.equal(scored.act(obs), agent.act(obs, explore=False))


def test_assembly_acts_keeps_an_actor_with_a_state_only():
    x = assembly("random")
    assert x.acts(lambda env: SimpleNamespace(env=env)).env is x.env
    assert x.stateful == {}
    x = assembly()
    model = x.acts(lambda env: Model())
    assert x.stateful == {"actor": model}


def test_assembly_real_data_are_one_step_rows_or_n_step_sums():
    x = assembly("sac")
    assert x.real_data(x.agent()) is x.replay
    x = assembly("sac", "loop.n_step=3", "gamma=0.9")
    sums = x.real_data(x.agent())
    assert isinstance(sums, NStep)
    assert (sums.buffer, sums.steps, sums.gamma) == (x.replay, 3, 0.9)


def test_assembly_every_step_keeps_the_order_of_hooks():
    x, calls = assembly(), []
    x.every_step(lambda clock: calls.append(1), lambda clock: calls.append(2))
    x.every_step(lambda clock: calls.append(3))
    for hook in x.hooks:
        hook(None)
    assert calls == [1, 2, 3]


@pytest.mark.parametrize("until", [None, 70])
def test_assembly_at_each_fit_fits_the_replay_and_keeps_the_model(until):
    x, model, first, then = assembly("dyna", "dynamics=local_linear"), Model(), [object()], [object()]
    x.at_each_fit(model, first, then, until)
    (hook,) = x.hooks
    if until is not None:
        assert isinstance(hook, Until)
        assert (hook.step, list(hook.after)) == (70, [])
        (hook,) = hook.before
    assert isinstance(hook, ModelFits)
    assert (hook.model, hook.data, hook.first, hook.then, hook.cfg) == (model, x.replay, first, then, x.loop)
    assert x.dynamics is model is x.stateful["dynamics"]


def test_assembly_model_buffer_notes_its_size_and_what_limits_it():
    x = assembly("mbpo")
    buffer = x.model_buffer(100, 1.0, "imagination.retain_epochs")
    assert x.stateful["model_buffer"] is buffer
    (note,) = x.notes
    assert note.startswith("The model buffer holds at most 100 rows of ")
    assert "keeps it from" not in note
    x = assembly("mbpo")
    x.model_buffer(10**6, 1e-6, "imagination.retain_epochs")
    assert "imagination.memory_gb keeps it from the 1000000 rows that imagination.retain_epochs asks for." in x.notes[0]


def test_build_agent_that_cannot_be_trained_alone_is_named(monkeypatch):
    list(registry.agents)  # the built-in ones register
    monkeypatch.setattr(registry.agents, "_entries", dict(registry.agents._entries))
    registry.agents.register("clone", NoOptions, learns_from="dataset")(Greedy)
    with pytest.raises(
        UserError,
        match="agent 'clone' learns from a fixed data set; alone it is offered trajectories of its policy or replayed transitions",
    ):
        recipes.build(compose("clone", ["env=Pendulum-v1"]), make("Pendulum-v1"))


def test_build_restored_needs_no_fitted_model():
    experiment = compose("dyna", ["env=Pendulum-v1", "loop.warmup_steps=0", "dynamics.hidden=[8]"])
    assert isinstance(recipes.build(experiment, make("Pendulum-v1"), restored=True).replay, ReplayBuffer)
