"""Several seeds of one agent, updated together: one agent whose tensors have the seeds as a further dimension."""

from collections.abc import Sequence
from copy import deepcopy
from typing import TypeVar

from mbkit.agents.base import LearningAgent
from mbkit.networks.stacked import stack_, stack_optimizer

A = TypeVar("A", bound=LearningAgent)


def stacked(agents: Sequence[A]) -> A:
    """One agent for the updates of S agents of the same settings, in the same place of their cycle.

    Its `update` takes batches [S, B, ...] and returns metrics [S]. Networks, temperatures, moments and counters of the S agents are views
    of its own, so that each of them acts, is scored and is stored as if it had been updated alone.
    """
    first = agents[0]
    together = deepcopy(first)
    names = {id(p): name for name, p in first.named_parameters()}
    stacking = stack_(together, agents)
    params = dict(together.named_parameters())
    for name, optimizer in first.optimizers.items():
        theirs = [params[names[id(p)]] for p in optimizer.param_groups[0]["params"]]
        together.optimizers[name] = stack_optimizer(theirs, [agent.optimizers[name] for agent in agents], stacking)
    return together
