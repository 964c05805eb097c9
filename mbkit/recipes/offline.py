"""An agent alone that learns from a data set: the wiring behind `mbkit train iql data=FILE` and the like."""

from mbkit import registry
from mbkit.accelerate import same_random_numbers
from mbkit.agents.critics import distributions_of
from mbkit.agents.policy_gradient.on_policy import OnPolicyAgent
from mbkit.config import OfflineLoop
from mbkit.errors import UserError
from mbkit.loops import Hook, scale_to_data
from mbkit.loops.shift import Shift
from mbkit.networks.normalizer import RunningNormalizer
from mbkit.recipes.assembly import Assembly
from mbkit.types import Learner, Recorded, TrajectoryLearner


def build(x: Assembly[OfflineLoop]) -> None:
    """An agent whose targets are its own."""
    learn(x, x.agent())


def learn(x: Assembly[OfflineLoop], agent: Learner) -> None:
    """The agent is updated on batches drawn from the data set."""
    if taken(agent, x):
        x.every_step(x.updates(agent, x.recorded), *shift(agent, x))


def taken(agent: Learner | TrajectoryLearner, x: Assembly[OfflineLoop]) -> bool:
    """Let an agent take what it needs of the whole data set; whether the data set is at hand, without which an agent only acts."""
    check(agent, x)
    if not x.has_rows:
        return False
    with same_random_numbers():
        data = x.recorded.all()
        prepare(agent, data)
        if (outputs := distributions_of(agent)) is not None:
            scale_to_data(outputs, data, x.experiment.gamma, getattr(agent, "reward_factor", None))
    return True


def shift(agent: Learner, x: Assembly[OfflineLoop]) -> list[Hook]:
    """The hook that measures the shift of an agent which has no such measures of its own."""
    measures_itself = "dataset" in registry.agents[x.part("agent").name].learns_from
    return [] if measures_itself else [Shift(agent, x.recorded, x.loop.log_every)]


def prepare(agent: Learner | TrajectoryLearner, data: Recorded) -> None:
    """Statistics of the data set [N], by which an agent scales observations and rewards, and what else it takes from all rows at once."""
    if isinstance(agent, OnPolicyAgent):
        if isinstance(agent.normalizer, RunningNormalizer):
            agent.normalizer.update(data.obs)
    elif callable(own_way := getattr(agent, "prepare", None)):
        own_way(data)
    elif hasattr(agent, "normalizer"):
        agent.normalizer.update(data.obs)


def check(agent: Learner | TrajectoryLearner, x: Assembly[OfflineLoop]) -> None:
    """UserError where a data set lacks rewards, or a captured graph would not hold whole cycles of the agent's updates."""
    at_once, cycle = x.loop.updates_at_once, getattr(agent, "cycle", 1)
    if x.data is not None and x.data.present and not x.data.has_reward and getattr(agent, "uses_reward", True):
        raise UserError(f"data={x.experiment.data} has no rewards, which {x.experiment.algo} learns from; expected bc, which needs none")
    if x.loop.mode == "cudagraph" and at_once % cycle:
        raise UserError(
            f"loop.updates_at_once={at_once}: {x.part('agent').name} repeats its work every {cycle} updates; "
            f"expected a multiple of {cycle} with loop.mode=cudagraph"
        )
