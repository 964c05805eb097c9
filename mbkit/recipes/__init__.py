"""Wiring only, no mathematics: each recipe turns an experiment into what a run steps. Importing this package registers them."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mbkit import registry
from mbkit.config import Experiment
from mbkit.errors import UserError
from mbkit.recipes import (
    combo,
    dyna,
    finetune,
    fresh,
    loop,
    mba,
    mbpo,
    mobile,
    mopo,
    morel,
    mve,
    offline,
    pets,
    rambo,
    random,
    replay,
    svg,
    trajectories,
)
from mbkit.recipes.assembly import Assembly, OfflineData
from mbkit.recipes.models import check_learned

if TYPE_CHECKING:  # options are checked before a simulator is imported
    from mbkit.envs import Environment

ALONE: dict[str, Callable[[Assembly[Any]], None]] = {
    "trajectories": trajectories.build,
    "replay": replay.build,
    "fresh": fresh.build,
}  # agents without a recipe, by what they learn from


def build(experiment: Experiment, env: "Environment | None", restored: bool = False, data: OfflineData | None = None) -> Assembly[Any]:
    """The parts of a recipe, or of an agent alone, in an environment or on a data set; `restored`: a checkpoint will fill them.

    Raises:
        UserError: options that contradict one another, or an agent that cannot be trained alone; unless `restored`, also a model that
            would be used before it learned anything.
    """
    x: Assembly[Any] = Assembly(experiment, env, data)
    if experiment.continues is not None:
        finetune.build(x, restored) if experiment.algo in registry.agents else finetune.build_recipe(x, restored)
        return x
    if data is not None and experiment.algo in registry.agents:
        offline.build(x)
        return x
    if experiment.algo in registry.recipes:
        entry = registry.recipes[experiment.algo]
        entry.target(x, x.part("imagination" if "agent" in entry.defaults else "agent").config)
    else:
        kinds = registry.agents[experiment.algo].learns_from
        kind = next((kind for kind in ALONE if kind in kinds), None)
        if kind is None:
            raise UserError(
                f"agent {experiment.algo!r} learns from {registry.experience(kinds)}; alone it is offered {registry.experience(ALONE)}"
            )
        ALONE[kind](x)
    if not restored:
        check_learned(experiment, x.dynamics)
    return x


__all__ = [
    "Assembly",
    "OfflineData",
    "build",
    "combo",
    "dyna",
    "loop",
    "mba",
    "mbpo",
    "mobile",
    "mopo",
    "morel",
    "mve",
    "pets",
    "rambo",
    "random",
    "svg",
]
