"""Wiring: every preset composes, the model is fitted when it should be, parts are chosen by name."""

from pathlib import Path

import pytest
import torch

from mbkit import recipes, registry
from mbkit.config import LoopConfig, compose, config_root
from mbkit.envs import make
from mbkit.errors import UserError
from mbkit.loops import FitModel, Updates
from mbkit.types import Dynamics

PRESETS = sorted(config_root().glob("*/*.yaml"))


@pytest.mark.parametrize("path", PRESETS, ids=[f"{p.parent.name}/{p.stem}" for p in PRESETS])
def test_every_preset_builds(path: Path):
    env, _, preset = path.stem.partition(".")
    experiment = compose(path.parent.name, [f"env={env}", *([f"preset={preset}"] if preset else [])])
    if env.startswith("dm_control-"):
        env = env.replace("-", "/", 1)
        pytest.importorskip("dm_control")
    experiment = compose(path.parent.name, [f"env={env}", *([f"preset={preset}"] if preset else []), "loop.buffer_size=1000"])
    environment = make(env, env_kwargs=experiment.env_kwargs)
    parts = recipes.build(experiment, environment)
    assert parts.actor.act(environment.reset()).shape == ((1,) if environment.spec.discrete else (1, environment.spec.action_dim))
    assert set(parts.stateful) >= {"buffer"}


@pytest.mark.parametrize("name", ["ensemble", "local_linear", "mujoco", "mbrl"])
def test_dynamics_by_name(name):
    if name == "mbrl":
        pytest.importorskip("mbrl")
    experiment = compose("pets", ["env=cartpole", f"dynamics={name}", "agent.particles=5", "planner.candidates=20", "planner.iterations=1"])
    env = make("cartpole")
    parts = registry.recipes["pets"].target(experiment, env)
    assert isinstance(parts.actor.dynamics, Dynamics)
    assert ("dynamics" in parts.stateful) == (name != "mujoco")
    assert parts.actor.act(env.reset()).shape == (1, 1)


@pytest.mark.parametrize("planner", ["icem", "cem", "mppi", "shooting"])
def test_planners_by_name(planner):
    experiment = compose("pets", ["env=cartpole", f"planner={planner}", "planner.candidates=40", "agent.horizon=3"])
    env = make("cartpole", num_envs=2)
    parts = registry.recipes["pets"].target(experiment, env)
    assert parts.actor.act(env.reset()).shape == (2, 1)


def test_the_true_model_follows_the_environment_it_plans_for():
    experiment = compose("pets", ["env=cartpole", "dynamics=mujoco", "agent.particles=1"])
    training, scoring = make("cartpole", seed=1), make("cartpole", seed=2, num_envs=3)
    parts = registry.recipes["pets"].target(experiment, training)
    assert len(parts.actor_for(scoring).dynamics.envs) == 3
    assert len(parts.actor.dynamics.envs) == 1


class Loop:
    """What a hook sees."""

    def __init__(self, num_envs: int, warmup_steps: int) -> None:
        self.env = type("Env", (), {"num_envs": num_envs})()
        self.warmup_steps, self.step, self.episode_ended = warmup_steps, 0, False
        self.recorder = type("Recorder", (), {"event": lambda *_: None, "log": lambda *_: None})()

    def passed(self, every: int) -> bool:
        return self.step // every > (self.step - self.env.num_envs) // every


class Fits:
    """Counts."""

    def __init__(self) -> None:
        self.at: list[int] = []

    def all(self):
        return None


@pytest.mark.parametrize(
    ("every", "num_envs", "ends", "expected"),
    [
        (0, 1, {5, 12, 20}, [10, 12, 20]),  # when warm-up is over, then at the end of each episode
        (0, 1, {10, 20}, [10, 20]),  # an episode that ends with the warm-up is fitted once
        (4, 1, {15}, [10, 12, 16, 20]),  # every fourth step, whatever the episodes do
        (5, 3, set(), [12, 15, 21]),  # steps that jump over a multiple count as reaching it
    ],
)
def test_when_the_model_is_fitted(every, num_envs, ends, expected):
    loop, buffer, fits = Loop(num_envs, 10), Fits(), []
    model = type("Model", (), {"fit": lambda self, data: fits.append(loop.step) or {}})()
    hook = FitModel(model, buffer, LoopConfig(warmup_steps=10, fit_every=every))
    while loop.step < 20:
        loop.step += num_envs
        loop.episode_ended = loop.step in ends
        hook(loop)
    assert fits == expected


class Counts:
    """A learner that counts its updates."""

    cycle = 1

    def __init__(self) -> None:
        self.updates = 0

    def update(self, batch):
        self.updates += 1
        return {"critic/loss": torch.tensor(0.0 if self.updates < 50 else float("nan"))}


@pytest.mark.parametrize(("rate", "num_envs", "expected"), [(1.0, 1, 20), (0.25, 1, 5), (2.0, 3, 40), (0.1, 1, 2), (0.3, 4, 6)])
def test_updates_per_step(rate, num_envs, expected):
    """After the warm-up of 10 steps, until the first step at or beyond 30."""
    loop, agent = Loop(num_envs, 10), Counts()
    source = type("Source", (), {"sample": lambda self, n: None})()
    hook = Updates(agent, source, LoopConfig(warmup_steps=10, updates_per_step=rate, num_envs=num_envs), torch.device("cpu"))
    while loop.step < 30:
        loop.step += num_envs
        hook(loop)
    assert agent.updates == expected


def test_an_agent_that_diverged_stops_the_run():
    loop, agent = Loop(1, 0), Counts()
    source = type("Source", (), {"sample": lambda self, n: None})()
    hook = Updates(agent, source, LoopConfig(warmup_steps=0, log_every=20), torch.device("cpu"), "toy")
    for loop.step in range(1, 60):
        hook(loop)
    loop.step = 60
    with pytest.raises(UserError, match="toy diverged: critic/loss is nan at step 60, expected a finite number"):
        hook(loop)
