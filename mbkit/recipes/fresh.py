"""An agent alone that learns on-policy from its newest transitions, each used once: the wiring behind `mbkit train dpg`."""

import math

from mbkit.config import FreshLoop
from mbkit.errors import UserError
from mbkit.recipes.assembly import Assembly
from mbkit.replay.buffer import ReplayBuffer
from mbkit.replay.windows import Newest


def build(x: Assembly[FreshLoop]) -> None:
    """The agent acts, and it is updated on the transitions since its last update."""
    check(x.experiment.algo, x.loop)
    agent = x.agent()
    newest = x.stores(ReplayBuffer(max(x.loop.batch_size, x.loop.num_envs), x.spec))
    x.every_step(x.updates(agent, Newest(newest)))


def check(name: str, loop: FreshLoop) -> None:
    """UserError where a transition would be used more than once."""
    often = loop.updates_per_step * loop.num_envs  # updates for each step of all environments
    new = loop.num_envs * math.floor(1 / often + 1e-9) if often else math.inf  # the fewest rows that arrive between two updates
    if loop.batch_size > new:
        raise UserError(
            f"{name} learns on-policy, from each transition once: of loop.batch_size={loop.batch_size} as few as {new} are new each time; "
            f"choose less of it or of loop.updates_per_step={loop.updates_per_step:g}, or another loop.num_envs, now {loop.num_envs}"
        )
