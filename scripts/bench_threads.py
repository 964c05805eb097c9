"""Updates and plans on one and on two threads, alone and beside two busy processes: `python scripts/bench_threads.py`.

Each side is a process of its own, since OpenMP reads how idle threads wait when torch is loaded: spinning, as it does unless it is told
otherwise, or asleep (`OMP_WAIT_POLICY=passive`, as the `mbkit` command sets it). Rounds are interleaved, first with the competing
processes stopped, then with them running. `busy before` is the load that others put on the machine meanwhile, in cores.
"""

import argparse
import json
import multiprocessing
import os
import signal
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from side_by_side import table

WAITING = {"1 thread": (1, {}), "2 spinning": (2, {}), "2 briefly spinning": (2, {"GOMP_SPINCOUNT": "1000"})}
WAITING["2 asleep"] = (2, {"OMP_WAIT_POLICY": "passive"})
SECONDS = 0.4  # of a round, and the last piece of work to its end


class Work(NamedTuple):
    """What is measured: how often a piece of work is done in a second."""

    build: Callable[..., Callable[[], object]]
    arguments: tuple[Any, ...]
    unit: str


def updates(hidden: int, batch: int) -> Callable[[], object]:
    """A SAC update on a batch of Hopper's dimensions."""
    import torch

    from mbkit.agents.actor_critic.sac import SAC, SACConfig
    from mbkit.types import EnvSpec, Transition

    agent = SAC(EnvSpec(11, 3, torch.device("cpu")), SACConfig(hidden=(hidden, hidden)))
    rows = torch.randn(batch, 11), torch.rand(batch, 3) * 2 - 1, torch.randn(batch), torch.randn(batch, 11), torch.ones(batch) * 0.99
    return lambda: agent.update(Transition(*rows))


def plans(planner: str, candidates: int, particles: int, horizon: int, hidden: tuple[int, ...]) -> Callable[[], object]:
    """A plan of PETS in cartpole's dimensions, with an untrained ensemble of five."""
    import torch

    from mbkit import registry
    from mbkit.dynamics.ensemble import Ensemble, EnsembleConfig
    from mbkit.planning.mpc import MPC, MPCConfig
    from mbkit.types import EnvSpec, TaskKnowledge

    spec = EnvSpec(4, 1, torch.device("cpu"))
    knowledge = TaskKnowledge(lambda obs, action, next_obs: next_obs[..., 0].clamp(-1, 1), None)
    model = Ensemble(spec, EnsembleConfig(members=5, elites=5, hidden=hidden), knowledge)
    entry = registry.planners[planner]
    mpc = MPC(spec, entry.target(spec, entry.config(candidates=candidates)), model, MPCConfig(horizon=horizon, particles=particles))
    obs = torch.zeros(1, 4)
    return lambda: mpc.act(obs)


WORK = {
    "SAC 2 x 256, batch 256": Work(updates, (256, 256), "updates/s"),
    "SAC 2 x 512, batch 512": Work(updates, (512, 512), "updates/s"),
    "plan, iCEM 40 x 5, 3 x 200": Work(plans, ("icem", 40, 5, 25, (200,) * 3), "plans/s"),
    "plan, CEM 400 x 5, 4 x 200": Work(plans, ("cem", 400, 5, 15, (200,) * 4), "plans/s"),
}


def serve(pipe: Any, threads: int, work: Work) -> None:
    """The process of one side: a rate for every request."""
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    once = work.build(*work.arguments)
    once()
    while pipe.recv():
        begin, pieces = time.perf_counter(), 0
        while time.perf_counter() - begin < SECONDS:
            once()
            pieces += 1
        pipe.send(pieces / (time.perf_counter() - begin))


def compete() -> None:
    """A process that is busy for ever."""
    while True:
        sum(range(10_000))


class Side:
    """A process under its own OpenMP settings."""

    def __init__(self, name: str, work: Work) -> None:
        threads, settings = WAITING[name]
        self.pipe, remote = multiprocessing.get_context("spawn").Pipe()
        before = dict(os.environ)
        for variable in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
            os.environ.pop(variable, None)
        os.environ.update(settings)
        self.process = multiprocessing.get_context("spawn").Process(target=serve, args=(remote, threads, work), daemon=True)
        self.process.start()
        os.environ.clear()
        os.environ.update(before)

    def rate(self) -> float:
        """Pieces of work per second in one round."""
        self.pipe.send(True)
        return float(self.pipe.recv())

    def close(self) -> None:
        """End the process."""
        self.pipe.send(False)
        self.process.join()


def busy_cores(seconds: float = 1.0) -> float:
    """Cores that this machine's programs use now, over a short while."""

    def ticks() -> tuple[int, int]:
        numbers = [int(x) for x in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
        return sum(numbers), numbers[3] + numbers[4]

    total, idle = ticks()
    time.sleep(seconds)
    after, rest = ticks()
    return (os.cpu_count() or 1) * (1 - (rest - idle) / max(after - total, 1))


def measure(work: Work, rounds: int, rivals: list[Any]) -> dict[str, dict[str, list[float]]]:
    """Rates of every side in both worlds, and how busy the machine was without us."""
    sides = {name: Side(name, work) for name in WAITING}
    rates: dict[str, dict[str, list[float]]] = {world: {name: [] for name in [*sides, "busy before"]} for world in ("alone", "beside two")}
    for world, resume in (("alone", False), ("beside two", True)):
        for rival in rivals:
            os.kill(rival.pid, signal.SIGCONT if resume else signal.SIGSTOP)
        rates[world]["busy before"].append(busy_cores())
        for _ in range(rounds):
            for name, side in sides.items():
                rates[world][name].append(side.rate())
                time.sleep(0.02)  # until idle threads have stopped spinning
    for rival in rivals:
        os.kill(rival.pid, signal.SIGSTOP)
    for side in sides.values():
        side.close()
    return rates


def show(name: str, work: Work, rates: dict[str, dict[str, list[float]]]) -> None:
    """The table of one kind of work: medians, and the slowest and fastest round."""
    cores = {world: values["busy before"][0] for world, values in rates.items()}
    print(f"\n{name}, {work.unit}; busy cores before: {cores['alone']:.1f} alone, {cores['beside two']:.1f} beside two", flush=True)
    rows = []
    for side in WAITING:
        row: list[Any] = [side]
        for world in rates:
            values = sorted(rates[world][side])
            row += [statistics.median(values), values[0], values[-1]]
        rows.append(tuple(row))
    print(table(("", "alone", "min", "max", "beside two", "min", "max"), rows), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", nargs="*", default=list(WORK), help="kinds of work that contain one of these words")
    parser.add_argument("--out", type=Path, help="write the rates as JSON")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the competing processes end with this one
    rivals = [multiprocessing.get_context("spawn").Process(target=compete, daemon=True) for _ in range(2)]
    for rival in rivals:
        rival.start()
        os.kill(rival.pid, signal.SIGSTOP)
    results = {}
    try:
        for name, work in WORK.items():
            if any(word in name for word in args.only):
                results[name] = measure(work, args.rounds, rivals)
                show(name, work, results[name])
    finally:
        for rival in rivals:
            rival.kill()
    if args.out:
        args.out.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
