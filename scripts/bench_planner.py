"""Time per plan beside the real mbrl-lib, at its own settings and with the same weights: `python scripts/bench_planner.py --task cartpole`.

mbrl-lib: CEMOptimizer over ModelEnv.evaluate_action_sequences, random_model propagation, its own reward and termination. mbkit: CEM with as
many candidates, particles, steps and iterations on the imported ensemble, TS-infinity. Matmul: the plan's products alone, member by member.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from side_by_side import Run, apart, contest, table, verdict, write

MEMBERS, ELITES, HIDDEN, LAYERS, PARTICLES, ITERATIONS = 7, 5, 200, 4, 20, 5


class Task(NamedTuple):
    """mbrl-lib's own planning settings of one of its PETS examples."""

    obs_dim: int
    action_dim: int
    candidates: int
    elites: int
    horizon: int
    momentum: float
    reward: str  # in mbrl.env.reward_fns
    termination: str  # in mbrl.env.termination_fns
    process: str | None
    absolute: tuple[int, ...]
    targets: tuple[float, float]  # time of float32 and of bf16 over mbrl-lib's


CHEETAH_PROCESS = "mbrl.env.pets_halfcheetah.HalfCheetahEnv.preprocess_fn"
TASKS = {
    "cartpole": Task(4, 1, 350, 35, 15, 0.1, "cartpole", "cartpole", None, (), (0.5, 0.35)),
    "halfcheetah": Task(18, 6, 400, 64, 30, 0.12, "halfcheetah", "no_termination", CHEETAH_PROCESS, (0,), (0.6, 0.4)),
}


def flops(task: Task) -> float:
    """Floating-point operations of the matrix products of one plan: 2 per weight, row and step."""
    weights = (task.obs_dim + task.action_dim) * HIDDEN + (LAYERS - 1) * HIDDEN**2 + HIDDEN * 2 * task.obs_dim
    return 2.0 * weights * task.candidates * PARTICLES * task.horizon * ITERATIONS


def prepare(task: Task, directory: str) -> None:
    """Random weights in mbrl-lib's files; the last layer is small, so that predicted states stay in the range of the data."""
    import torch

    from mbkit.dynamics.mbrl.files import Network, Settings, Stats, write_network, write_settings, write_stats

    torch.manual_seed(0)
    inputs = task.obs_dim + task.action_dim
    sizes = [inputs, *[HIDDEN] * LAYERS, 2 * task.obs_dim]
    layers = [(torch.randn(MEMBERS, i, o) / (2 * i**0.5), torch.zeros(MEMBERS, 1, o)) for i, o in pairwise(sizes)]
    weight, bias = layers[-1]
    layers[-1] = 0.1 * weight, bias - 6 * (torch.arange(2 * task.obs_dim) >= task.obs_dim)
    network = Network(layers, (-10 * torch.ones(task.obs_dim), 0.5 * torch.ones(task.obs_dim)), tuple(range(1, ELITES + 1)))
    write_network(directory, network)
    write_stats(directory, Stats(torch.zeros(inputs), torch.ones(inputs)))
    write_settings(directory, Settings(no_delta=task.absolute, obs_process=task.process), network, normalize=True)


def timed(call: Callable[[], object], device: str, scale: float = 1) -> Run:
    """Seconds of one call, with the device idle before and after."""
    import torch

    def run() -> dict[str, float]:
        if device == "cuda":
            torch.cuda.synchronize()
        begin, busy = time.perf_counter(), time.process_time()
        call()
        if device == "cuda":
            torch.cuda.synchronize()
        return {"seconds": scale * (time.perf_counter() - begin), "cpu_seconds": scale * (time.process_time() - busy)}

    return run


def peer(task: Task, directory: str, device: str) -> Run:
    """mbrl-lib."""
    import gymnasium
    import numpy as np
    import torch
    from mbrl.env import reward_fns, termination_fns
    from mbrl.models import ModelEnv, ModelTrainer
    from mbrl.planning import CEMOptimizer
    from mbrl.util import common

    cfg = common.load_hydra_cfg(directory)
    cfg.dynamics_model.device = device
    model = common.create_one_dim_tr_model(cfg, (task.obs_dim,), (task.action_dim,), directory)

    class Spaces(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (task.obs_dim,))
        action_space = gymnasium.spaces.Box(-1, 1, (task.action_dim,))

    ModelTrainer(model)  # as in its PETS loop: the first optimizer of a process loads 70 MiB of torch
    termination, reward = getattr(termination_fns, task.termination), getattr(reward_fns, task.reward)
    env = ModelEnv(Spaces(), model, termination, reward, generator=torch.Generator(device).manual_seed(0))
    bound = np.ones((task.horizon, task.action_dim))
    cem = CEMOptimizer(
        ITERATIONS,
        task.elites / task.candidates,
        task.candidates,
        -bound,
        bound,
        task.momentum,
        torch.device(device),
        return_mean_elites=True,
    )
    obs, mean = np.zeros(task.obs_dim), torch.zeros(task.horizon, task.action_dim, device=device)
    return timed(lambda: cem.optimize(lambda actions: env.evaluate_action_sequences(actions, obs, PARTICLES), x0=mean), device)


def known(task: Task) -> tuple[Any, Any]:
    """mbrl-lib's reward and termination of the task, as functions of (obs, action, next_obs)."""
    import math

    import torch

    def falls(obs: torch.Tensor, action: torch.Tensor, next_obs: torch.Tensor) -> torch.Tensor:
        return (next_obs[:, 0].abs() >= 2.4) | (next_obs[:, 2].abs() >= 12 * 2 * math.pi / 360)

    def stands(obs: torch.Tensor, action: torch.Tensor, next_obs: torch.Tensor) -> torch.Tensor:
        return (~falls(obs, action, next_obs)).float()

    def runs(obs: torch.Tensor, action: torch.Tensor, next_obs: torch.Tensor) -> torch.Tensor:
        return next_obs[:, 0] - 0.1 * action.square().sum(1)

    return (stands, falls) if task.reward == "cartpole" else (runs, None)


def cheetah(obs: Any) -> Any:
    """Inputs of the halfcheetah's networks."""
    import torch

    return torch.cat([obs[..., 1:2], obs[..., 2:3].sin(), obs[..., 2:3].cos(), obs[..., 3:]], -1)


def ours(task: Task, directory: str, device: str, precision: str, mode: str, small: bool) -> Run:
    """mbkit: CEM at the same size, or the small iCEM preset."""
    import torch

    from mbkit.dynamics.ensemble import EnsembleConfig
    from mbkit.dynamics.mbrl.convert import import_ensemble
    from mbkit.planning.cem import CEM, CEMConfig
    from mbkit.planning.icem import ICEM, ICEMConfig
    from mbkit.planning.mpc import MPC, MPCConfig
    from mbkit.types import EnvSpec, TaskKnowledge

    spec = EnvSpec(task.obs_dim, task.action_dim, torch.device(device))
    knowledge = TaskKnowledge(*known(task), cheetah if task.process else None)
    model = import_ensemble(directory, spec, knowledge, cfg=EnsembleConfig(precision=precision))
    cem = CEMConfig(candidates=task.candidates, elites=task.elites, iterations=ITERATIONS, momentum=task.momentum)
    planner = ICEM(spec, ICEMConfig()) if small else CEM(spec, cem)
    horizon, particles = (25, 5) if small else (task.horizon, PARTICLES)
    mpc = MPC(spec, planner, model, MPCConfig(horizon=horizon, particles=particles, mode=mode))
    obs = torch.zeros(1, task.obs_dim, device=device)
    return timed(lambda: mpc.act(obs), device)


def products(task: Task, device: str, precision: str) -> Run:
    """Matrix products of one iteration, with as many rows per member as the plan, one member after the other; scaled to the whole plan."""
    import torch

    dtype, rows = getattr(torch, precision), task.candidates * PARTICLES // ELITES
    sizes = [task.obs_dim + task.action_dim, *[HIDDEN] * LAYERS, 2 * task.obs_dim]
    members = [[torch.randn(o, i, device=device, dtype=dtype) / i**0.5 for i, o in pairwise(sizes)] for _ in range(ELITES)]
    first = torch.randn(rows, sizes[0], device=device, dtype=dtype)

    @torch.no_grad()
    def multiply() -> None:
        for _ in range(task.horizon):
            for layers in members:
                x = first
                for weight in layers:
                    x = torch.nn.functional.linear(x, weight)

    return timed(multiply, device, scale=ITERATIONS)


def compare(name: str, rounds: int, threads: int, device: str) -> dict[str, dict[str, float]]:
    """All sides of one task."""
    task = TASKS[name]
    with tempfile.TemporaryDirectory() as directory:
        apart(prepare, task, directory)
        sides: dict[str, tuple[Any, ...]] = {
            "mbrl-lib": (peer, task, directory, device),
            "mbkit float32": (ours, task, directory, device, "float32", "eager", False),
            "mbkit bf16": (ours, task, directory, device, "bfloat16", "eager", False),
            "matmul float32": (products, task, device, "float32"),
            "matmul bf16": (products, task, device, "bfloat16"),
        }
        if name == "cartpole":
            sides["mbkit small iCEM"] = (ours, task, directory, device, "float32", "eager", True)
        if device == "cuda":
            for short, precision in (("float32", "float32"), ("bf16", "bfloat16")):
                sides[f"mbkit {short} graph"] = (ours, task, directory, device, precision, "cudagraph", False)
        return contest(sides, rounds, threads)


def report(name: str, results: dict[str, dict[str, float]], device: str) -> None:
    """Prints the table, and whether each target is met."""
    task, base = TASKS[name], results["mbrl-lib"]["seconds"]
    rows = []
    for side, r in results.items():
        whole = "small" not in side
        rate = flops(task) / r["seconds"] / 1e9 if whole else float("nan")
        product = results["matmul bf16" if "bf16" in side else "matmul float32"]
        shares = [product[key] / r[key] if whole else float("nan") for key in ("seconds", "cpu_seconds")]
        times = (1e3 * r[key] for key in ("seconds", "fastest", "slowest", "cpu_seconds"))
        rows.append((side, r["seconds"] / base, *times, rate, *shares, r["peak_mib"], r["growth_mib"]))
    print(f"\n{name} on {device}: {task.candidates} candidates, {PARTICLES} particles, horizon {task.horizon}, {ITERATIONS} iterations")
    head = ("", "/ mbrl-lib", "median ms", "min", "max", "CPU ms", "GFLOP/s", "of matmul", "of its CPU", "peak MiB", "growth")
    print(table(head, rows))
    seconds = {side: r["seconds"] for side, r in results.items()}
    for side, target in zip(("mbkit float32", "mbkit bf16"), task.targets, strict=True):
        print(verdict(f"{side} / mbrl-lib", seconds[side] / base, target))
    key = "cpu_seconds" if device == "cpu" else "seconds"  # which other programs change less than wall-clock
    for precision, target in (("float32", 0.75), ("bf16", 0.6)):
        share = results[f"matmul {precision}"][key] / results[f"mbkit {precision}"][key]
        print(verdict(f"share of the {precision} matmul rate", share, target, at_least=True))
    print(verdict("peak memory / mbrl-lib", results["mbkit float32"]["peak_mib"] / results["mbrl-lib"]["peak_mib"], 1))
    if "mbkit small iCEM" in seconds:
        print(verdict("small iCEM plan, ms", 1e3 * seconds["mbkit small iCEM"], 60))
    if device == "cuda":
        print(verdict("mbkit float32 graph / mbrl-lib", seconds["mbkit float32 graph"] / base, 0.1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=[*TASKS, "all"], default="all")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    args = parser.parse_args()
    names = list(TASKS) if args.task == "all" else [args.task]
    results = {}
    for name in names:
        results[name] = compare(name, args.rounds, args.threads, args.device)
        report(name, results[name], args.device)
    write(args.out, {"device": args.device, "threads": args.threads, "rounds": args.rounds, "results": results})


if __name__ == "__main__":
    main()
