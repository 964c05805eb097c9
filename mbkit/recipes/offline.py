"""An agent alone that learns from a data set: the wiring behind `mbkit train iql data=FILE` and the like."""

from mbkit import registry
from mbkit.accelerate import same_random_numbers
from mbkit.config import OfflineLoop
from mbkit.errors import UserError
from mbkit.loops.shift import Shift
from mbkit.recipes.assembly import Assembly
from mbkit.types import Learner, Recorded


def build(x: Assembly[OfflineLoop]) -> None:
    """The agent takes what it needs of the whole data set, and is then updated on batches drawn from it."""
    agent = x.agent()
    check(agent, x)
    if x.data is not None and x.data.present:
        with same_random_numbers():
            prepare(agent, x.recorded.all())
        x.every_step(x.updates(agent, x.recorded))
        if "dataset" not in registry.agents[x.part("agent").name].learns_from:
            x.every_step(Shift(agent, x.recorded, x.loop.log_every))


def prepare(agent: Learner, data: Recorded) -> None:
    """Statistics of the data set [N], by which an agent scales observations and rewards, and what else it takes from all rows at once."""
    if callable(own_way := getattr(agent, "prepare", None)):
        own_way(data)
    elif hasattr(agent, "normalizer"):
        agent.normalizer.update(data.obs)


def check(agent: Learner, x: Assembly[OfflineLoop]) -> None:
    """UserError where a captured graph would not hold whole cycles of the agent's updates."""
    at_once = x.loop.updates_at_once
    if x.loop.mode == "cudagraph" and at_once % agent.cycle:
        raise UserError(
            f"loop.updates_at_once={at_once}: {x.experiment.algo} repeats its work every {agent.cycle} updates; "
            f"expected a multiple of {agent.cycle} with loop.mode=cudagraph"
        )
