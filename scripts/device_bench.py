"""Speed on one device, eager and with CUDA graphs, beside mbrl-lib: `python scripts/device_bench.py --device cuda --out bench.json`.

Updates, plans, fits, model rollouts and steps of the online loop, in one process, one side after the other: the scripts `bench_*.py` build
them. The file is written after every side, so that one cut short says what it measured until then.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import bench_dynamics
import bench_planner
import bench_rollout
import bench_update
import torch
from side_by_side import Run, verdict

Build = Callable[[], Run]
PEERS = (  # what is compared with mbrl-lib, and the goal
    ("update sac", "update sac cudagraph", "update sac mbrl-lib", 10),
    ("plan cartpole", "plan cartpole tf32 cudagraph", "plan cartpole mbrl-lib", 10),
    ("plan halfcheetah", "plan halfcheetah tf32 cudagraph", "plan halfcheetah mbrl-lib", 10),
    ("fit", "fit mbkit", "fit mbrl-lib", 10),
    ("rollout", "rollout of 1 cudagraph", "rollout of 1 mbrl-lib", 10),
)


class Side(NamedTuple):
    """What is measured: `build()` makes a call whose result holds the seconds of one round."""

    name: str
    build: Build
    scale: float  # of its seconds
    unit: str
    rounds: int = 8


def with_tf32(build: Build) -> Run:
    """The same side with TF32 products."""
    from mbkit.accelerate import matmul_precision

    run = build()

    def wrapped() -> Any:
        with matmul_precision("high"):
            return run()

    return wrapped


def online(device: str, steps: int) -> Run:
    """Steps of the online loop without updates: SAC acts on Hopper, and the replay stores."""
    from mbkit.agents.actor_critic.sac import SAC, SACConfig
    from mbkit.envs import make
    from mbkit.loops import Online
    from mbkit.loops.traffic import Packed
    from mbkit.replay.buffer import ReplayBuffer

    class Silent:
        """A recorder that writes nothing."""

        def log(self, step: int, metrics: Any) -> None: ...
        def event(self, step: int, values: Any) -> None: ...

    env = make("Hopper-v5", seed=0)
    spec = env.spec._replace(device=torch.device(device))
    agent, buffer = SAC(spec, SACConfig()), ReplayBuffer(100_000, spec)
    traffic = Packed(agent, buffer, 1, spec.obs_dim, spec.device, "auto") if device == "cuda" else None
    loop: Any = Online(env, agent, buffer, traffic=traffic)
    loop.recorder = Silent()
    loop.start()

    def call() -> None:
        for _ in range(steps):
            loop.advance()

    return bench_planner.timed(call, device, 1 / steps)


def sides(device: str, folder: str) -> Iterator[Side]:
    """Every side, the most wanted first."""
    modes = ("cudagraph", "eager") if device == "cuda" else ("eager",)
    updates, tasks = bench_update.UPDATES, bench_planner.TASKS
    for short, task in tasks.items():
        Path(folder, short).mkdir()
        bench_planner.prepare(task, f"{folder}/{short}")
    bench_dynamics.prepare("halfcheetah", folder)
    for mode in modes:
        for name in ("sac", "td3"):
            yield Side(f"update {name} {mode}", partial(bench_update.ours, name, device, mode), 1e3 / updates, "ms")
        for short, task in tasks.items():
            plan = partial(bench_planner.ours, task, f"{folder}/{short}", device, mode=mode, small=False)
            yield Side(f"plan {short} tf32 {mode}", partial(with_tf32, partial(plan, precision="float32")), 1e3, "ms")
            yield Side(f"plan {short} bfloat16 {mode}", partial(plan, precision="bfloat16"), 1e3, "ms")
            yield Side(f"plan {short} float32 {mode}", partial(plan, precision="float32"), 1e3, "ms")
        yield Side(f"rollout of 1 {mode}", partial(bench_rollout.ours, 1, device, "float32", mode), 1e3, "ms")
    yield Side("fit mbkit", partial(bench_dynamics.ours, "halfcheetah", folder, device), 1, "s", 3)
    yield Side("online step", partial(online, device, 20 if updates < 60 else 500), 1e3, "ms", 3)
    yield Side("update sac mbrl-lib", partial(bench_update.mbrl_sac, device), 1e3 / updates, "ms", 3)
    yield Side("fit mbrl-lib", partial(bench_dynamics.peer, "halfcheetah", folder, device), 1, "s", 2)
    for short, task in tasks.items():
        yield Side(f"plan {short} mbrl-lib", partial(bench_planner.peer, task, f"{folder}/{short}", device), 1e3, "ms", 3)
    yield Side("rollout of 1 mbrl-lib", partial(bench_rollout.peer, 1, device), 1e3, "ms", 3)
    yield Side("update sac products alone", partial(bench_update.products, device), 1e3 / updates, "ms")
    for short, task in tasks.items():
        yield Side(f"plan {short} products alone", partial(bench_planner.products, task, device, "float32"), 1e3, "ms")


def measure(side: Side, limit: float) -> dict[str, Any]:
    """Median of some rounds after the first, which warms up and captures; or why there is none."""
    began = time.perf_counter()
    try:
        run = side.build()
        run()
        first, values = time.perf_counter() - began, []
        while len(values) < side.rounds and (not values or time.perf_counter() - began < limit):
            values.append(side.scale * float(run()["seconds"]))
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"[:400]}
    spread = {"min": min(values), "max": max(values), "rounds": len(values), "first": first}
    return {"value": statistics.median(values), "unit": side.unit, **spread}


def verdicts(results: dict[str, Any]) -> list[dict[str, Any]]:
    """How many times faster than mbrl-lib, beside the goal, where both sides were measured."""
    values = {name: result["value"] for name, result in results.items() if "value" in result}
    pairs = ((what, values.get(mine), values.get(peer), goal) for what, mine, peer, goal in PEERS)
    return [{"what": what, "times": peer / mine, "goal": goal} for what, mine, peer, goal in pairs if mine and peer]


def shrink() -> None:
    """Tiny sizes, to try this script."""
    bench_update.UPDATES = bench_update.AT_ONCE = 2
    bench_update.ROWS = bench_rollout.ROWS = 1000
    bench_rollout.BATCH, bench_dynamics.ROWS, bench_dynamics.TEST_ROWS, bench_dynamics.EPOCHS = 100, 600, 100, 1
    for name, task in bench_planner.TASKS.items():
        bench_planner.TASKS[name] = task._replace(candidates=20, elites=4, horizon=2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda")
    parser.add_argument("--seconds", type=float, default=170, help="no side begins later")
    parser.add_argument("--only", default="", help="sides whose name begins with this")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to try this script")
    parser.add_argument("--out", type=Path, help="write the figures to this file")
    args = parser.parse_args()
    if args.quick:
        shrink()
    bench_update.UPDATES = max(bench_update.UPDATES, 200) if args.device == "cuda" and not args.quick else bench_update.UPDATES
    torch.manual_seed(0)
    began, results = time.monotonic(), {}
    with tempfile.TemporaryDirectory() as folder:
        for side in sides(args.device, folder):
            if not side.name.startswith(args.only):
                continue
            left = args.seconds - (time.monotonic() - began)
            if left <= 0:
                results[side.name] = {"error": "no time was left"}
                continue
            results[side.name] = measure(side._replace(rounds=1) if args.quick else side, min(15.0, left))
            print(side.name, results[side.name], flush=True)
            if args.out:
                args.out.write_text(json.dumps({"results": results, "beside mbrl-lib": verdicts(results)}, indent=1) + "\n")
    for line in verdicts(results):
        print(verdict(f"{line['what']}: speed / mbrl-lib", line["times"], line["goal"], at_least=True))


if __name__ == "__main__":
    main()
