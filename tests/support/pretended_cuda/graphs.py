"""CUDA graphs of the pretended device: the list of a capture's operators, called again by `replay`."""

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from pretended_cuda.operators import memory, tensors_in

if TYPE_CHECKING:
    from collections.abc import Iterator


class Graph:
    """The operators between the begin and the end of a capture, with the tensors they read and write."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self.calls: list[tuple[tuple[Any, ...], list[Tensor | None]]] = []  # operator and its arguments; its new tensors
        self.saved: dict[int, tuple[Tensor, Tensor]] = {}  # memory that the capture changes: all of its bytes, and what they were
        self.born: dict[int, Tensor] = {}  # memory allocated in the capture
        self.alive: list[Tensor] = []  # so that no address is allocated twice
        self.aliases: dict[int, Tensor] = {}  # tensors from outside, by id, under another name
        self.outer: dict[int, Tensor] = {}  # one tensor of each memory from outside
        self.random: Tensor | None = None

    def inside(self, leaf: Any) -> Any:
        """An argument for the CPU: a tensor of the device under a name of the graph's, and a copy of a number of the host."""
        from pretended_cuda.device import CPU, OnDevice

        if isinstance(leaf, OnDevice):
            place = memory(leaf.elem)
            if place is None or place in self.born:
                return leaf.elem
            if id(leaf.elem) not in self.aliases:
                self.aliases[id(leaf.elem)] = alias = leaf.elem.detach()
                self.alive.append(leaf.elem)  # its id is not to be used again during the capture
                self.outer[place] = alias
            return self.aliases[id(leaf.elem)]
        if isinstance(leaf, Tensor):
            return leaf.clone()  # its number stays the same for good
        return CPU if isinstance(leaf, torch.device) else leaf

    def save(self, written: list[Tensor]) -> None:
        """Store the bytes that an operator is about to write."""
        for x in written:
            place = memory(x)
            if place is not None and place not in self.born and place not in self.saved:
                whole = torch.empty(0, dtype=torch.uint8).set_(x.untyped_storage())
                self.saved[place] = whole, whole.clone()

    def add(self, call: tuple[Any, ...], outs: list[Tensor], new: list[Tensor | None], kernel: bool) -> None:
        """Append an operator, where it computes something."""
        self.alive += outs
        self.born |= {place: x for x in new if x is not None and (place := memory(x)) is not None}
        if kernel:
            self.calls.append((call, new))

    def end(self) -> None:
        """Undo what the capture wrote, and spoil what it allocated: on a GPU nothing has been computed yet."""
        for whole, before in self.saved.values():
            whole.copy_(before)
        for x in self.born.values():
            if x.is_floating_point():
                x.fill_(torch.nan)
        self.saved, self.aliases = {}, {}
        outer = {id(x) for x in self.outer.values()}
        self.alive = [x for x in self.alive if memory(x) not in self.outer or id(x) in outer]
        self.holds = self.count()

    def count(self) -> dict[int, int]:
        """How often the graph itself holds the memory that comes from outside."""
        tensors = {id(x): x for (_, _, args, kwargs), _ in self.calls for x in tensors_in((args, kwargs))}
        tensors |= {id(x): x for x in (*self.alive, *self.outer.values())}
        held = dict.fromkeys(self.outer, 0)
        for x in tensors.values():
            place = memory(x)
            if place in held:
                held[place] += 1
        return held

    def check_memory(self) -> None:
        """An error where memory that the graph reads or writes has been freed by everybody else: a GPU would have allocated it again."""
        from pretended_cuda.device import Refused

        for place, x in self.outer.items():
            storage = x.untyped_storage()
            if torch._C._storage_Use_Count(storage._cdata) - 1 <= self.holds[place]:
                raise Refused(f"a graph uses memory of {list(x.shape)} {x.dtype} that has been freed since its capture")

    def replay(self) -> None:
        """Call the operators again, on the same memory."""
        from pretended_cuda.device import DEVICE

        DEVICE.replays += 1
        self.check_memory()
        with _disable_current_modes(), torch.no_grad():
            for (func, op, args, kwargs), outs in self.calls:
                result = DEVICE.execute(func, op, args, kwargs)
                for mine, new in zip(outs, [result] if isinstance(result, Tensor) else tensors_in(result), strict=True):
                    if mine is not None:
                        mine.copy_(new)

    def pool(self) -> None:
        """There is one pool."""

    def reset(self) -> None:
        """Forget the operators."""
        self.calls, self.alive, self.outer = [], [], {}


@contextmanager
def capture(graph: Graph, *_: Any, **__: Any) -> "Iterator[None]":
    """`torch.cuda.graph`: random numbers drawn inside are drawn by the replays."""
    from pretended_cuda.device import DEVICE

    graph.random, DEVICE.capturing = DEVICE.random.clone(), graph
    try:
        yield
    finally:
        DEVICE.capturing, DEVICE.random = None, graph.random
        graph.end()


class Stream:
    """Everything happens in order."""

    def __init__(self, *_: Any, **__: Any) -> None: ...
    def wait_stream(self, other: Any) -> None: ...

    def synchronize(self) -> None:
        """Wait for everything queued."""
        torch.cuda.synchronize()


class Event:
    """A point in the queue; waiting for it makes earlier copies arrive."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self.at: int | None = None  # how often the host had waited for the whole queue

    def record(self, *_: Any) -> None:
        """Here is the point."""
        from pretended_cuda.device import DEVICE

        self.at = DEVICE.arrivals

    def query(self) -> bool:
        """Whether it is reached; it is taken to be as late as can be, when the host next waits."""
        from pretended_cuda.device import DEVICE

        return self.at is None or self.at < DEVICE.arrivals

    def synchronize(self) -> None:
        """Wait until it is reached."""
        from pretended_cuda.device import DEVICE, caller

        if not self.query():
            DEVICE.waits[f"event at {caller()}"] += 1
            DEVICE.arrive()
