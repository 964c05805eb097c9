"""Interleaved rounds of several sides, each in a process of its own: noise affects all alike, and peak memory is measured for each.

This process does not import torch: a child's `ru_maxrss` begins at its parent's.
"""

import json
import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Run = Callable[[], Mapping[str, float]]  # one round; "seconds" is the measured time
MIB = 2**20 if sys.platform == "darwin" else 2**10  # ru_maxrss is in bytes there, in KiB elsewhere


def serve(pipe: Any, threads: int, build: Callable[..., Run], arguments: tuple[Any, ...]) -> None:
    """The process of one side: builds it, warms up, then runs one round per request."""
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    run = build(*arguments)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pipe.send(run())
    while pipe.recv():
        pipe.send(run())
    cuda = torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pipe.send({"peak_mib": peak / MIB, "growth_mib": (peak - before) / MIB, "cuda_mib": cuda})


def contest(sides: Mapping[str, tuple[Any, ...]], rounds: int, threads: int) -> dict[str, dict[str, float]]:
    """Medians over interleaved rounds, and peak memory, of every side; a side is (build, *arguments) with build(*arguments) -> Run."""
    spawn = multiprocessing.get_context("spawn")
    pipes, processes, history = {}, [], {name: [] for name in sides}
    for name, (build, *arguments) in sides.items():
        pipes[name], remote = spawn.Pipe()
        processes.append(spawn.Process(target=serve, args=(remote, threads, build, tuple(arguments)), daemon=True))
        processes[-1].start()
        remote.close()
        pipes[name].recv()  # warmed up
    for _ in range(rounds):
        for name, pipe in pipes.items():
            time.sleep(0.05)  # until the idle threads of the last side stop spinning
            pipe.send(True)
            history[name].append(pipe.recv())
    results = {}
    for (name, pipe), process in zip(pipes.items(), processes, strict=True):
        pipe.send(False)
        medians = {key: statistics.median(float(one[key]) for one in history[name]) for key in history[name][0]}
        spread = sorted(one["seconds"] for one in history[name])
        results[name] = medians | {"fastest": spread[0], "slowest": spread[-1]} | pipe.recv()
        process.join()
    return results


def apart(build: Callable[..., None], *arguments: Any) -> None:
    """Calls `build` in another process, so that this one stays small."""
    process = multiprocessing.get_context("spawn").Process(target=build, args=arguments)
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(process.exitcode)


def table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    """Right-aligned columns, the first one left-aligned; floats with three significant digits."""
    text = [head, *[tuple(f"{cell:.3g}" if isinstance(cell, float) and cell < 1000 else _plain(cell) for cell in row) for row in rows]]
    widths = [max(len(row[i]) for row in text) for i in range(len(head))]
    lines = [
        "  ".join(cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))) for row in text
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def _plain(cell: Any) -> str:
    return f"{cell:.0f}" if isinstance(cell, float) else str(cell)


def verdict(what: str, value: float, target: float, at_least: bool = False) -> str:
    """One line: whether a measured value meets its target."""
    met = value >= target if at_least else value <= target
    return f"{'ok  ' if met else 'MISS'} {what}: {value:.3g} (target {'>=' if at_least else '<='} {target:g})"


def write(path: Path | None, content: Mapping[str, Any]) -> None:
    """Writes JSON with the versions of the packages, unless `path` is None."""
    if path is None:
        return
    from importlib.metadata import version
    from platform import platform, processor, python_version

    versions = {"python": python_version(), "torch": version("torch"), "mbrl": version("mbrl"), "platform": platform(), "cpu": processor()}
    path.write_text(json.dumps({**content, "versions": versions}, indent=2) + "\n")
