"""An agent that has learned, mostly from a data set, and goes on in an environment: the wiring behind `mbkit finetune RUN`."""

from mbkit.accelerate import same_random_numbers
from mbkit.agents.base import LearningAgent
from mbkit.config import FinetuneLoop
from mbkit.errors import UserError
from mbkit.recipes.assembly import Assembly
from mbkit.recipes.offline import prepare
from mbkit.recipes.priors import fill
from mbkit.replay.mixture import Mixture
from mbkit.types import Learner


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


def check(agent: Learner, x: Assembly[FinetuneLoop]) -> None:
    """UserError where an agent needs more of a row than what stepping an environment tells at once."""
    if getattr(agent, "recorded_only", False):
        raise UserError(
            f"{x.experiment.algo} cannot be fine-tuned: it learns from what follows each row of a data set, and not from transitions alone"
        )


def take_over(agent: Learner, run: str) -> None:
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
