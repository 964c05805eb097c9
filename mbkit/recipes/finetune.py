"""An agent that has learned, mostly from a data set, and goes on in an environment: the wiring behind `mbkit finetune RUN`."""

from typing import Any

from mbkit.accelerate import same_random_numbers
from mbkit.agents.base import LearningAgent
from mbkit.config import FinetuneLoop, FinetuneModelLoop
from mbkit.errors import UserError
from mbkit.recipes.assembly import Assembly
from mbkit.recipes.offline import prepare
from mbkit.recipes.priors import fill
from mbkit.registry import recipes
from mbkit.replay.buffer import Experience
from mbkit.replay.mixture import Mixture
from mbkit.types import Learner, Recorded


def build(x: Assembly[FinetuneLoop], restored: bool) -> None:
    """The agent of another run acts, its steps are stored, and it is updated on batches of them and of its data set."""
    agent = x.agent()
    check(agent, x)
    source, ratio = x.real_data(agent), x.loop.offline_ratio
    if x.data is not None and x.data.present:
        with same_random_numbers():
            prepare(agent, x.recorded.all())
        if ratio:
            source = Mixture([x.recorded, source], [ratio, 1 - ratio], real=[True, True])
    if not restored:
        take_over(agent, str(x.experiment.continues))
    x.every_step(x.updates(agent, source))


def build_recipe(x: Assembly[FinetuneModelLoop], restored: bool) -> None:
    """A recipe goes on with the agent of another run and with its model; its replay begins with the rows of the data set.

    Raises:
        UserError: more rows than the replay holds.
    """
    entry = recipes[x.experiment.algo]
    entry.target(x, x.part("imagination").config)
    if x.has_rows and x.recorded.rows > x.replay.capacity:
        raise UserError(f"loop.buffer_size={x.replay.capacity}: expected at least the {x.recorded.rows} rows of the data set, and more")
    if x.has_rows:
        x.at_start(lambda: x.replay.extend(as_experience(x.recorded.all()), column=0))
    if not restored:
        take_over(x.actor, str(x.experiment.continues))


def as_experience(rows: Recorded) -> Experience:
    """Recorded rows, in order, as the steps of one environment."""
    return Experience(rows.obs, rows.action, rows.reward, rows.next_obs, rows.discount == 0, rows.next_known == 0)


def check(agent: Learner, x: Assembly[FinetuneLoop]) -> None:
    """UserError where an agent needs more of a row than what stepping an environment tells at once."""
    if getattr(agent, "recorded_only", False):
        raise UserError(
            f"{x.experiment.algo} cannot be fine-tuned: it learns from what follows each row of a data set, and not from transitions alone"
        )


def take_over(agent: Any, run: str) -> None:
    """The agent as it stands in another run: weights, optimizers, normaliser, temperature; learning rates are those that begin a run.

    Raises:
        UserError: no such checkpoint, or an agent with other networks.
    """
    rates = {name: float(o.param_groups[0]["lr"]) for name, o in agent.optimizers.items()} if isinstance(agent, LearningAgent) else {}
    from mbkit.data.run_replay import split

    directory, checkpoint = split(run)
    try:
        fill(agent, directory, checkpoint)
    except (UserError, KeyError, RuntimeError) as error:
        raise UserError(f"the agent of {run} cannot go on: {str(error).splitlines()[0]}") from error
    for name, rate in rates.items():
        agent.optimizers[name].set_lr(rate)  # type: ignore[attr-defined]
