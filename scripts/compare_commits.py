"""Time of the same work in two checkouts: `python scripts/compare_commits.py TREE_A TREE_B [--rounds 10] [--only fit branch]`.

    git worktree add ../before HEAD~1
    python scripts/compare_commits.py ../before .

Each workload runs in two processes with one thread each, one per checkout, in interleaved rounds whose order alternates. The ratio B / A is
that of a round's CPU times: its median over the rounds, and its quartiles. The workloads import what they need by the names of either tree.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

OBS, ACTION, ROWS, BATCH = 11, 3, 20_000, 256  # the sizes of Hopper
MEMBERS, ELITES, HIDDEN = 7, 5, (200, 200, 200, 200)


def find(*places: str) -> Any:
    """The first of several "module:name" that exists in this checkout."""
    for place in places:
        module, _, name = place.partition(":")
        try:
            return getattr(import_module(module), name)
        except (ImportError, AttributeError):
            continue
    raise SystemExit(f"none of {', '.join(places)} exists in {os.environ['PYTHONPATH']}")


def spec(obs_dim: int = OBS, action_dim: int = ACTION, discrete: bool = False) -> Any:
    """Dimensions on the CPU."""
    import torch

    return find("mbkit.types:EnvSpec")(obs_dim, action_dim, torch.device("cpu"), discrete)


def transitions(rows: int, space: Any) -> tuple[Any, ...]:
    """Random obs, action, reward, next_obs and terminated."""
    import torch

    action = torch.randint(space.action_dim, (rows,)) if space.discrete else torch.rand(rows, space.action_dim) * 2 - 1
    obs = torch.randn(rows, space.obs_dim)
    return obs, action, torch.randn(rows), obs + 0.1 * torch.randn(rows, space.obs_dim), torch.rand(rows) < 0.01


def replay(space: Any) -> Any:
    """A filled replay buffer."""
    import torch

    buffer = find("mbkit.replay.buffer:ReplayBuffer", "mbkit.buffer:ReplayBuffer")(ROWS, space)
    obs, action, reward, next_obs, terminated = transitions(ROWS, space)
    row = find("mbkit.replay.buffer:Experience", "mbkit.buffer:Rows")
    buffer.extend(row(obs, action, reward, next_obs, terminated, torch.zeros(ROWS, dtype=torch.bool)), column=0)
    return buffer


def ensemble(space: Any, reward: Callable[..., Any] | None = None, **options: Any) -> Any:
    """An ensemble with a small last layer, so that rollouts stay in the range of the data."""
    import torch

    make, config = find("mbkit.dynamics.ensemble:Ensemble"), find("mbkit.dynamics.ensemble:EnsembleConfig")
    options = {"members": MEMBERS, "elites": ELITES, "hidden": HIDDEN, **options}
    try:
        model = make(space, config(**options), find("mbkit.types:TaskKnowledge")(reward=reward))
    except SystemExit:  # before that record: the functions themselves
        model = make(space, config(**options), reward)
    net = getattr(model, "network", model).net
    with torch.no_grad():
        net.weight[-1].mul_(0.01)
    model.refresh()
    return model


def agent(name: str, space: Any, **options: Any) -> Any:
    """A registered agent."""
    import_module("mbkit.recipes")
    entry = find("mbkit.registry:agents")[name]
    return entry.target(space, entry.config(**options))


def plan(planner: str, horizon: int, particles: int, times: int, **options: Any) -> Callable[[], None]:
    """Plans with a known reward."""
    import torch

    space = spec(4, 1)
    model = ensemble(space, reward=lambda obs, action, next_obs: -next_obs.square().sum(-1))
    import_module("mbkit.recipes")
    entry = find("mbkit.registry:planners")[planner]
    config = find("mbkit.planning.mpc:MPCConfig")(horizon=horizon, particles=particles)
    mpc = find("mbkit.planning.mpc:MPC")(space, entry.target(space, entry.config(**options)), model, config)

    def run() -> None:
        for _ in range(times):
            mpc.act(torch.zeros(1, 4))

    return run


def fit() -> Callable[[], None]:
    """Two epochs of an ensemble, a fifth held out."""
    import torch

    space = spec()
    obs, action, reward, next_obs, terminated = transitions(2000, space)
    data = find("mbkit.types:Transition")(obs, action, reward, next_obs, 1 - terminated.float())
    model = ensemble(space, max_epochs=2)

    def run() -> None:
        torch.manual_seed(0)
        model.fit(data)

    return run


def branch() -> Callable[[], None]:
    """Model rollouts of two steps from 20 000 replayed states under SAC's policy."""
    space = spec()
    model, policy, data = ensemble(space, propagation="ts1"), agent("sac", space), replay(space)
    buffer = find("mbkit.replay.model_buffer:ModelBuffer", "mbkit.imagination.memory:ModelBuffer")(100_000, space)
    roll_out = find("mbkit.imagination.branch:branch")
    return lambda: roll_out(model, policy.sample, data.sample(20_000).obs, 2, buffer)


def updates(name: str, times: int, discrete: bool = False, **options: Any) -> Callable[[], None]:
    """Updates on batches from a replay buffer."""
    space = spec(OBS, ACTION, discrete)
    learner, buffer = agent(name, space, **options), replay(space)

    def run() -> None:
        for _ in range(times):
            learner.update(buffer.sample(BATCH))

    return run


def trajectory_update(name: str) -> Callable[[], None]:
    """An update on a trajectory of 256 steps of 8 environments."""
    import torch

    space = spec()
    learner = agent(name, space)
    obs, action, reward, next_obs, terminated = (x.view(256, 8, *x.shape[1:]) for x in transitions(2048, space))
    log_prob = learner.log_prob(obs, action)
    trajectory = find("mbkit.types:Trajectory")(obs, action, reward, next_obs, 1 - terminated.float(), terminated, log_prob)

    def run() -> None:
        torch.manual_seed(0)
        learner.update(trajectory)

    return run


def training(algo: str, env: str, steps: int, *options: str) -> Callable[[], None]:
    """Environment steps of whole training, with the recorder that writes metrics.jsonl."""
    compose, make = find("mbkit.config:compose"), find("mbkit.run:Run")
    import_module("mbkit.recipes")
    run = make(compose(algo, [f"env={env}", "threads=1", "steps=1000000000", *options]))
    run.loop.recorder = find("mbkit.recording:Recorder")(mkdtemp(), every=1000)
    run.loop.start()
    return lambda: run.loop.run(run.loop.step + steps, run.parts.hooks)


WORKLOADS: dict[str, Callable[[], Callable[[], None]]] = {
    "plan_icem": lambda: plan("icem", 25, 5, 5),
    "plan_cem": lambda: plan("cem", 15, 20, 1, candidates=100, elites=10),
    "fit": fit,
    "branch": branch,
    "sac_updates": lambda: updates("sac", 40),
    "td3_updates": lambda: updates("td3", 60),
    "dqn_updates": lambda: updates("dqn", 150, discrete=True),
    "ppo_update": lambda: trajectory_update("ppo"),
    "ppo_training": lambda: training("ppo", "CartPole-v1", 8192, "loop.num_envs=8", "loop.rollout_steps=256", "agent.epochs=4"),
    "a2c_training": lambda: training("a2c", "CartPole-v1", 6000),
    "dqn_training": lambda: training("dqn", "CartPole-v1", 2000, "loop.num_envs=1", "loop.updates_per_step=0.25"),
    "mbpo_training": lambda: training("mbpo", "InvertedPendulum-v5", 100, "loop.warmup_steps=100", "loop.fit_every=50"),
}


def serve(name: str) -> None:
    """The process of one checkout: builds the workload, warms up, then runs one round per line of stdin and writes its times."""
    answers, sys.stdout = sys.stdout, sys.stderr
    print(json.dumps(find("mbkit:__file__")), file=answers, flush=True)
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    run = WORKLOADS[name]()
    run()
    print(json.dumps("warm"), file=answers, flush=True)
    for _ in sys.stdin:
        begin, busy = time.perf_counter(), time.process_time()
        run()
        print(json.dumps([time.perf_counter() - begin, time.process_time() - busy]), file=answers, flush=True)


class Worker:
    """A process that serves one workload of one checkout."""

    def __init__(self, tree: Path, name: str) -> None:
        environment = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, __file__, str(tree), str(tree), "--serve", name]
        self.process = subprocess.Popen(command, cwd=tree, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        package = Path(self.answer())
        if tree not in package.parents:
            self.process.kill()
            raise SystemExit(f"{tree} holds no package mbkit; imported was {package}")
        self.answer()  # warmed up

    def answer(self) -> Any:
        """What the process writes next."""
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("the workload failed, see above")
        return json.loads(line)

    def round(self) -> tuple[float, float]:
        """Wall-clock and CPU seconds of one round."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        wall, cpu = self.answer()
        return wall, cpu

    def stop(self) -> None:
        """Ends the process."""
        self.process.stdin.close()
        self.process.wait()


def interleaved(trees: Sequence[Path], name: str, rounds: int) -> list[list[tuple[float, float]]]:
    """(wall-clock, CPU) seconds of every round, for each checkout."""
    workers = [Worker(tree, name) for tree in trees]
    history: list[list[tuple[float, float]]] = [[] for _ in workers]
    for number in range(rounds):
        for side in (0, 1) if number % 2 == 0 else (1, 0):
            history[side].append(workers[side].round())
    for worker in workers:
        worker.stop()
    return history


def summary(a: Sequence[tuple[float, float]], b: Sequence[tuple[float, float]]) -> dict[str, float]:
    """Medians of the CPU times in ms, median and quartiles of their ratios B / A by round, and the median ratio of wall-clock times."""
    ratios = sorted(y[1] / x[1] for x, y in zip(a, b, strict=True))
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
    wall = statistics.median(y[0] / x[0] for x, y in zip(a, b, strict=True))
    ms = [1e3 * statistics.median(x[1] for x in side) for side in (a, b)]
    return {"a_ms": ms[0], "b_ms": ms[1], "ratio": middle, "low": low, "high": high, "wall_ratio": wall}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trees", nargs=2, type=Path, metavar="TREE", help="the checkouts A and B")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument(
        "--only", nargs="+", choices=list(WORKLOADS), default=list(WORKLOADS), metavar="WORKLOAD", help=", ".join(WORKLOADS)
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve(args.serve)
        return
    trees, results = [tree.resolve() for tree in args.trees], {}
    print(f"{'workload':14} {'A, ms CPU':>10} {'B, ms CPU':>10} {'B / A':>7} {'quartiles':>15} {'wall-clock':>11}")
    for name in args.only:
        results[name] = s = summary(*interleaved(trees, name, args.rounds))
        spread = f"{s['low']:.3f} to {s['high']:.3f}"
        print(f"{name:14} {s['a_ms']:10.1f} {s['b_ms']:10.1f} {s['ratio']:7.3f} {spread:>15} {s['wall_ratio']:11.3f}", flush=True)
    if args.json:
        args.json.write_text(
            json.dumps({"trees": [str(tree) for tree in trees], "rounds": args.rounds, "results": results}, indent=2) + "\n"
        )


if __name__ == "__main__":
    main()
