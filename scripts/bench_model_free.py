"""Environment steps per second of whole training beside Stable-Baselines3: `python scripts/bench_model_free.py`.

PPO, A2C and DQN learn CartPole-v1, each library with its own environment wrappers, buffers and logging. Networks, batches,
epochs and the numbers of environments and updates are the same on both sides. DQN twice: an update of 32 rows every four steps, which is
Stable-Baselines3's default and mostly the cost of acting and storing, and one of 64 rows at every step (dqn-often).
"""

import argparse
import time
from importlib.util import find_spec
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from side_by_side import Run, contest, table, verdict, write

ENV, HIDDEN = "CartPole-v1", (64, 64)
STEPS = {"ppo": 4096, "a2c": 4000, "dqn": 4000, "dqn-often": 2000}  # environment steps of a round
PEER: dict[str, dict[str, Any]] = {  # arguments of Stable-Baselines3 that differ from its defaults
    "ppo": {"n_steps": 256, "batch_size": 64, "n_epochs": 10},
    "a2c": {"n_steps": 5},
    "dqn": {"train_freq": 4, "gradient_steps": 1, "batch_size": 32, "learning_starts": 100},
    "dqn-often": {"train_freq": 1, "gradient_steps": 1, "batch_size": 64, "learning_starts": 100},
}
ENVS = {"ppo": 8, "a2c": 8, "dqn": 1, "dqn-often": 1}
OURS: dict[str, tuple[str, ...]] = {
    "ppo": ("loop.rollout_steps=256", "agent.minibatch=64", "agent.epochs=10"),
    "a2c": ("loop.rollout_steps=5",),
    "dqn": (
        "loop.updates_per_step=0.25",
        "loop.batch_size=32",
        "loop.warmup_steps=100",
        "loop.n_step=1",
        "agent.loss=huber",
        "agent.target_every=2500",
    ),
    "dqn-often": (
        "loop.updates_per_step=1",
        "loop.batch_size=64",
        "loop.warmup_steps=100",
        "loop.n_step=1",
        "agent.loss=huber",
        "agent.target_every=10000",
    ),
}


def sb3(name: str, device: str) -> Run:
    """Stable-Baselines3's algorithm; each round goes on with the training of the last one."""
    import stable_baselines3
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.logger import configure

    env = make_vec_env(ENV, n_envs=ENVS[name], seed=0)
    policy = {"net_arch": list(HIDDEN)}
    agent = getattr(stable_baselines3, name.split("-")[0].upper())(
        "MlpPolicy", env, policy_kwargs=policy, device=device, seed=0, **PEER[name]
    )
    agent.set_logger(configure(None, []))

    def run() -> dict[str, float]:
        begin, busy = time.perf_counter(), time.process_time()
        agent.learn(STEPS[name], reset_num_timesteps=False)
        return {"seconds": time.perf_counter() - begin, "cpu_seconds": time.process_time() - busy}

    return run


def ours(name: str, device: str, mode: str) -> Run:
    """mbkit's algorithm, with the recorder that writes metrics.jsonl."""
    import torch

    from mbkit import recording
    from mbkit.config import compose
    from mbkit.run import Run as Training

    hidden = f"agent.hidden={list(HIDDEN)}".replace(" ", "")
    options = [f"env={ENV}", f"device={device}", f"loop.mode={mode}", f"loop.num_envs={ENVS[name]}", hidden, "steps=1000000000"]
    training = Training(compose(name.split("-")[0], [*options, f"threads={torch.get_num_threads()}", *OURS[name]]))
    training.loop.recorder = recording.Recorder(mkdtemp(), every=1000)
    training.loop.start()

    def run() -> dict[str, float]:
        begin, busy = time.perf_counter(), time.process_time()
        training.loop.run(training.loop.step + STEPS[name], training.parts.hooks)
        return {"seconds": time.perf_counter() - begin, "cpu_seconds": time.process_time() - busy}

    return run


def compare(names: list[str], rounds: int, threads: int, device: str) -> dict[str, dict[str, float]]:
    """All sides whose library is installed."""
    sides: dict[str, tuple[Any, ...]] = {}
    for name in names:
        if find_spec("stable_baselines3"):
            sides[f"{name} SB3"] = (sb3, name, device)
        sides[f"{name} mbkit"] = (ours, name, device, "eager")
        if device == "cuda":
            sides[f"{name} mbkit graph"] = (ours, name, device, "cudagraph")
    return contest(sides, rounds, threads)


def report(results: dict[str, dict[str, float]], device: str, threads: int, key: str) -> None:
    """Prints the table, and whether each target is met, by the clock `key`."""
    rows = []
    for side, r in results.items():
        name = side.split()[0]
        steps = [STEPS[name] / r[clock] for clock in (key, "slowest", "fastest")]
        rows.append((side, *steps, r[key] / results[f"{name} mbkit"][key], r["peak_mib"]))
    print(f"\n{ENV} on {device}, {threads} threads, hidden {HIDDEN}")
    print(table(("", "steps/s", "slowest by wall clock", "fastest", "time / mbkit", "peak MiB"), rows))
    for side, r in results.items():
        peer = results.get(f"{side.split()[0]} SB3")
        if peer and "mbkit" in side:
            print(verdict(f"{side}: steps per second / SB3", peer[key] / r[key], 1.2, at_least=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=list(STEPS), nargs="+", default=list(STEPS))
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--cpu-time", action="store_true", help="compare CPU time, for a machine that is busy with something else")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    args = parser.parse_args()
    if not find_spec("stable_baselines3"):
        print(
            "Stable-Baselines3 is not installed and left out: `pip install --no-deps stable-baselines3 cloudpickle` does not change torch."
        )
    results = compare(args.only, args.rounds, args.threads, args.device)
    report(results, args.device, args.threads, "cpu_seconds" if args.cpu_time else "seconds")
    write(args.json, {"device": args.device, "threads": args.threads, "rounds": args.rounds, "steps": STEPS, "results": results})


if __name__ == "__main__":
    main()
