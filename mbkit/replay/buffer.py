"""Device-resident replay: a ring of one-step rows, drawn uniformly.

Letters: M rows written at once, B batch, O observation, A action. Every row knows the row that follows it in its environment's column:
n-step sums (`n_step`), episodes and windows (`windows`) are walks along these links, and nothing but one-step rows is stored.
"""

import math
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from mbkit.errors import UserError, lacks_memory
from mbkit.replay.checks import check_rows
from mbkit.replay.in_place import NONE, written_in_place
from mbkit.storage import read_tensors, write_tensors
from mbkit.types import EnvSpec, State, Transition

FORMAT = "mbkit replay 1"
NUMBERS, TENSORS = ("capacity", "obs_dim", "action_dim", "discrete"), ("data", "link", "origin", "total", "open")
CONTENT = dict.fromkeys(NUMBERS, int) | dict.fromkeys(TENSORS, Tensor)  # of a saved buffer


class Experience(NamedTuple):
    """One step of M environments (row i is environment i), or M consecutive steps of one of them."""

    obs: Tensor  # [M, O]
    action: Tensor  # [M, A] in [-1, 1], or int64 [M] or [M, P]
    reward: Tensor  # [M]
    next_obs: Tensor  # [M, O] the true successor
    terminated: Tensor  # bool [M]
    ended: Tensor  # bool [M] terminated, truncated, or cut for any other reason


class ReplayBuffer:
    """The last `capacity` one-step rows, packed into one matrix on `spec.device` so that a batch is one gather.

    Row number s since the beginning lies at s % capacity; masked rows are written to one more row behind the ring, so that writing has
    a static shape and, like `sample`, can be captured in a CUDA graph (after one eager call with as many columns).

    Raises:
        UserError: a capacity below 1, or more than the memory of the device holds.
    """

    def __init__(self, capacity: int, spec: EnvSpec) -> None:
        if capacity < 1:
            raise UserError(f"the replay capacity must be at least 1 row, not {capacity}")
        self.capacity, self.spec = capacity, spec
        action = math.prod(spec.action_shape)
        self.widths = (spec.obs_dim, action, spec.obs_dim, 1, 1, 1)  # obs, action, next_obs, reward, discount, ended
        size = min(capacity, 2**60) + 1  # torch fails in another way where a size is no int64
        try:
            self.data = torch.empty(size, sum(self.widths), device=spec.device)  # zeros would touch every page: seconds for wide rows
            self.link = torch.full((size,), capacity, device=spec.device)  # where the next step of the same episode lies
            self.origin = torch.zeros(size, 2, dtype=torch.int64, device=spec.device)  # column, and whether an episode begins here
        except (RuntimeError, MemoryError) as error:
            if not lacks_memory(error):
                raise
            size_bytes = (capacity + 1) * (4 * sum(self.widths) + 3 * 8)
            raise UserError(f"loop.buffer_size={capacity} needs {size_bytes} bytes, more than {spec.device} has; choose less") from error
        self.data[capacity] = 0  # read, with weight 0, before anything is written there
        self.total = torch.zeros((), dtype=torch.int64, device=spec.device)  # rows stored since the beginning
        self.size = torch.zeros_like(self.total)  # rows stored, at most `capacity`
        self.open = torch.empty(0, dtype=torch.int64, device=spec.device)  # per column: sequence number of the row to be continued
        self.offered = 0  # rows passed to `extend`, masked or not: known without synchronising

    def __len__(self) -> int:
        """Rows stored; on a GPU this synchronises with the device."""
        return int(self.size)

    @torch.no_grad()
    def extend(self, rows: Experience, mask: Tensor | None = None, column: int | None = None) -> None:
        """Append rows where `mask` [M] is true; a masked row cuts its column: rows before and after it are not linked.

        Args:
            rows: M rows, each field on any device (actions often come from a GPU, observations from the CPU).
            mask: bool [M]; None stores all.
            column: None: row i belongs to environment i. A number: the rows are consecutive steps of that environment.

        Raises:
            UserError: more rows at once than the buffer can hold.
            ValueError: the rows do not have the widths of the specification.
        """
        if column is None and written_in_place(self, rows, mask):
            return
        device = self.data.device  # a copy to the CPU must be synchronous, or it is read before it arrived
        packed = torch.cat([x.to(device, non_blocking=device.type != "cpu") for x in self.fields(rows)], 1)
        self.write(packed, None if mask is None else mask.to(device), column)
        self.offered += len(packed)

    @torch.no_grad()
    def write(self, packed: Tensor, mask: Tensor | None = None, column: int | None = None) -> None:
        """Append `packed` rows [M, W] of the device, as `extend` does; can be captured, after one call with as many columns."""
        m, c = packed.shape[0], self.capacity
        ended = packed[:, -1] != 0
        if mask is None:
            sequence = self.total + torch.arange(m, device=packed.device)
            position, total, continues = sequence % c, self.total + m, ~ended
        else:
            sequence = self.total + mask.cumsum(0) - 1
            position, total, continues = torch.where(mask, sequence % c, c), self.total + mask.sum(), mask & ~ended
        previous = self._continue(torch.where(continues, sequence, NONE), column)
        linked = previous >= total - c  # it exists, and this very write doesn't overwrite it
        self.data.index_copy_(0, position, packed)
        columns = torch.arange(m, device=packed.device) if column is None else torch.full((m,), column, device=packed.device)
        self.origin.index_copy_(0, position, torch.stack([columns, (previous < 0).long()], 1))
        self.link.index_fill_(0, position, c)
        self.link.index_copy_(0, torch.where(linked, previous % c, c), position)
        self.link[c:].fill_(c)  # setting an item would copy a number from the host, and wait for it
        self.total.copy_(total)
        self.size.copy_(total.clamp(max=c))

    def cut(self) -> None:
        """The running episodes are over without a recorded end: no later row is linked to those stored so far."""
        self.open.fill_(NONE)

    def fields(self, rows: Experience) -> list[Tensor]:
        """What is stored of the rows: float matrices [M, w], where they are, whose columns side by side are the W of a row."""
        m = rows.reward.shape[0]
        if m > self.capacity:
            raise UserError(f"the replay buffer holds {self.capacity} rows, but {m} were written at once; give it a larger capacity")
        ended = rows.ended | rows.terminated.to(rows.ended.device)
        fields = (rows.obs, rows.action, rows.next_obs, rows.reward, ~rows.terminated, ended)
        columns = [x.reshape(m, -1).float() for x in fields]
        if sum(x.shape[1] for x in columns) != self.data.shape[1]:
            shapes = [tuple(x.shape) for x in rows]
            raise ValueError(f"rows of shapes {shapes} do not fit a buffer made for {self.spec}")
        return columns

    def _continue(self, opened: Tensor, column: int | None) -> Tensor:
        """Sequence number [M] of the row before each row in its column; sets `open` to `opened` [M], rows that later ones may continue."""
        columns = opened.shape[0] if column is None else column + 1
        self._grow(columns)
        if column is None:
            previous = self.open[:columns].clone()
            self.open[:columns] = opened
        else:
            previous = torch.cat([self.open[column:columns], opened[:-1]])
            self.open[column:columns] = opened[-1:]
        return previous

    def _grow(self, columns: int) -> None:
        """Memory for at least so many columns; the tensor is replaced only where it has to grow."""
        if columns > self.open.shape[0]:
            self.open = torch.cat([self.open, self.open.new_full((columns - self.open.shape[0],), NONE)])

    def draw(self, n: int) -> Tensor:
        """Positions of n uniformly drawn rows, int64 [n]; float64, since float32 cannot reach every row of a large buffer."""
        if not self.offered:
            raise ValueError("cannot sample from an empty replay buffer")
        return (torch.rand(n, dtype=torch.float64, device=self.data.device) * self.size).long()

    def transition(self, packed: Tensor) -> Transition:
        """Views of packed rows [..., W]."""
        obs, action, next_obs, reward, discount, _ = packed.split_with_sizes(self.widths, -1)
        if self.spec.discrete:
            action = action.long() if self.spec.parts else action[..., 0].long()
        return Transition(obs, action, reward[..., 0], next_obs, discount[..., 0])

    def unpack(self, packed: Tensor) -> tuple[Transition, Tensor]:
        """The transition of packed rows [..., W], views of them, and `ended`."""
        return self.transition(packed), packed[..., -1] != 0

    def sample(self, n: int) -> Transition:
        """n rows drawn uniformly with replacement; `discount` = 1 - terminated."""
        return self.transition(self.data.index_select(0, self.draw(n)))

    def order(self) -> Tensor:
        """Positions of the rows, oldest first: int64 [size]. Synchronises with the device."""
        size = len(self)
        return (self.total - size + torch.arange(size, device=self.data.device)) % self.capacity

    def rows_at(self, positions: Tensor) -> Experience:
        """The rows at these positions, [..., M]."""
        batch, ended = self.unpack(self.data[positions])
        return Experience(batch.obs, batch.action, batch.reward, batch.next_obs, batch.discount == 0, ended)

    def all(self) -> Transition:
        """Every one-step row, oldest first; a copy."""
        return self.unpack(self.data[self.order()])[0]

    def actions_at(self, positions: Tensor) -> Tensor:
        """The actions of the rows at these positions [B], as `unpack` gives them."""
        begin, width = self.widths[0], self.widths[1]
        action = self.data[positions, begin : begin + width]
        if not self.spec.discrete:
            return action
        return action.long() if self.spec.parts else action[:, 0].long()

    def state_dict(self) -> State:
        """Copies of the filled part, the ring's position and the open episodes, on the CPU."""
        size = len(self)
        filled = {"data": self.data[:size], "link": self.link[:size], "origin": self.origin[:size], "total": self.total, "open": self.open}
        shape = {name: value for name, value in self.spec._asdict().items() if name != "device"}
        return {"capacity": self.capacity, **shape, **{name: x.to("cpu", copy=True) for name, x in filled.items()}}

    def load_state_dict(self, state: State) -> None:
        """Continue exactly where the saved buffer was; UserError where capacity or dimensions differ."""
        for name, expected in (("capacity", self.capacity), *self.spec._asdict().items()):
            saved = state.get(name, ()) if name == "parts" else state.get(name)  # buffers of earlier versions have no `parts`
            if name != "device" and saved != expected:
                raise UserError(f"the saved replay buffer has {name} {saved}, but this run expects {expected}")
        check_rows(state, self.capacity, self.data.shape[1])
        size = len(state["data"])
        self.data[:size], self.origin[:size] = state["data"].to(self.data.device), state["origin"].to(self.data.device)
        self.link.fill_(self.capacity)[:size] = state["link"].to(self.link.device)
        self.total.copy_(state["total"])
        self.size.fill_(size)
        self._grow(len(state["open"]))
        self.open.fill_(NONE)[: len(state["open"])] = state["open"].to(self.open.device)
        self.offered = int(state["total"])

    def save(self, path: str | Path) -> None:
        """Write the buffer to one file, whole or not at all; UserError where the disk refuses."""
        write_tensors(path, FORMAT, self.state_dict())

    @classmethod
    def load(cls, path: str | Path, device: torch.device | str = "cpu") -> "ReplayBuffer":
        """The buffer that `save` wrote; UserError where the file is something else or cut short."""
        state = read_tensors(path, FORMAT, CONTENT)
        spec = EnvSpec(state["obs_dim"], state["action_dim"], torch.device(device), state["discrete"], state.get("parts", ()))
        buffer = cls(state["capacity"], spec)
        buffer.load_state_dict(state)
        return buffer
