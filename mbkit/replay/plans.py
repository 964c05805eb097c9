"""Executed plans: the observations that were planned for, and the mean of the plan there.

Letters: M environments, N rows drawn, O observation; a mean is [A], or probabilities [n] or [P, n] of discrete actions.
"""

import math

import torch
from torch import Tensor

from mbkit.errors import UserError, lacks_memory
from mbkit.types import EnvSpec, State


def mean_shape(spec: EnvSpec) -> tuple[int, ...]:
    """The shape of one step of a plan's mean: [A], [n], or [P, n] where P discrete actions are taken at once."""
    return (len(spec.parts), max(spec.parts)) if spec.parts else (spec.action_dim,)


class PlanBuffer:
    """The newest `capacity` executed plans, on `spec.device`; drawn uniformly, by random numbers of the buffer alone.

    What is drawn from it changes no other random numbers, so that a run plans the same with a policy distilled beside it.

    Raises:
        UserError: more rows than the memory of the device holds.
    """

    def __init__(self, capacity: int, spec: EnvSpec, seed: int) -> None:
        self.capacity, self.spec, self.shape = capacity, spec, mean_shape(spec)
        width = spec.obs_dim + math.prod(self.shape)
        try:
            self.data = torch.empty(capacity, width, device=spec.device)
        except (RuntimeError, MemoryError) as error:
            if not lacks_memory(error):
                raise
            raise UserError(f"imagination.distill_buffer={capacity} needs {4 * capacity * width} bytes; choose less") from error
        self.total = 0  # rows stored since the beginning; on the host, as the mask of valid rows is
        self.generator = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        """Rows stored."""
        return min(self.total, self.capacity)

    @torch.no_grad()
    def extend(self, obs: Tensor, mean: Tensor, mask: Tensor) -> None:
        """Append the rows obs [M, O], mean [M, ...] of the device where `mask`, bool [M] on the host, is true."""
        rows = torch.cat((obs, mean.reshape(len(mean), -1)), 1)
        if not bool(mask.all()):
            rows = rows[mask.nonzero().flatten().to(rows.device)]
        rows = rows[-self.capacity :]
        if not len(rows):
            return
        positions = (self.total + torch.arange(len(rows))) % self.capacity
        self.data.index_copy_(0, positions.to(rows.device), rows)
        self.total += len(rows)

    def sample(self, n: int) -> tuple[Tensor, Tensor]:
        """n rows drawn uniformly with replacement: obs [N, O] and mean [N, ...]."""
        index = torch.randint(len(self), (n,), generator=self.generator)
        obs, mean = self.data.index_select(0, index.to(self.data.device)).split_with_sizes((self.spec.obs_dim, math.prod(self.shape)), 1)
        return obs, mean.reshape(n, *self.shape)

    def state_dict(self) -> State:
        """A copy of the filled part on the CPU, the ring's position and the random state."""
        filled = self.data[: len(self)].to("cpu", copy=True)
        return {"data": filled, "capacity": self.capacity, "total": self.total, "random": self.generator.get_state()}

    def load_state_dict(self, state: State) -> None:
        """Continue exactly where the saved buffer was; UserError where capacity or dimensions differ."""
        saved, expected = (state["capacity"], state["data"].shape[1]), (self.capacity, self.data.shape[1])
        if saved != expected:
            raise UserError(f"the saved executed plans are {saved[0]} rows of {saved[1]} numbers, but this run expects {expected}")
        if len(state["data"]) != min(state["total"], self.capacity):
            raise UserError(f"the saved executed plans have {len(state['data'])} rows, of {state['total']} stored since the beginning")
        self.data[: len(state["data"])] = state["data"].to(self.data.device)
        self.total = int(state["total"])
        self.generator.set_state(state["random"])
