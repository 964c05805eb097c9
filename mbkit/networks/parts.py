"""Several discrete actions taken at once, of n_1 .. n_P actions: tables with a row for each part, and vectors of the parts side by side.

Letters: P parts, N the largest of their numbers of actions, A their sum. A task with such actions is a MultiDiscrete, MultiBinary or
whole-number Box of Gymnasium; `parts` is (n_1, .., n_P). Index tensors are cached for good, since a captured graph may hold them.
"""

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

Parts = tuple[int, ...]


@cache
def places(parts: Parts, device: torch.device) -> Tensor:
    """Where a table's entries lie in a vector, int64 [P N]; A where a part has no such action."""
    begins, largest = [sum(parts[:i]) for i in range(len(parts))], max(parts)
    rows = [[begin + k if k < n else sum(parts) for k in range(largest)] for begin, n in zip(begins, parts, strict=True)]
    return torch.tensor(rows, device=device).flatten()


@cache
def entries(parts: Parts, device: torch.device) -> Tensor:
    """Where a vector's entries lie in a table, int64 [A]: the inverse of `places`."""
    largest = max(parts)
    return torch.tensor([row * largest + k for row, n in enumerate(parts) for k in range(n)], device=device)


@cache
def counts(parts: Parts, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The number of actions of each part at each of its actions, [P, N]; infinite where it has no such action."""
    sizes = torch.tensor(parts, dtype=dtype)[:, None].expand(-1, max(parts))
    return torch.where(torch.arange(max(parts)) < sizes, sizes, torch.inf).to(device)


def as_table(vector: Tensor, parts: Parts, fill: float) -> Tensor:
    """[..., A] -> [..., P, N], with `fill` where a part has no such action."""
    if min(parts) < max(parts):
        vector = F.pad(vector, (0, 1), value=fill).index_select(-1, places(parts, vector.device))
    return vector.reshape(*vector.shape[:-1], len(parts), max(parts))


def as_vector(table: Tensor, parts: Parts) -> Tensor:
    """Inverse of `as_table`: [..., P, N] -> [..., A]."""
    vector = table.flatten(-2)
    return vector.index_select(-1, entries(parts, table.device)) if min(parts) < max(parts) else vector


def one_hot_parts(action: Tensor, parts: Parts) -> Tensor:
    """The one-hot vectors of actions int64 [..., P] side by side, float32 [..., A]; does not synchronise with the host."""
    return as_vector(action[..., None] == torch.arange(max(parts), device=action.device), parts).float()
