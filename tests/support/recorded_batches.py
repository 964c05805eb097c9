"""Data sets of a few rows as `Recorded` batches, in order."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mbkit.types import Recorded


def recorded(obs: Tensor, action: Tensor, reward: Tensor, next_obs: Tensor, discount: Tensor, lengths: Sequence[int]) -> Recorded:
    """A whole data set of episodes of these lengths, [N]."""
    n = len(reward)
    next_known, return_to_go, end = torch.ones(n), reward.clone(), 0
    for length in lengths:
        end += length
        next_known[end - 1] = 0
        for i in reversed(range(end - length, end - 1)):
            return_to_go[i] += return_to_go[i + 1]
    assert end == n
    return Recorded(obs, action, reward, next_obs, discount, None, None, action.roll(-1, 0), next_known, return_to_go, torch.arange(n))


def rows_of(data: Recorded, index: Tensor) -> Recorded:
    """The batch of these rows, int64 [B]."""
    return Recorded(*(None if field is None else field[index] for field in data))
