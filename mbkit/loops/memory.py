"""Too little memory, reported in one sentence: before anything is allocated from a configuration's sizes, or where torch finds out.

Letters: M environments, N candidates, H horizon, P particles, B rows, E members, O observation, A action.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch

from mbkit.config import Experiment
from mbkit.errors import UserError, lacks_memory
from mbkit.loops.sizes import Demand, parts
from mbkit.types import EnvSpec

FAULTS = ("cuda error", "cublas_status", "cudnn_status", "hip error")  # one of them is in torch's message where the GPU itself failed
FAULT_NOTE = (
    "The GPU reported a fault, not a lack of memory. It is reported later than it happened: CUDA_LAUNCH_BLOCKING=1 shows where. "
    "`mbkit resume` goes on from the last checkpoint."
)
LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")  # of a container, versions 2 and 1 of cgroups
GIGABYTE = 1e9


@contextmanager
def refuse_oversized(what: str) -> Iterator[None]:
    """Inside, torch's errors about too little memory become a UserError of one sentence: `what` needs more than there is.

    Other errors stay as they are; those of the GPU get a note that says so.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if lacks_memory(error):
            raise UserError(f"{what} needs more memory than the device has; expected less") from error
        if any(sign in str(error).lower() for sign in FAULTS):
            error.add_note(FAULT_NOTE)
        raise


class Available(NamedTuple):
    """Bytes that a run may use; infinity where the system does not tell."""

    host: float
    device: float  # of the GPU; the host's where the run has none


def available(device: str) -> Available:
    """What this machine, the container around this process, and the GPU of a run on "cuda" have left."""
    host = min([_host(), *(_limit(Path(path)) for path in LIMITS)])
    return Available(host, float(torch.cuda.mem_get_info()[0]) if device == "cuda" else host)


def _host() -> float:
    """Bytes of memory and swap that can be had without harm to other processes."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        kilobytes = {name: float(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
        return 1024 * (kilobytes["MemAvailable"] + kilobytes.get("SwapFree", 0))
    except (OSError, KeyError, ValueError, IndexError):
        pass
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError, OSError):
        return float("inf")


def _limit(path: Path) -> float:
    try:
        return float(path.read_text())
    except (OSError, ValueError):  # ValueError: "max"
        return float("inf")


def check_memory(experiment: Experiment, spec: EnvSpec, env_bytes: float = 0.0) -> None:
    """UserError where the experiment's sizes ask for more memory than there is.

    Args:
        experiment: its options.
        spec: dimensions of its environment.
        env_bytes: memory of one copy of the environment.
    """
    have = available(experiment.device)
    everything = parts(experiment, spec, env_bytes)
    if experiment.device != "cuda":
        _compare(everything, have.host, "this machine")
        return
    _compare([part for part in everything if part.host], have.host, "this machine")
    _compare([part for part in everything if not part.host], have.device, "the GPU")


def _compare(needed: list[Demand], have: float, where: str) -> None:
    """UserError naming the largest part and the option that dominates it, where all that is there at one time is more than `have` bytes."""
    total = sum(part.bytes for part in needed if not part.passing)
    total += max((part.bytes for part in needed if part.passing), default=0)
    if total <= have:
        return
    largest = max(needed, key=lambda part: part.bytes)
    option, value = dominant(largest.factors)
    rest = f", the whole run {gigabytes(total)}" if total > 1.05 * largest.bytes else ""
    raise UserError(
        f"{option}={value}: {largest.name} would take {gigabytes(largest.bytes)} of memory{rest}; {where} has {gigabytes(have)} available"
    )


def gigabytes(size: float) -> str:
    """A number of bytes in GB of 1e9 bytes, "70,000 GB"."""
    number = size / GIGABYTE
    return f"{number:,.0f} GB" if number >= 10 else f"{number:.2g} GB"


def dominant(factors: Mapping[str, Any]) -> tuple[str, Any]:
    """The option with the largest value, or the largest of its values; and the option's whole value."""
    sizes = {name: max(value) if isinstance(value, tuple | list) else value for name, value in factors.items()}
    name = max(sizes, key=lambda key: sizes[key])
    value = factors[name]
    return name, list(value) if isinstance(value, tuple) else value
