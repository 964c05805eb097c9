"""Device-resident replay: a ring of one-step rows, and the views learners want of it.

Letters: M rows written at once, B batch, L window length, O observation, A action. Every row knows the row that follows it in its
environment's column, so n-step sums, whole episodes and windows are walks along links and nothing but one-step rows is stored.
"""

import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import NamedTuple
from zipfile import BadZipFile, ZipFile

import torch
from torch import Tensor

from mbkit.types import EnvSpec, Source, State, Transition, UserError

FORMAT = "mbkit replay 1"
NUMBERS, TENSORS = ("capacity", "obs_dim", "action_dim", "discrete"), ("data", "link", "origin", "total", "open")
PARTS = dict.fromkeys(NUMBERS, int) | dict.fromkeys(TENSORS, Tensor)  # of a saved buffer
DIRECTORY = 0x10  # bit that marks a zip entry as a directory: torch.load would fill its tensor with uninitialised memory
FEW = 32  # rows that are linked one by one rather than scattered
NONE = -(2**62)  # sequence number of a row that does not exist: older than any


class Rows(NamedTuple):
    """One step of M environments (row i is environment i), or M consecutive steps of one of them."""

    obs: Tensor  # [M, O]
    action: Tensor  # [M, A] in [-1, 1], or [M] int64
    reward: Tensor  # [M]
    next_obs: Tensor  # [M, O] the true successor
    terminated: Tensor  # bool [M]
    ended: Tensor  # bool [M] terminated, truncated, or cut for any other reason


class Windows(NamedTuple):
    """Stretches of L consecutive steps; only the last of them may have ended its episode."""

    obs: Tensor  # [B, L+1, O]
    action: Tensor  # [B, L, A] or [B, L]
    reward: Tensor  # [B, L]


class ReplayBuffer:
    """The last `capacity` one-step rows, packed into one matrix on `spec.device` so that a batch is one gather.

    Row number s since the beginning lies at s % capacity; one more row behind the ring takes whatever is masked away, so that writing
    has a static shape and, like `sample`, can be captured in a CUDA graph (after one eager call with as many columns).

    Raises:
        UserError: no row at all, or more than the memory of the device holds.
    """

    def __init__(self, capacity: int, spec: EnvSpec) -> None:
        if capacity < 1:
            raise UserError(f"the replay capacity must be at least 1 row, not {capacity}")
        self.capacity, self.spec = capacity, spec
        action = 1 if spec.discrete else spec.action_dim
        self.widths = (spec.obs_dim, action, spec.obs_dim, 1, 1, 1)  # obs, action, next_obs, reward, discount, ended
        size = min(capacity, 2**60) + 1  # torch cannot even refuse what is no int64
        try:
            self.data = torch.zeros(size, sum(self.widths), device=spec.device)
            self.link = torch.full((size,), capacity, device=spec.device)  # where the next step of the same episode lies
            self.origin = torch.zeros(size, 2, dtype=torch.int64, device=spec.device)  # column, and whether an episode begins here
        except (RuntimeError, MemoryError) as error:
            wanted = (capacity + 1) * (4 * sum(self.widths) + 3 * 8)
            raise UserError(
                f"loop.buffer_size={capacity} asks for {wanted} bytes, more than {spec.device} can give; choose less"
            ) from error
        self.total = torch.zeros((), dtype=torch.int64, device=spec.device)  # rows kept since the beginning
        self.open = torch.empty(0, dtype=torch.int64, device=spec.device)  # per column: sequence number of the row to be continued
        self.offered = 0  # rows given to `extend`, masked or not: known without asking the device

    @property
    def size(self) -> Tensor:
        """Rows held, a 0-d int64 tensor on the device."""
        return self.total.clamp(max=self.capacity)

    def __len__(self) -> int:
        """Rows held; on a GPU this waits for the device."""
        return int(self.size)

    @torch.no_grad()
    def extend(self, rows: Rows, mask: Tensor | None = None, column: int | None = None) -> None:
        """Append rows where `mask` [M] is true; a dropped row cuts its column, nothing is linked across the gap.

        Args:
            rows: M rows, each field on any device (actions often come from a GPU, observations from the CPU).
            mask: bool [M]; None keeps all.
            column: None: row i belongs to environment i. A number: the rows are consecutive steps of that environment.

        Raises:
            UserError: more rows at once than the buffer can hold.
            ValueError: the rows don't have the widths of the specification.
        """
        on_host = self.data.device.type == "cpu" and all(x.device.type == "cpu" for x in rows)
        if column is None and on_host and (mask is None or bool(mask.all())) and self._extend_in_place(rows):
            return
        packed = self._pack(rows)
        m, c = packed.shape[0], self.capacity
        ended = packed[:, -1] != 0
        if mask is None:
            sequence = self.total + torch.arange(m, device=packed.device)
            position, total, going_on = sequence % c, self.total + m, ~ended
        else:
            mask = mask.to(packed.device)
            sequence = self.total + mask.cumsum(0) - 1
            position, total, going_on = torch.where(mask, sequence % c, c), self.total + mask.sum(), mask & ~ended
        previous = self._continue(torch.where(going_on, sequence, NONE), column)
        linked = previous >= total - c  # it exists, and this very write doesn't overwrite it
        self.data.index_copy_(0, position, packed)
        columns = torch.arange(m, device=packed.device) if column is None else torch.full((m,), column, device=packed.device)
        self.origin.index_copy_(0, position, torch.stack([columns, (previous < 0).long()], 1))
        self.link.index_fill_(0, position, c)
        self.link.index_copy_(0, torch.where(linked, previous % c, c), position)
        self.link[c] = c
        self.total.copy_(total)
        self.offered += m

    def _extend_in_place(self, rows: Rows) -> bool:
        """The same for a few rows of all columns on the host, where NumPy writes through, faster; False where they don't fit."""
        obs, action, reward, next_obs, terminated, ended = (x.numpy() for x in rows)
        (o, a), m, c, written = self.widths[:2], len(reward), self.capacity, int(self.total)
        begin, oldest = written % c, written + m - c  # of the rows held afterwards
        if m > FEW or begin + m > c or len(self.open) < m or not obs.shape == next_obs.shape == (m, o) or action.size != m * a:
            return False
        over, opened, link, origin = ended | terminated, self.open.numpy(), self.link.numpy(), self.origin.numpy()
        packed = self.data.numpy()[begin : begin + m]
        packed[:, :o], packed[:, o : o + a], packed[:, o + a : -3] = obs, action.reshape(m, a), next_obs
        packed[:, -3], packed[:, -2], packed[:, -1] = reward, ~terminated, over
        for i, (before, cut) in enumerate(zip(opened[:m].tolist(), over.tolist(), strict=True)):
            here = begin + i
            origin[here], link[here] = (i, before < 0), c
            if before >= oldest:
                link[before % c] = here
            opened[i] = NONE if cut else written + i
        self.total += m
        self.offered += m
        return True

    def cut(self) -> None:
        """Nothing goes on from the rows so far: their episodes are over, unseen."""
        self.open.fill_(NONE)

    def _pack(self, rows: Rows) -> Tensor:
        """The float matrix [M, W] of the rows, on the buffer's device."""
        m = rows.reward.shape[0]
        if m > self.capacity:
            raise UserError(f"the replay buffer holds {self.capacity} rows, but {m} were written at once; give it a larger capacity")
        ended = rows.ended | rows.terminated.to(rows.ended.device)
        fields = (rows.obs, rows.action, rows.next_obs, rows.reward, ~rows.terminated, ended)
        device = self.data.device  # a copy to the CPU must be waited for, or garbage is read
        packed = torch.cat([x.reshape(m, -1).float().to(device, non_blocking=device.type != "cpu") for x in fields], 1)
        if packed.shape[1] != self.data.shape[1]:
            came = [tuple(x.shape) for x in rows]
            raise ValueError(f"rows of shapes {came} do not fit a buffer made for {self.spec}")
        return packed

    def _continue(self, opened: Tensor, column: int | None) -> Tensor:
        """Sequence number [M] of the row before each row in its column; remembers `opened` [M], the rows that others may continue."""
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
        """Room for at least so many columns; the tensor is replaced only where it has to grow."""
        if columns > self.open.shape[0]:
            self.open = torch.cat([self.open, self.open.new_full((columns - self.open.shape[0],), NONE)])

    def _draw(self, n: int) -> Tensor:
        """Where n uniformly drawn rows lie, int64 [n]; float64, since float32 cannot reach every row of a large buffer."""
        if not self.offered:
            raise ValueError("cannot sample from an empty replay buffer")
        return (torch.rand(n, dtype=torch.float64, device=self.data.device) * self.size).long()

    def _unpack(self, packed: Tensor) -> tuple[Transition, Tensor]:
        """Views of packed rows [..., W]: the transition and `ended`."""
        obs, action, next_obs, reward, discount, ended = packed.split_with_sizes(self.widths, -1)
        if self.spec.discrete:
            action = action[..., 0].long()
        return Transition(obs, action, reward[..., 0], next_obs, discount[..., 0]), ended[..., 0] != 0

    def sample(self, n: int) -> Transition:
        """n rows drawn uniformly with replacement; `discount` = 1 - terminated."""
        return self._unpack(self.data.index_select(0, self._draw(n)))[0]

    def n_step(self, steps: int, gamma: float, bonus: "PathBonus | None" = None) -> "NStep":
        """The same rows as n-step returns, for whoever draws batches; `bonus` as in `NStep`."""
        return NStep(self, steps, gamma, bonus)

    def order(self) -> Tensor:
        """Where the rows lie, oldest first: int64 [size]. Waits for the device."""
        size = len(self)
        return (self.total - size + torch.arange(size, device=self.data.device)) % self.capacity

    def rows_at(self, where: Tensor) -> Rows:
        """The rows at these places, [..., M]."""
        batch, ended = self._unpack(self.data[where])
        return Rows(batch.obs, batch.action, batch.reward, batch.next_obs, batch.discount == 0, ended)

    def all(self) -> Transition:
        """Every one-step row, oldest first; a copy."""
        return self._unpack(self.data[self.order()])[0]

    def trajectories(self) -> list[Rows]:
        """Whole episodes, column by column, oldest first; one whose beginning was overwritten or whose end is yet to come is left out."""
        where = self.order()
        if not len(where):
            return []
        where = where[self.origin[where, 0].argsort(stable=True)]
        rows, begins = self.rows_at(where), self.origin[where, 1] != 0
        cut = self.link[where] != where.roll(-1)
        cut[-1] = True
        stop = torch.nonzero(cut).flatten() + 1
        start = torch.cat([stop.new_zeros(1), stop[:-1]])
        whole = begins[start] & rows.ended[stop - 1]
        spans = torch.stack([start, stop], 1)[whole].tolist()
        return [Rows(*(field[a:b] for field in rows)) for a, b in spans]

    def windows(self, length: int, limit: int | None = None) -> Windows:
        """Every stretch of `length` consecutive steps without an end inside, oldest first; at most `limit` of them, evenly spread."""
        path = [self.order()]
        for _ in range(length - 1):
            path.append(self.link[path[-1]])
        where = torch.stack(path, 1)
        where = where[where[:, -1] < self.capacity]
        if limit is not None and len(where) > limit:
            where = where[torch.arange(limit, device=where.device) * len(where) // limit]
        batch, _ = self._unpack(self.data[where])
        return Windows(torch.cat([batch.obs, batch.next_obs[:, -1:]], 1), batch.action, batch.reward)

    def state_dict(self) -> State:
        """Copies of the filled part, the ring's position and the open episodes, on the CPU."""
        size = len(self)
        filled = {"data": self.data[:size], "link": self.link[:size], "origin": self.origin[:size], "total": self.total, "open": self.open}
        shape = {name: value for name, value in self.spec._asdict().items() if name != "device"}
        return {"capacity": self.capacity, **shape, **{name: x.to("cpu", copy=True) for name, x in filled.items()}}

    def load_state_dict(self, state: State) -> None:
        """Goes on exactly where the saved buffer stood; UserError where capacity or dimensions differ."""
        for name, mine in (("capacity", self.capacity), *self.spec._asdict().items()):
            if name != "device" and state[name] != mine:
                raise UserError(f"the saved replay buffer has {name} {state[name]}, but this run wants {mine}")
        size = len(state["data"])
        self.data[:size], self.origin[:size] = state["data"].to(self.data.device), state["origin"].to(self.data.device)
        self.link.fill_(self.capacity)[:size] = state["link"].to(self.link.device)
        self.total.copy_(state["total"])
        self._grow(len(state["open"]))
        self.open.fill_(NONE)[: len(state["open"])] = state["open"].to(self.open.device)
        self.offered = int(state["total"])

    def save(self, path: str | Path) -> None:
        """Write the buffer to one file, whole or not at all."""
        temporary = Path(f"{path}.tmp")
        torch.save({"format": FORMAT, **self.state_dict()}, temporary)
        os.replace(temporary, path)

    @classmethod
    def load(cls, path: str | Path, device: torch.device | str = "cpu") -> "ReplayBuffer":
        """The buffer that `save` wrote; UserError where the file is something else or cut short."""
        state = read_tensors(path, FORMAT, PARTS)
        spec = EnvSpec(state["obs_dim"], state["action_dim"], torch.device(device), state["discrete"])
        buffer = cls(state["capacity"], spec)
        buffer.load_state_dict(state)
        return buffer


PathBonus = Callable[[Tensor, Tensor], Tensor]  # (obs [N, O], action [N, A] or [N]) -> [N]


class NStep:
    """A source of n-step transitions: sums stop where the episode ended or the newest row is reached, `discount` counts the steps taken.

    `bonus` is added to the rewards of the steps behind the first: what a soft backup pays at the states it passes, -alpha KL or alpha H.
    """

    def __init__(self, buffer: ReplayBuffer, steps: int, gamma: float, bonus: PathBonus | None = None) -> None:
        self.buffer, self.steps, self.gamma, self.bonus = buffer, steps, gamma, bonus

    def sample(self, n: int) -> Transition:
        """n rows [B]: reward sum_{i<k} gamma^i r_i, next_obs k steps on, discount gamma^(k-1) (1 - terminated), k <= steps."""
        return self.at(self.buffer._draw(n))

    def at(self, where: Tensor) -> Transition:
        """The n-step transitions that begin with the rows at these places [B]."""
        buffer, path = self.buffer, [where]
        for _ in range(self.steps - 1):
            path.append(buffer.link[path[-1]])
        places = torch.stack(path)  # [steps, B]
        taken = places < buffer.capacity
        k = taken.sum(0)
        weight = self.gamma ** torch.arange(self.steps, device=where.device)
        first, _ = buffer._unpack(buffer.data[where])
        last, _ = buffer._unpack(buffer.data[places.gather(0, k[None] - 1)[0]])
        reward = torch.where(taken, self._rewards(torch.where(taken, places, where)) * weight[:, None], 0).sum(0)
        return Transition(first.obs, first.action, reward, last.next_obs, weight[k - 1] * last.discount)

    @torch.no_grad()
    def _rewards(self, places: Tensor) -> Tensor:
        """Of the rows at `places`, [steps, B], with the bonus behind the first."""
        buffer = self.buffer
        reward = buffer.data[places, -3]
        if self.bonus is None or self.steps == 1:
            return reward
        later, _ = buffer._unpack(buffer.data[places[1:]])
        bonus = self.bonus(later.obs.flatten(0, 1), later.action.flatten(0, 1))
        return torch.cat((reward[:1], reward[1:] + bonus.reshape(self.steps - 1, -1)))


def read_tensors(path: str | Path, kind: str, parts: Mapping[str, type]) -> State:
    """What `torch.save` wrote to a file whose "format" is `kind`, on the CPU and without pickle; `parts` are the keys it must have.

    Raises:
        UserError: the file is absent, cut short, fails its checksums (torch.load doesn't compare them), lacks a part, or is something else.
    """
    found = None
    try:
        with ZipFile(path) as archive:
            empty = any(entry.external_attr & DIRECTORY for entry in archive.infolist())
            if archive.testzip() is None and not empty:
                found = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f"there is no file {path}: expected {kind!r}") from error
    except (OSError, BadZipFile, zlib.error, RuntimeError, EOFError, ValueError, LookupError, TypeError, UnpicklingError) as error:
        raise UserError(f"{path} cannot be read: expected {kind!r}, found a damaged or foreign file") from error
    if isinstance(found, dict) and found.get("format") == kind and all(isinstance(found.get(k), what) for k, what in parts.items()):
        return found
    raise UserError(f"{path} cannot be read: expected {kind!r}, found a damaged or foreign file")


def counts(n: int, fractions: Sequence[float]) -> list[int]:
    """Whole numbers that sum to n and lie nearest to n * fractions (largest remainder), the same for every batch."""
    exact = [n * f for f in fractions]
    whole = [int(x + 1e-9) for x in exact]
    by_remainder = sorted(range(len(exact)), key=lambda i: whole[i] - exact[i])
    for i in by_remainder[: n - sum(whole)]:
        whole[i] += 1
    return whole


class Mixture:
    """Batches drawn from several sources, every batch with the same number of rows from each."""

    def __init__(self, sources: Sequence[Source], fractions: Sequence[float]) -> None:
        if len(sources) != len(fractions) or min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
            raise UserError(f"{len(sources)} sources need as many fractions, none negative, with sum 1, not {list(fractions)}")
        self.sources, self.fractions = tuple(sources), tuple(fractions)

    def sample(self, n: int) -> Transition:
        """n rows, source by source; a source with no share is not asked, so that it may still be empty."""
        shares = zip(self.sources, counts(n, self.fractions), strict=True)
        parts = [source.sample(share) for source, share in shares if share]
        return Transition(*(torch.cat(fields) for fields in zip(*parts, strict=True)))
