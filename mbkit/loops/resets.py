"""Resets of an agent's networks, against what critics that are trained often forget to learn (Nikishin et al. 2022, arXiv:2205.07802)."""

from collections.abc import Callable

import torch

from mbkit.agents.base import LearningAgent


class Resets:
    """Begins an agent's networks anew whenever a number of updates is reached; its data stay.

    Args:
        agent: whose parameters, target networks included, and optimizer moments are written in place: a captured graph may hold them.
        every: updates from one reset to the next.
        fresh: makes an agent of the same settings, with new random numbers of the run.
    """

    def __init__(self, agent: LearningAgent, every: int, fresh: Callable[[], LearningAgent]) -> None:
        self.agent, self.every, self.fresh = agent, every, fresh

    def after(self, before: int, now: int) -> None:
        """The number of updates has grown from `before` to `now`: reset where that passed a multiple of `every`."""
        if now // self.every > before // self.every:
            begin_anew_(self.agent, self.fresh())


@torch.no_grad()
def begin_anew_(agent: LearningAgent, fresh: LearningAgent) -> None:
    """Give an agent the parameters of a fresh one, and its optimizers no memory; normalisers and the return scale, buffers, stay."""
    for mine, new in zip(agent.parameters(), fresh.parameters(), strict=True):
        mine.copy_(new)
    for optimizer in agent.optimizers.values():
        for slots in optimizer.state.values():
            for value in slots.values():
                value.zero_()
