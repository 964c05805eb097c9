"""The pretended device: calls operators on the CPU, and knows what a real device would have refused or waited for."""

import collections
import sys
import threading
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import return_and_correct_aliasing

from pretended_cuda.graphs import Graph
from pretended_cuda.operators import COPIES, EMPTY, INDEXING, WAITING, A, Operator, each, facts, memory, tensors_in

CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")


class Refused(RuntimeError):
    """What a real device would have refused."""


class OnDevice(Tensor):
    """A tensor of the device; its numbers lie in the CPU tensor `elem`."""

    elem: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, elem: Tensor) -> "OnDevice":
        layout = {"strides": elem.stride(), "storage_offset": elem.storage_offset(), "dtype": elem.dtype, "layout": elem.layout}
        made = Tensor._make_wrapper_subclass(cls, elem.size(), device=CUDA, **layout)
        made.elem = elem
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return DEVICE.call(func, args, kwargs or {})

    def __tensor_flatten__(self) -> Any:  # makes `Module.to` change a parameter's insides, as on a real device
        return ["elem"], None

    @staticmethod
    def __tensor_unflatten__(inner: Any, meta: Any, size: Any, stride: Any) -> "OnDevice":
        return OnDevice(inner["elem"])

    @property
    def data(self) -> Tensor:  # type: ignore[override]
        return Tensor.data.__get__(self)  # type: ignore[attr-defined]

    @data.setter
    def data(self, other: "OnDevice") -> None:  # of another shape, too, as on a real device
        Tensor.data.__set__(self, other)  # type: ignore[attr-defined]
        self.elem = other.elem

    def __repr__(self, **_: Any) -> str:
        return f"OnDevice({self.elem!r})"

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        if id(self) not in memo:
            with torch.no_grad():
                memo[id(self)] = self.detach().clone().requires_grad_(self.requires_grad)
        return memo[id(self)]

    def __reduce_ex__(self, protocol: Any) -> Any:
        DEVICE.wait(f"copy to the host of {list(self.shape)}, to be saved")
        return self.elem.detach().clone().__reduce_ex__(protocol)

    def numpy(self, *, force: bool = False) -> Any:
        if not force:
            raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first.")
        return self.detach().cpu().numpy()

    def tolist(self) -> Any:
        return self.detach().cpu().tolist()


class Device:
    """State of the device: its random numbers, the graph being captured, copies under way, and counts."""

    def __init__(self) -> None:
        self.capturing: Graph | None = None
        self.on_wait = "default"  # "error" raises where a real device would wait
        self.waits: collections.Counter[str] = collections.Counter()  # what waited for the device, and where
        self.uploads: collections.Counter[str] = collections.Counter()  # copies from the host that did not wait
        self.kernels = 0  # operators that compute something; a graph's replay counts as none
        self.replays = 0
        self.trace: list[tuple[str, list[tuple[int, ...]]]] | None = None  # if set: operator and shapes of its arguments, of each kernel
        self.random = torch.Generator().get_state()
        self.pinned: dict[int, Tensor] = {}  # memory of the host that copies need not wait for
        self.arriving: list[tuple[Tensor, Tensor]] = []  # copies to pinned memory: where to, and the numbers
        self.departing: list[tuple[Tensor, Tensor]] = []  # copies from pinned memory: where from, and the numbers
        self.arrivals = 0  # how often the host waited for everything queued
        self.lock = threading.RLock()  # the backward pass has a thread for each device

    def reset(self) -> None:
        """Counts begin again at 0, and nothing is captured."""
        self.capturing, self.on_wait, self.trace = None, "default", None
        self.kernels = self.replays = 0
        for counts in (self.waits, self.uploads, self.arriving, self.departing):
            counts.clear()

    # --- what a real device would wait for or refuse ---

    def wait(self, reason: str) -> None:
        """The host waits for the device: an error in a capture, or where that is asked for."""
        if self.capturing is not None:
            raise Refused(f"in a capture: {reason} at {caller()}")
        if self.on_wait == "error":
            raise Refused(f"called a synchronizing CUDA operation: {reason} at {caller()}")
        self.waits[f"{reason} at {caller()}"] += 1
        self.arrive()

    def arrive(self) -> None:
        """Everything queued is done: copies to pinned memory have arrived, and those from there have left it unchanged."""
        self.arrivals += 1
        arriving, departing = self.arriving, self.departing
        self.arriving, self.departing = [], []
        for target, numbers in arriving:
            target.copy_(numbers)
        for source, numbers in departing:
            if not same(source, numbers):
                raise Refused(f"pinned memory of {list(source.shape)} was written while its copy to the device was under way")

    def upload(self, source: Tensor, blocking: bool) -> None:
        """A copy from the host to the device: it waits unless the memory is pinned and the call does not block."""
        what = f"copy to the device of {list(source.shape)}"
        if not blocking and memory(source) in self.pinned:
            self.departing.append((source, source.clone()))
        elif self.capturing is not None:
            raise Refused(f"in a capture: {what} from pageable memory at {caller()}")
        if blocking:
            self.wait(what)
        else:
            self.uploads[f"{what} at {caller()}"] += 1

    def check(self, func: Any, op: Operator, args: Any, kwargs: Any, mine: list[Tensor], host: list[Tensor], to_device: bool) -> None:
        """Refuses tensors on two devices; counts copies and waits."""
        if func in COPIES:
            self.check_copy(func, args, kwargs, mine, host, to_device)
        elif func in WAITING:
            self.wait(op.name)
        elif func in INDEXING:
            value = args[2] if len(args) > 2 else None
            number = value is not None and value.numel() == 1 and not isinstance(value, OnDevice)
            for index in (i for i in args[1] if i is not None):
                if index.dtype in (torch.bool, torch.uint8) and not number:
                    self.wait(f"{op.name} by a mask")
                if not isinstance(index, OnDevice):
                    self.upload(index, blocking=True)
        elif host and not (
            (op.takes_numbers and all(x.dim() == 0 for x in host))
            or (to_device and op.reads_shape_only)
            or ("_fused_adam_" in op.name and all(x is kwargs.get("lr") for x in host))
        ):
            shapes = [(tuple(x.shape), "cuda" if isinstance(x, OnDevice) else "cpu") for x in (*mine, *host)]
            raise RuntimeError(f"Expected all tensors to be on the same device, came {op.name} of {shapes} at {caller()}")

    def check_copy(self, func: Any, args: Any, kwargs: Any, mine: list[Tensor], host: list[Tensor], to_device: bool) -> None:
        """Copies between host and device; setting an item copies a number of the host."""
        blocking = not is_lazy(args, kwargs)
        if func is A._to_copy.default:
            if host and to_device:
                self.upload(host[0], blocking)
            elif mine and not to_device and blocking:
                self.wait(f"copy to the host of {list(mine[0].shape)}")
        elif mine and host:
            if isinstance(args[0], OnDevice):
                self.upload(host[-1], blocking)
            elif blocking:
                self.wait(f"copy to the host of {list(mine[-1].shape)}")
            elif memory(args[0]) not in self.pinned:
                self.wait(f"copy to pageable memory of the host of {list(mine[-1].shape)}")

    # --- calling operators ---

    def call(self, func: Any, args: Any, kwargs: Any) -> Any:
        """One operator, on tensors of the device, of the host, or both."""
        leaves = tensors_in((args, kwargs)) if kwargs else tensors_in(args)
        mine = [x for x in leaves if isinstance(x, OnDevice)]
        device = kwargs.get("device")
        to_device = device is not None and torch.device(device).type == "cuda"
        if not mine and not to_device:
            return self.pin(func, args, kwargs) if kwargs.get("pin_memory") else func(*args, **kwargs)
        op, host = facts(func), [x for x in leaves if not isinstance(x, OnDevice)]
        on_device = to_device or (device is None and bool(mine) and (func is not A.copy_.default or isinstance(args[0], OnDevice)))
        self.check(func, op, args, kwargs, mine, host, to_device or (device is None and bool(mine)))
        captured = self.capturing if on_device else None
        with self.lock:
            bare = [each(self.inside if captured is None else captured.inside, x) for x in args]
            named = {k: each(self.inside if captured is None else captured.inside, v) for k, v in kwargs.items()}
            out = self.compute(func, op, bare, named, on_device)
        return self.wrapped(func, op, args, kwargs, out, bool(mine)) if on_device else args[0] if op.in_place else out

    def compute(self, func: Any, op: Operator, args: list[Any], kwargs: dict[str, Any], on_device: bool) -> Any:
        """The operator's result on the CPU tensors; a capture stores it, together with what it will overwrite."""
        written = [x for n, name in op.written for x in tensors_in(args[n] if n < len(args) else kwargs.get(name))]
        if self.capturing is not None and on_device:
            self.capturing.save(written)
        out = self.execute(func, op, args, kwargs) if func is not A.copy_.default or on_device else args[0]
        if func is A._to_copy.default and memory(out) == memory(args[0]):
            out = out.clone()
        if not on_device and func in COPIES:
            self.deliver(out, out.clone() if func is A._to_copy.default else args[1].clone(), is_lazy(args, kwargs))
        if on_device:
            self.book(func, op, args, kwargs, out, written)
        return out

    def deliver(self, target: Tensor, numbers: Tensor, lazy: bool) -> None:
        """A copy to the host: at once, or, where the call does not block, once it has been waited for."""
        if not lazy:
            target.copy_(numbers)
            return
        self.arriving.append((target, numbers))
        target.fill_(torch.nan if target.is_floating_point() else 0)

    def execute(self, func: Any, op: Operator, args: Any, kwargs: Any) -> Any:
        """On the CPU; random operators draw from the device's random state."""
        if not op.random:
            return func(*args, **kwargs)
        host = torch.random.default_generator.get_state()
        torch.random.default_generator.set_state(self.random)
        try:
            return func(*args, **kwargs)
        finally:
            self.random = torch.random.default_generator.get_state()
            torch.random.default_generator.set_state(host)

    def book(self, func: Any, op: Operator, args: Any, kwargs: Any, out: Any, written: list[Tensor]) -> None:
        """Count a kernel, unless the result is only a view or uninitialised memory; a capture stores it."""
        outs = [out] if isinstance(out, Tensor) else tensors_in(out)
        inputs = {memory(x) for x in tensors_in((args, kwargs))} if op.aliases or self.capturing is not None else set()
        new = [] if op.in_place else [x for x in outs if memory(x) not in inputs]
        kernel = bool(written) or (bool(new) and func not in EMPTY)
        if kernel:
            self.kernels += 1
            if self.trace is not None:
                self.trace.append((op.name, [tuple(x.shape) for x in tensors_in((args, kwargs))]))
        if self.capturing is not None:
            fresh = {id(x) for x in new}
            self.capturing.add((func, op, args, kwargs), outs, [x if id(x) in fresh else None for x in outs], kernel)

    def wrapped(self, func: Any, op: Operator, args: Any, kwargs: Any, out: Any, from_device: bool) -> Any:
        """The result as tensors of the device; views share the memory of what they view."""
        if op.in_place and op.written[0][0] == 0 and isinstance(out, Tensor):
            return args[0]
        if op.in_place and not tensors_in(out):
            return out
        result = OnDevice(out) if isinstance(out, Tensor) else each(outside, out)
        return return_and_correct_aliasing(func, args, kwargs, result) if op.aliases and from_device else result

    def inside(self, leaf: Any) -> Any:
        """An argument for the CPU."""
        return leaf.elem if isinstance(leaf, OnDevice) else CPU if isinstance(leaf, torch.device) else leaf

    def pin(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Tensor:
        """New pinned memory of the host: ordinary memory, whose address is noted."""
        out: Tensor = func(*args, **{k: v for k, v in kwargs.items() if k != "pin_memory"})
        address = memory(out)
        if address is not None:
            self.pinned[address] = out
        return out


def is_lazy(args: Any, kwargs: Any) -> bool:
    """Whether a copy is not to block."""
    return bool(kwargs.get("non_blocking", False) or (len(args) > 2 and args[2] is True))


def outside(leaf: Any) -> Any:
    """A result of the CPU as one of the device."""
    return OnDevice(leaf) if isinstance(leaf, Tensor) else leaf


def same(a: Tensor, b: Tensor) -> bool:
    """Equal numbers; NaN equals NaN."""
    return bool(torch.equal(a.nan_to_num(), b.nan_to_num())) if a.is_floating_point() else bool(torch.equal(a, b))


def caller() -> str:
    """The innermost line outside torch and this package: where in the code an operator was called."""
    frame: Any = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if "/pretended_cuda/" not in file and "/torch/" not in file and not file.startswith("<"):
            return f"{'/'.join(file.split('/')[-3:])}:{frame.f_lineno}"
        frame = frame.f_back
    return "the backward pass"


DEVICE = Device()
