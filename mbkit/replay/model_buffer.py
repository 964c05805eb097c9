"""A device-resident ring of model transitions, which grows with the rollouts. M rows written at once, O observation, A action."""

import math

import torch
from torch import Tensor

from mbkit.errors import UserError, lacks_memory
from mbkit.types import EnvSpec, State, Transition

GIGABYTE = 1e9


class ModelBuffer:
    """A ring of model transitions whose `limit` may grow up to `capacity`; rows are packed, without the links of a replay buffer.

    Memory is allocated once, so that addresses stay; it is not initialised, so that a CPU's system provides it as it is filled.
    Counters are device tensors: `extend` and `sample` have static shapes and do not synchronise with the host. `weighted`: every row has a
    weight in the critics' loss.

    Raises:
        UserError: not even one row fits into `memory_gb`, or the device has less memory.
    """

    def __init__(self, capacity: int, spec: EnvSpec, memory_gb: float = 4.0, weighted: bool = False) -> None:
        self.spec, self.weighted = spec, weighted
        self.widths = (spec.obs_dim, math.prod(spec.action_shape), 1, spec.obs_dim, 1, int(weighted))  # in the order of a Transition
        self.row_bytes = 4 * sum(self.widths)
        self.most = int(memory_gb * GIGABYTE / self.row_bytes)  # rows that fit into `memory_gb`
        if self.most < 1:
            raise UserError(f"imagination.memory_gb={memory_gb} holds no row of {self.row_bytes} bytes; expected more")
        self.capacity = min(capacity, self.most)
        self.limit = self.capacity  # rows stored at most; the first `grow` may set fewer
        try:
            self.data = torch.empty(self.capacity + 1, sum(self.widths), device=spec.device)  # masked rows are written to the last one
        except (RuntimeError, MemoryError) as error:
            if not lacks_memory(error):
                raise
            request = f"imagination.memory_gb={memory_gb} lets the model buffer allocate {self.gigabytes:.2g} GB"
            raise UserError(f"{request}, more than {spec.device} has; choose less") from error
        self.data[:1] = 0  # what `sample` reads of an empty ring
        self.cursor = torch.zeros((), dtype=torch.int64, device=spec.device)  # where the next row goes
        self.size = torch.zeros((), dtype=torch.int64, device=spec.device)

    @property
    def gigabytes(self) -> float:
        """Memory of `capacity` rows, in units of 1e9 bytes."""
        return self.capacity * self.row_bytes / GIGABYTE

    def __len__(self) -> int:
        """Rows stored; on a GPU this synchronises with the device."""
        return int(self.size)

    def grow(self, limit: int) -> None:
        """Store up to `limit` rows from now on, at most `capacity`, never fewer than before; the oldest rows are overwritten first."""
        limit = min(limit, self.capacity)
        if limit <= self.limit and len(self):
            return
        if len(self) == self.limit:  # the ring was full: unroll it, so that the oldest row lies first
            self.data[: self.limit] = self.data[: self.limit].roll(-int(self.cursor), 0)
            self.cursor.fill_(self.limit % limit)
        self.limit = limit

    @torch.no_grad()
    def extend(self, batch: Transition, mask: Tensor) -> None:
        """Append the rows [M] where `mask` bool [M] is true; of more than `limit` rows the last ones remain."""
        rows = len(batch.reward)
        weight = [torch.ones_like(batch.reward) if batch.weight is None else batch.weight] if self.weighted else []
        packed = torch.cat([x.reshape(rows, -1).float() for x in (*batch[:5], *weight)], 1)
        for part, valid in zip(torch.split(packed, self.limit), torch.split(mask, self.limit), strict=True):
            position = torch.where(valid, (self.cursor + valid.cumsum(0) - 1) % self.limit, self.capacity)
            self.data.index_copy_(0, position, part)
            added = valid.sum()
            self.cursor.add_(added).remainder_(self.limit)
            self.size.add_(added).clamp_(max=self.limit)

    def sample(self, n: int) -> Transition:
        """n rows drawn uniformly with replacement; at least one must have been stored."""
        drawn = (torch.rand(n, dtype=torch.float64, device=self.data.device) * self.size).long()
        return self._unpack(self.data.index_select(0, drawn))

    def all(self) -> Transition:
        """Every row, in no particular order."""
        return self._unpack(self.data[: len(self)])

    def _unpack(self, packed: Tensor) -> Transition:
        obs, action, reward, next_obs, discount, weight = packed.split_with_sizes(self.widths, -1)
        if self.spec.discrete:
            action = action.long() if self.spec.parts else action[:, 0].long()
        return Transition(obs, action, reward[:, 0], next_obs, discount[:, 0], weight=weight[:, 0] if self.weighted else None)

    def state_dict(self) -> State:
        """A copy of the filled part and the ring's position, on the CPU."""
        filled = {"data": self.data[: len(self)], "cursor": self.cursor, "size": self.size}
        return {"limit": self.limit, **{name: x.to("cpu", copy=True) for name, x in filled.items()}}

    def load_state_dict(self, state: State) -> None:
        """Continue where the saved ring was, in place; UserError where it does not fit."""
        rows, width = state["data"].shape
        if state["limit"] > self.capacity or width != self.data.shape[1]:
            saved = f"{state['limit']} rows of {width} numbers"
            raise UserError(f"the saved model buffer has {saved}, but this run holds {self.capacity} of {self.data.shape[1]}")
        size, cursor = int(state["size"]), int(state["cursor"])
        if not (state["limit"] >= 1 and size == rows <= state["limit"] and 0 <= cursor < state["limit"]):
            raise UserError(f"the saved model buffer has {rows} rows, size {size} and cursor {cursor} of at most {state['limit']}")
        self.limit = int(state["limit"])
        self.data[:rows] = state["data"].to(self.data.device)
        self.cursor.copy_(state["cursor"])
        self.size.copy_(state["size"])
