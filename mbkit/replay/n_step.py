"""n-step returns of replayed rows, summed when a batch is drawn.

Letters: B batch, O observation, A action.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from mbkit.replay.buffer import ReplayBuffer
from mbkit.types import Transition

PathBonus = Callable[[Tensor, Tensor], Tensor]  # (obs [N, O], action [N, A] or [N]) -> [N]


class NStep:
    """A source of n-step transitions: sums stop where the episode ended or the newest row is reached, `discount` counts the steps taken.

    `bonus` is added to the rewards of the steps after the first: a soft backup's term at the states in between, -alpha KL or alpha H.
    """

    def __init__(self, buffer: ReplayBuffer, steps: int, gamma: float, bonus: PathBonus | None = None) -> None:
        self.buffer, self.steps, self.gamma, self.bonus = buffer, steps, gamma, bonus

    def sample(self, n: int) -> Transition:
        """n rows [B]: reward sum_{i<k} gamma^i r_i, next_obs k steps on, discount gamma^(k-1) (1 - terminated), k <= steps."""
        return self.at(self.buffer.draw(n))

    def at(self, positions: Tensor) -> Transition:
        """The n-step transitions that begin with the rows at these positions [B]."""
        buffer, path = self.buffer, [positions]
        for _ in range(self.steps - 1):
            path.append(buffer.link[path[-1]])
        places = torch.stack(path)  # [steps, B]
        taken = places < buffer.capacity
        k = taken.sum(0)
        weight = self.gamma ** torch.arange(self.steps, device=positions.device)
        first, _ = buffer.unpack(buffer.data[positions])
        last, _ = buffer.unpack(buffer.data[places.gather(0, k[None] - 1)[0]])
        reward = torch.where(taken, self._rewards(torch.where(taken, places, positions)) * weight[:, None], 0).sum(0)
        return Transition(first.obs, first.action, reward, last.next_obs, weight[k - 1] * last.discount)

    @torch.no_grad()
    def _rewards(self, places: Tensor) -> Tensor:
        """Rewards of the rows at `places`, [steps, B], with the bonus from the second step on."""
        buffer = self.buffer
        reward = buffer.data[places, -3]
        if self.bonus is None or self.steps == 1:
            return reward
        later, _ = buffer.unpack(buffer.data[places[1:]])
        bonus = self.bonus(later.obs.flatten(0, 1), later.action.flatten(0, 1))
        return torch.cat((reward[:1], reward[1:] + bonus.reshape(self.steps - 1, -1)))
