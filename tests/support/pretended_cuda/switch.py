"""Turns the pretended device on and off: torch.cuda's functions, and a mode for operators that have no tensor argument."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from pretended_cuda import library
from pretended_cuda.device import DEVICE, Device, Refused, caller
from pretended_cuda.graphs import Event, Graph, Stream, capture


class Factories(TorchDispatchMode):
    """`torch.zeros(3, device="cuda")` has no argument that lies on the device."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """There is no compilation here, and a wrapper against it would import all of torch's compiler."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return DEVICE.call(func, args, kwargs or {})


def seed(number: int) -> None:
    """`torch.cuda.manual_seed`."""
    DEVICE.random = torch.Generator().manual_seed(int(number)).get_state()


def set_rng_state(state: Tensor, device: Any = 0) -> None:
    """`torch.cuda.set_rng_state`."""
    DEVICE.random = state.clone()


def synchronize(*_: Any) -> None:
    """`torch.cuda.synchronize`."""
    if DEVICE.capturing is not None:
        raise Refused("synchronize in a capture")
    DEVICE.waits[f"synchronize at {caller()}"] += 1
    DEVICE.arrive()


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "_lazy_init": lambda: None,
    "is_available": lambda: True,
    "is_initialized": lambda: True,
    "device_count": lambda: 1,
    "current_device": lambda: 0,
    "get_device_name": lambda *_: "pretended",
    "is_current_stream_capturing": lambda: DEVICE.capturing is not None,
    "get_rng_state": lambda device=0: DEVICE.random.clone(),
    "get_rng_state_all": lambda: [DEVICE.random.clone()],
    "set_rng_state": set_rng_state,
    "manual_seed": seed,
    "manual_seed_all": seed,
    "synchronize": synchronize,
    "set_sync_debug_mode": lambda mode: setattr(DEVICE, "on_wait", mode),
    "device": lambda *_: nullcontext(),
    "stream": lambda *_: nullcontext(),
    "current_stream": lambda *_: Stream(),
    "Stream": Stream,
    "Event": Event,
    "CUDAGraph": Graph,
    "graph": capture,
    "max_memory_allocated": lambda *_: 0,
    "mem_get_info": lambda *_: (2**34, 2**34),
    "empty_cache": lambda: None,
}


def start() -> Callable[[], None]:
    """From now on there is a device; returns the call that ends it. ImportError where torch was imported first."""
    if not library.loaded:
        raise ImportError("the pretended CUDA device must be imported before torch")
    seed(0)
    before = {name: getattr(torch.cuda, name) for name in FUNCTIONS}
    for name, value in FUNCTIONS.items():
        setattr(torch.cuda, name, value)
    lift = torch._C._only_lift_cpu_tensors()
    torch._C._set_only_lift_cpu_tensors(True)  # `torch.tensor(..., device="cuda")` is made on the host and then copied
    mode = Factories()
    mode.__enter__()

    def stop() -> None:
        mode.__exit__(None, None, None)
        torch._C._set_only_lift_cpu_tensors(lift)
        for name, value in before.items():
            setattr(torch.cuda, name, value)

    return stop


@contextmanager
def pretended() -> Iterator[Device]:
    """A device inside."""
    stop = start()
    try:
        yield DEVICE
    finally:
        stop()
        DEVICE.reset()
