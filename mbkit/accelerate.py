"""Compilation, CUDA graphs, threads, precision and seeds, which no other module sets.

Acceleration wraps from outside: an accelerated function is written as any other.
"""

import ctypes
import json
import os
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from importlib.util import find_spec
from typing import Any, Generic, Literal, ParamSpec, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from mbkit.errors import UserError
from mbkit.types import State, Stateful

Mode = Literal["auto", "eager", "compile", "cudagraph"]
Precision = Literal["auto", "highest", "high", "medium"]
X = ParamSpec("X")
Y = TypeVar("Y")
T = TypeVar("T")
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # options of glibc's `mallopt`
LARGEST_KEPT = 32 << 20  # bytes; the largest tensors whose memory is used again, and half of what is kept of the free memory
_models_in_tf32 = False  # set by `matmul_precision`, asked by `model_products`


def set_threads(n: int = 0) -> int:
    """Let torch use `n` threads, 0 for every core this process may run on; returns the number used.

    Raises:
        UserError: n is negative, or more than four times the cores (torch crashes at very large numbers).
    """
    if n < 0:
        raise UserError(f"threads={n}: expected 0 (all cores) or a positive number")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if n > 4 * cores:
        raise UserError(f"threads={n}: expected at most 4 for each of the {cores} cores")
    torch.set_num_threads(n or cores)
    return torch.get_num_threads()


def reuse_memory() -> None:
    """Let the C library keep freed memory for the next tensors, instead of returning it to the system, which hands it out zeroed again.

    Its limits grow to these by themselves, but on the way there tensors of a megabyte cost a third of an update of small networks. Nothing
    happens where it is not glibc.
    """
    if mallopt := getattr(ctypes.pythonapi, "mallopt", None):
        mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT)
        mallopt(M_TRIM_THRESHOLD, 2 * LARGEST_KEPT)


@contextmanager
def matmul_precision(level: Precision) -> Iterator[None]:
    """Compute float32 products inside as float32 ("highest"), TF32 ("high") or bf16 ("medium") where the hardware can.

    "auto": float32, but TF32 on CUDA for those of models (`model_products`).
    """
    global _models_in_tf32
    before = torch.get_float32_matmul_precision(), _models_in_tf32
    torch.set_float32_matmul_precision("highest" if level == "auto" else level)
    _models_in_tf32 = level == "auto"
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        _models_in_tf32 = before[1]


@contextmanager
def model_products(device: torch.device) -> Iterator[None]:
    """Inside are products of a model: TF32 on CUDA where the precision is "auto". Their errors of 1e-3 are far below a model's."""
    if not (_models_in_tf32 and device.type == "cuda"):
        yield
        return
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision("highest")


def mode_on(mode: Mode, device: torch.device) -> Mode:
    """The mode, and for "auto" the one it stands for: "cudagraph" on CUDA, "eager" elsewhere."""
    return mode if mode != "auto" else "cudagraph" if device.type == "cuda" else "eager"


def accelerated(fn: Callable[X, Y], mode: Mode, device: torch.device, changes: Sequence[Stateful] = ()) -> Callable[X, Y]:
    """`fn` compiled, captured or as it is; it takes and returns tensors, None, and (named) tuples of them, in shapes that repeat.

    "auto" is "cudagraph" on CUDA and "eager" elsewhere. "compile" is torch.compile. "cudagraph" replays one captured graph per combination
    of input shapes: `fn` must not synchronise with the host, and the tensors it closes over must keep their addresses, or `Graphed.forget`
    must be called. `changes` are the objects that `fn` changes in place (an agent that it updates): capturing leaves them as they were.
    UserError without a CUDA device.
    """
    mode = mode_on(mode, device)
    if mode == "cudagraph":
        if device.type != "cuda":
            raise UserError(f"mode 'cudagraph' needs device=cuda, got device={device}; use mode 'eager'")
        return Graphed(fn, device, changes=changes)
    return cast("Callable[X, Y]", torch.compile(fn, dynamic=False)) if mode == "compile" else fn


def _each(change: Callable[[Tensor], Tensor], tree: T) -> T:
    """`change` applied to every tensor of a tree of tuples and named tuples."""
    if isinstance(tree, Tensor):
        return cast("T", change(tree))
    if not isinstance(tree, tuple):
        return tree
    leaves = (_each(change, branch) for branch in tree)
    return cast("T", type(tree)(*leaves) if hasattr(tree, "_fields") else tuple(leaves))


def _tensors(tree: Any) -> list[Tensor]:
    if isinstance(tree, Tensor):
        return [tree]
    return [leaf for branch in tree for leaf in _tensors(branch)] if isinstance(tree, tuple) else []


class Graphed(Generic[X, Y]):
    """A function replayed as a CUDA graph; inputs are copied in, outputs cloned out, random numbers are those `fn` would have drawn."""

    def __init__(self, fn: Callable[X, Y], device: torch.device, warmup: int = 3, changes: Sequence[Stateful] = ()) -> None:
        self.fn, self.device, self.warmup, self.changes = fn, device, warmup, changes
        self._captured: dict[Any, tuple[torch.cuda.CUDAGraph, list[Tensor], Any]] = {}

    def forget(self) -> None:
        """Capture again at the next call, since tensors that `fn` closes over have moved."""
        self._captured.clear()

    def __call__(self, *args: X.args, **kwargs: X.kwargs) -> Y:
        """The output of `fn`; the first call with new shapes captures. TypeError for keyword arguments."""
        if kwargs:
            raise TypeError("a graphed function takes positional arguments only")
        inputs = _tensors(args)
        key = tuple((x.shape, x.dtype) for x in inputs), tuple(arg is None for arg in args)
        with torch.cuda.device(self.device):
            if key not in self._captured:
                self._captured[key] = self._capture(args)
            graph, static, output = self._captured[key]
            for static_input, value in zip(static, inputs, strict=True):
                static_input.copy_(value)
            graph.replay()
            return cast("Y", _each(Tensor.clone, output))

    def _capture(self, args: tuple[Any, ...]) -> tuple[torch.cuda.CUDAGraph, list[Tensor], Any]:
        static = _each(Tensor.clone, args)
        before = torch.cuda.get_rng_state()  # warming up must not use up random numbers, so that graph and eager agree
        states = [deepcopy(part.state_dict()) for part in self.changes]  # nor may it change an agent or a counter
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # lazy initialisations (cuBLAS, caches) may not happen inside a capture
            for _ in range(self.warmup):
                self.fn(*static)  # type: ignore[call-arg]
        torch.cuda.current_stream().wait_stream(side)
        for part, state in zip(self.changes, states, strict=True):
            part.load_state_dict(state)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            output = self.fn(*static)  # type: ignore[call-arg]
        torch.cuda.set_rng_state(before)
        return graph, _tensors(static), output


def fused(fn: Callable[X, Y], device: torch.device) -> Callable[X, Y]:
    """A pure function of tensors, elementwise but for its layout, as one kernel where torch can compile it for the device, else as it is.

    A CUDA graph may capture it: Inductor's own graphs are off. It can be compiled on CUDA with Triton alone.
    """
    if device.type != "cuda" or not has_triton():
        return fn
    return cast("Callable[X, Y]", torch.compile(fn, dynamic=True))


def has_triton() -> bool:
    """Whether the compiler of GPU kernels is installed."""
    return find_spec("triton") is not None


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch on every device; no other function does. UserError outside [0, 2^32)."""
    if not 0 <= seed < 2**32:
        raise UserError(f"seed={seed}: expected 0 <= seed < 2^32")
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def rng_state() -> State:
    """Every global random state, in tensors and JSON strings, so that torch.load(weights_only=True) reads it."""
    numpy = np.random.get_state(legacy=False)
    numpy["state"] = {"key": numpy["state"]["key"].tolist(), "pos": int(numpy["state"]["pos"])}
    return {
        "python": json.dumps(random.getstate()),
        "numpy": json.dumps(numpy),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_rng_state(state: State) -> None:
    """Restore what `rng_state` returned; CUDA states of devices that this machine lacks are ignored."""
    version, internal, gauss = json.loads(state["python"])
    random.setstate((version, tuple(internal), gauss))
    numpy = json.loads(state["numpy"])
    numpy["state"]["key"] = np.array(numpy["state"]["key"], dtype=np.uint32)
    np.random.set_state(numpy)
    torch.set_rng_state(state["torch"].cpu())
    for device, cuda in zip(range(torch.cuda.device_count()), state["cuda"], strict=False):
        torch.cuda.set_rng_state(cuda.cpu(), device)


@contextmanager
def same_random_numbers() -> Iterator[None]:
    """Random numbers drawn inside do not change those drawn afterwards."""
    before = rng_state()
    try:
        yield
    finally:
        set_rng_state(before)
