"""Wiring only, no mathematics: each recipe turns an `Experiment` into the `Parts` that a run steps."""

from mbkit import agents, registry
from mbkit.config import Experiment
from mbkit.envs import Environment
from mbkit.recipes import dyna, loop, mba, mbpo, model_free, mve, pets, random
from mbkit.recipes.parts import Parts


def build(config: Experiment, env: Environment) -> Parts:
    """The parts of a recipe, or of an agent alone."""
    make = registry.recipes[config.algo].target if config.algo in registry.recipes else model_free.build
    parts: Parts = make(config, env)
    return parts


__all__ = ["Parts", "agents", "build", "dyna", "loop", "mba", "mbpo", "model_free", "mve", "pets", "random"]
