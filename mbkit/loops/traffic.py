"""What travels in a step of the online loop between the host, where environments run, and the device of agent and replay.

On CUDA every copy of pageable memory and every look at a result waits. Here one packed row goes in, one action comes out, and the host
waits once, for the action. Letters: M environments, O observation, A action, W numbers of a stored row.
"""

from collections.abc import Callable
from typing import Protocol, cast

import torch
from torch import Tensor

from mbkit.accelerate import Graphed, Mode, mode_on
from mbkit.replay.buffer import Experience, ReplayBuffer
from mbkit.types import Actor, Store


class Traffic(Protocol):
    """How the loop asks an actor on a device, and what it sends there to be stored."""

    def act(self, obs: Tensor) -> Tensor: ...  # noqa: D102  # obs [M, O] -> exploring actions [M, A], both on the host
    def extend(self, rows: Experience, valid: Tensor, obs: Tensor) -> None: ...  # noqa: D102  # M rows; obs [M, O] that will be acted on next


class Direct:
    """Nothing is packed: for an actor on the host."""

    def __init__(self, actor: Actor, store: Store) -> None:
        self.actor, self.store = actor, store

    def act(self, obs: Tensor) -> Tensor:
        """The actor's answer, on the host."""
        return self.actor.act(obs).cpu()

    def extend(self, rows: Experience, valid: Tensor, obs: Tensor) -> None:
        """The store takes the rows as they are."""
        self.store.extend(rows, valid)


class Upload:
    """Copies rows [M, W] of the host to `target` on a GPU without waiting, from two pinned buffers in turn.

    While one is being copied the other can be filled; only one that is still under way would be waited for.
    """

    def __init__(self, target: Tensor) -> None:
        self.target = target
        self.buffers = [torch.empty(target.shape, pin_memory=True) for _ in range(2)]
        self.copied = [torch.cuda.Event() for _ in range(2)]  # type: ignore[no-untyped-call]
        self.turn = 0

    def __call__(self, *columns: Tensor) -> None:
        """Columns [M, w] of float32, side by side."""
        self.turn = 1 - self.turn
        buffer, copied = self.buffers[self.turn], self.copied[self.turn]
        if not copied.query():  # type: ignore[no-untyped-call]
            copied.synchronize()
        torch.cat(columns, 1, out=buffer)
        self.target.copy_(buffer, non_blocking=True)
        copied.record()


class Repeated:
    """A call on tensors that stay where they are: made as it is at first, when torch initialises what it needs, then as a CUDA graph."""

    def __init__(self, call: Callable[[], Tensor | None], device: torch.device) -> None:
        self.call, self.graph, self.first = call, Graphed(call, device, warmup=0), True

    def __call__(self) -> Tensor | None:
        """The result of the call."""
        if self.first:
            self.first = False
            return self.call()
        return self.graph()


class Packed:
    """For an actor on a GPU: storing a row and sampling an action are a CUDA graph each, unless `mode` is eager.

    Args:
        actor: the agent or planner. Only an agent whose exploring `act` is its `sample`, which changes nothing, acts in a graph.
        store: a replay buffer on the GPU, or a store on the host, which takes the rows as they are.
        num_envs: M.
        obs_dim: O.
        device: of the actor.
        mode: execution mode of the loop.
    """

    def __init__(self, actor: Actor, store: Store, num_envs: int, obs_dim: int, device: torch.device, mode: Mode) -> None:
        self.actor, self.store = actor, store
        self.obs = torch.zeros(num_envs, obs_dim, device=device)  # of the present step, on the device
        self.shown: Tensor | None = None  # the host's observation that is there
        self.show, self.acted = Upload(self.obs), torch.cuda.Event()  # type: ignore[no-untyped-call]
        self.action: Tensor | None = None  # pinned
        graphs = mode_on(mode, device) == "cudagraph"
        self._act: Callable[[], Tensor | None] = lambda: actor.act(self.obs)
        if graphs and getattr(actor, "acts_by_sampling", False):
            self._act = Repeated(self._act, device)
        self.buffer = store if isinstance(store, ReplayBuffer) and store.data.is_cuda else None
        if self.buffer is not None:
            self.row = torch.zeros(num_envs, sum(self.buffer.widths) + 1 + obs_dim, device=device)  # stored row, whether valid, next obs
            self.send = Upload(self.row)
            self._write = Repeated(self._written, device) if graphs else self._written

    def _written(self) -> None:
        """Writes the row that arrived into the replay, and its last columns where the actor looks."""
        buffer = cast("ReplayBuffer", self.buffer)
        packed, valid, obs = self.row.split_with_sizes((sum(buffer.widths), 1, self.obs.shape[1]), 1)
        buffer.write(packed, valid[:, 0] != 0)
        self.obs.copy_(obs)

    def act(self, obs: Tensor) -> Tensor:
        """The action, on the host, which waits for it."""
        if obs is not self.shown:
            self.show(obs)
            self.shown = obs
        action = cast("Tensor", self._act())
        if not action.is_cuda:
            return action
        if self.action is None:
            self.action = torch.empty(action.shape, dtype=action.dtype, pin_memory=True)
        self.action.copy_(action, non_blocking=True)
        self.acted.record()
        self.acted.synchronize()
        return self.action.clone()

    def extend(self, rows: Experience, valid: Tensor, obs: Tensor) -> None:
        """Sends the rows, and what will be acted on, in one copy."""
        if self.buffer is None:
            self.store.extend(rows, valid)
            return
        self.send(*self.buffer.fields(rows), valid[:, None].float(), obs)
        self._write()
        self.buffer.offered += len(valid)
        self.shown = obs
