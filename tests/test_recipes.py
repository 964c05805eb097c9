"""Wiring: every preset composes, the model is fitted when it should be, parts are chosen by name."""

from pathlib import Path

import pytest

from mbkit import recipes, registry  # noqa: F401  # recipes register when they are imported
from mbkit.config import compose, config_root
from mbkit.envs import make
from mbkit.recipes.pets import FitModel
from mbkit.types import Dynamics

PRESETS = sorted(config_root().glob("*/*.yaml"))


@pytest.mark.parametrize("path", PRESETS, ids=[f"{p.parent.name}/{p.stem}" for p in PRESETS])
def test_every_preset_builds(path: Path):
    env, _, preset = path.stem.partition(".")
    experiment = compose(path.parent.name, [f"env={env}", *([f"preset={preset}"] if preset else [])])
    parts = registry.recipes[experiment.algo].target(experiment, make(env))
    assert parts.actor.plan is None or parts.actor.plan.mean.shape[1] == experiment.agent.config.horizon
    assert parts.dynamics.output_dim in (parts.buffer.spec.obs_dim, parts.buffer.spec.obs_dim + 1)


@pytest.mark.parametrize("name", ["ensemble", "mujoco", "mbrl"])
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
        self.recorder = type("Recorder", (), {"event": lambda *_: None})()

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
    model = type("Model", (), {"fit": lambda self, data: fits.append(loop.step)})()
    hook = FitModel(model, buffer, every)
    while loop.step < 20:
        loop.step += num_envs
        loop.episode_ended = loop.step in ends
        hook(loop)
    assert fits == expected
