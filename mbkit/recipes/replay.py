"""An agent alone that learns from replayed transitions: the wiring behind `mbkit train sac`, `mbkit train dqn` and the like."""

from mbkit.config import ReplayLoop
from mbkit.recipes.assembly import Assembly


def build(x: Assembly[ReplayLoop]) -> None:
    """The agent acts, its steps are stored, and after each step it is updated on batches drawn from them."""
    agent = x.agent()
    x.every_step(x.updates(agent, x.real_data(agent)))
