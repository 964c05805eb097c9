"""Wiring only, no mathematics: each recipe turns an `Experiment` into the `Parts` that a run steps."""

from mbkit import agents, registry
from mbkit.config import Experiment
from mbkit.envs import Environment
from mbkit.recipes import dyna, loop, mba, mbpo, model_free, mve, pets, random
from mbkit.recipes.parts import Parts, check_learned


def build(config: Experiment, env: Environment, restored: bool = False) -> Parts:
    """The parts of a recipe, or of an agent alone; `restored`: a checkpoint will fill them.

    Raises:
        UserError: options that contradict one another; unless `restored`, a model that would be asked before it learned anything.
    """
    make = registry.recipes[config.algo].target if config.algo in registry.recipes else model_free.build
    parts: Parts = make(config, env)
    if not restored:
        check_learned(config, parts.dynamics)
    return parts


__all__ = ["Parts", "agents", "build", "dyna", "loop", "mba", "mbpo", "model_free", "mve", "pets", "random"]
