"""Kernels of everything that becomes a CUDA graph, counted on a pretended device, and the time that they predict.

    python scripts/count_kernels.py [--only WORD] [--markdown]

Nothing is measured on a GPU. An operator counts as one kernel; views and uninitialised memory count as none. Predicted time: eager 5.5 us
an operator, or that of a graph where it is longer; in a graph 1.8 us a kernel and the products at `--tflops`, `--tflops-bf16`.
Sizes: those of the benchmarks beside mbrl-lib (`bench_*.py`); of agents their own, batches of 256, 11 observations and 3 actions.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

sys.path[:0] = [str(Path(__file__).resolve().parent.parent / folder) for folder in ("", "tests/support")]

import pretended_cuda  # noqa: E402, F401, I001  # before torch
from pretended_cuda.device import DEVICE  # noqa: E402
from pretended_cuda.switch import pretended  # noqa: E402

import bench_dynamics  # noqa: E402
import bench_planner  # noqa: E402
import bench_rollout  # noqa: E402
import torch  # noqa: E402

EAGER_US, GRAPH_US = 5.5, 1.8  # microseconds: of an operator, and of a small kernel in a graph
OBS, ACTION, ROWS, BATCH = 11, 3, 1000, 256
GROUPED, AT_ONCE = ("sac", "td3", "ddpg", "dqn"), 20  # MBPO makes 20 updates a step
Trace = list[tuple[str, list[tuple[int, ...]]]]


class Unit(NamedTuple):
    """What becomes one graph: `build()` makes a call; it does `parts` of the thing counted."""

    name: str
    build: Callable[[], Callable[[], object]]
    parts: int = 1


def flops(trace: Trace) -> float:
    """Floating-point operations of the matrix products among the kernels: 2 for each multiply-add."""
    total = 0.0
    for name, shapes in trace:
        kind = name.split(".")[1]
        if kind in ("mm", "bmm"):
            a, b = shapes[0], shapes[1]
        elif kind in ("addmm", "baddbmm"):
            a, b = shapes[1], shapes[2]
        else:
            continue
        rows = 1
        for n in a:
            rows *= n
        total += 2.0 * rows * b[-1]
    return total


def traced(unit: Unit) -> Trace:
    """The kernels of one call, after two that make optimizer states and caches."""
    torch.manual_seed(0)
    call = unit.build()
    for _ in range(2):
        call()
    DEVICE.trace = []
    call()
    trace, DEVICE.trace = DEVICE.trace, None
    return trace


def agent_units() -> Iterator[Unit]:
    """An update of every registered agent, drawing its batch included."""
    from mbkit.errors import UserError
    from mbkit.registry import agents
    from mbkit.replay.buffer import Experience, ReplayBuffer
    from mbkit.testing import random_batch, random_trajectory
    from mbkit.types import EnvSpec, Trajectory, TrajectoryLearner

    def build(entry: Any, count: int = 0) -> Callable[[], object]:
        cpu = torch.device("cpu")
        for discrete in (False, True):
            spec = EnvSpec(OBS, ACTION, torch.device("cuda"), discrete)
            try:
                agent = entry.target(spec, entry.config(relabel_every=1) if entry.name == "awr" else entry.config())
            except UserError:
                continue
            break
        if isinstance(agent, TrajectoryLearner):
            trajectory = Trajectory(*(x.to(spec.device) for x in random_trajectory(spec._replace(device=cpu), 16, 2)))
            return lambda: agent.update(trajectory)
        rows, buffer = random_batch(spec._replace(device=cpu), ROWS), ReplayBuffer(ROWS, spec)
        buffer.extend(Experience(rows.obs, rows.action, rows.reward, rows.next_obs, rows.discount == 0, rows.discount == 0), column=0)

        def updates() -> None:
            for left in reversed(range(count or agent.cycle)):
                agent.measures = not left or not count  # as in a run: of several updates in a graph the last one measures
                agent.update(buffer.sample(BATCH))

        return updates

    for entry in agents:
        if entry.target.__module__.startswith("mbkit."):
            cycle = getattr(entry.config(), "delay", getattr(entry.config(), "policy_every", 1))
            what = "update of 16 x 2 steps" if "trajectories" in str(entry.learns_from) else "update and draw"
            yield Unit(f"{entry.name}: {what}", lambda entry=entry: build(entry), cycle)
    for name in GROUPED:
        yield Unit(f"{name}: each of {AT_ONCE} updates and draws in a graph", lambda name=name: build(agents[name], AT_ONCE), AT_ONCE)


def model_units(folder: str) -> Iterator[Unit]:
    """Plans, a step of the ensemble, model rollouts and epochs of a fit."""
    for short, task in bench_planner.TASKS.items():
        Path(folder, short).mkdir()
        bench_planner.prepare(task, f"{folder}/{short}")
        for precision in ("float32", "bfloat16"):
            arguments = task, f"{folder}/{short}", "cuda", precision, "eager", False
            size = f"{task.candidates} x {bench_planner.PARTICLES} x {task.horizon} x {bench_planner.ITERATIONS}"
            yield Unit(f"plan, {short}, {size}, {precision}", lambda a=arguments: bench_planner.ours(*a))
    bench_rollout.ROWS = ROWS
    for steps in (1, 2):
        name = f"model rollouts of {bench_rollout.BATCH} states, {steps} step{'s' * (steps > 1)}"
        yield Unit(name, lambda k=steps: bench_rollout.ours(k, "cuda", "float32", "eager"))


def training_units() -> Iterator[Unit]:
    """A step of an ensemble's fit: Adam on a batch for each of its members."""
    from mbkit.dynamics import training
    from mbkit.dynamics.ensemble import Ensemble, EnsembleConfig
    from mbkit.testing import random_batch
    from mbkit.types import EnvSpec, Transition

    members, batch, steps = bench_dynamics.MEMBERS, bench_dynamics.BATCH, 8

    def build() -> Callable[[], object]:
        spec = EnvSpec(*bench_dynamics.SIZES["halfcheetah"], torch.device("cuda"))
        hidden = (bench_dynamics.HIDDEN,) * bench_dynamics.LAYERS
        cfg = EnsembleConfig(members=members, elites=bench_dynamics.ELITES, hidden=hidden, batch=batch, reward="learned")
        model, data = Ensemble(spec, cfg), random_batch(spec._replace(device=torch.device("cpu")), steps * batch * 2)
        rows = training.rows(model.network, Transition(*(x.to(spec.device) for x in data[:5])))
        train, _ = training.hold_out(model.network, rows)
        batches = training.shuffled(training.draw_bootstrap(members, len(train.x), True, spec.device), batch, fixed=True)
        drawn = train.at(batches[:steps])
        return lambda: model.trainer.descent.steps(drawn)

    yield Unit(f"a training step of {members} x {batch} rows, 1 of {steps}", build, steps)


def loop_units() -> Iterator[Unit]:
    """What a step of the online loop asks of the device: SAC acts, and the replay stores a row."""
    from mbkit.agents.actor_critic.sac import SAC, SACConfig
    from mbkit.replay.buffer import Experience, ReplayBuffer
    from mbkit.testing import random_batch
    from mbkit.types import EnvSpec

    spec = EnvSpec(OBS, ACTION, torch.device("cuda"))
    rows = random_batch(spec._replace(device=torch.device("cpu")), 1)
    on_device = [x.to("cuda") for x in (rows.obs, rows.action, rows.reward, rows.next_obs, rows.discount == 0, rows.discount == 0)]

    def act() -> Callable[[], object]:
        agent = SAC(spec, SACConfig())
        return lambda: agent.act(on_device[0])

    def extend() -> Callable[[], object]:
        buffer = ReplayBuffer(ROWS, spec)
        return lambda: buffer.extend(Experience(*on_device), on_device[4] | True)

    yield Unit("act, SAC", act)
    yield Unit("extend, one row", extend)


def predicted(kernels: float, work: float, tflops: float) -> tuple[float, float]:
    """Milliseconds, eager and in a graph."""
    graph = 1e-3 * GRAPH_US * kernels + 1e-9 * work / tflops
    return max(1e-3 * EAGER_US * kernels, graph), graph


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="units whose name holds this")
    parser.add_argument("--tflops", type=float, default=40.0, help="rate of float32 products, 1e12 operations a second")
    parser.add_argument("--tflops-bf16", type=float, default=200.0, help="the same of bfloat16")
    parser.add_argument("--markdown", action="store_true", help="rows of a Markdown table")
    args = parser.parse_args()
    torch.set_num_threads(1)
    line = "| {} | {:.0f} | {:.3g} | {:.2f} | {:.2f} |" if args.markdown else "{:56s} {:7.0f} {:10.3g} {:9.2f} {:9.2f}"
    head = "| work | kernels | GFLOP | eager, ms | in a graph, ms |\n|---|---|---|---|---|"
    print(head if args.markdown else f"{'work':56s} kernels      GFLOP eager, ms graph, ms")
    with pretended(), tempfile.TemporaryDirectory() as folder:
        for units in (agent_units(), model_units(folder), training_units(), loop_units()):
            for unit in units:
                if args.only not in unit.name:
                    continue
                try:
                    trace = traced(unit)
                except Exception as error:  # a part that has changed must not hide the others
                    print(f"{unit.name}: {type(error).__name__}: {str(error)[:120]}", file=sys.stderr)
                    continue
                kernels, work = len(trace) / unit.parts, flops(trace) / unit.parts
                rate = args.tflops_bf16 if "bfloat16" in unit.name else args.tflops
                print(line.format(unit.name, kernels, 1e-9 * work, *predicted(kernels, work, rate)), flush=True)


if __name__ == "__main__":
    main()
