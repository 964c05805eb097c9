"""The return scale of critics whose values are distributions: rewards divided by it have returns within a fixed support.

As in SimbaV2 (arXiv:2502.15280, section 4.3): the larger of the standard deviation of discounted returns and the largest of them divided by
the support's bound. Letters: M environments, N rows in order.
"""

import math
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import Tensor

from mbkit.networks.values import BOUND, Distributional
from mbkit.types import Recorded, State

if TYPE_CHECKING:
    from mbkit.loops.clock import Clock
    from mbkit.loops.online import Online


def return_scale(deviation: float, largest: float) -> float:
    """The scale, from the standard deviation and the largest |return|; 1 where all rewards were 0."""
    return max(deviation, largest / BOUND) or 1.0


class ReturnScale:
    """A hook that keeps discounted sums of the rewards so far, G <- gamma G + r, and their statistics; writes the scale in place.

    Args:
        outputs: of the critics.
        gamma: discount factor.
        factor: what the agent multiplies rewards by, 0-d; None: nothing.
        continues: the agent has learned in another run; the scale that the outputs have at the first step is then the least.
    """

    def __init__(self, outputs: Distributional, gamma: float, factor: Tensor | None = None, continues: bool = False) -> None:
        self.outputs, self.gamma, self.factor, self.continues = outputs, gamma, factor, continues
        self.running = np.zeros(0)  # [M] G
        self.count, self.mean, self.squares, self.largest = 0, 0.0, 0.0, 0.0

    def __call__(self, clock: "Clock") -> None:
        """Take the rewards of this step."""
        online = cast("Online", clock)
        reward, ended, valid = online.step_reward, online.step_ended, online.env.valid.numpy()
        if not len(self.running):
            self.running = np.zeros(len(reward))
            self.largest = BOUND * float(self.outputs.scale) if self.continues else 0.0
        self.running = self.gamma * self.running + (reward if self.factor is None else float(self.factor) * reward)
        for g in self.running[valid].tolist():  # Welford's recursion; a row that was only a reset is none
            self.count += 1
            gap = g - self.mean
            self.mean += gap / self.count
            self.squares += gap * (g - self.mean)
            self.largest = max(self.largest, abs(g))
        self.running[ended] = 0.0
        self.outputs.scale.fill_(return_scale(math.sqrt(self.squares / max(self.count, 1)), self.largest))

    def state_dict(self) -> State:
        """The sums and their statistics."""
        numbers = {name: getattr(self, name) for name in ("count", "mean", "squares", "largest")}
        return {**numbers, "running": torch.from_numpy(self.running.copy())}

    def load_state_dict(self, state: State) -> None:
        """Inverse of `state_dict`; the scale itself is the agent's."""
        for name in ("count", "mean", "squares", "largest"):
            setattr(self, name, state[name])
        self.running = state["running"].numpy().copy()


def discounted_returns(data: Recorded, gamma: float) -> Tensor:
    """The discounted sum of rewards from every row to the end of its episode, [N], rows in order; by sums over 1, 2, 4, ... steps."""
    total = data.reward.double()
    follows = data.next_known != 0  # the row `step` later is of the same episode
    step = 1
    while step < len(total) and bool(follows.any()):
        later = torch.cat((total[step:], total.new_zeros(step)))
        total = total + torch.where(follows, gamma**step * later, 0.0)
        follows = follows & torch.cat((follows[step:], follows.new_zeros(step)))
        step *= 2
    return total


def scale_to_data(outputs: Distributional, data: Recorded, gamma: float, factor: Tensor | None = None) -> None:
    """Set the scale by the returns of a whole data set, whose rewards the agent multiplies by `factor`, 0-d; None: as they are."""
    returns = discounted_returns(data, gamma) * (1.0 if factor is None else factor)
    outputs.scale.fill_(return_scale(float(returns.std(correction=0)), float(returns.abs().max())))
