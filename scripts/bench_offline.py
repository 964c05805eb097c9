"""Offline updates beside d3rlpy's: `python scripts/bench_offline.py --peer OTHER/bin/python --rounds 12`.

d3rlpy pins an older Gymnasium, so that it lives in an interpreter of its own: `python -m venv OTHER; OTHER/bin/pip install d3rlpy==2.8.1`.
Batch 256 drawn from 100 000 rows, hidden layers 256 and 256, the sizes of Hopper, observations normalised on both sides, one thread;
drawing is timed too. Rounds of CPU time are interleaved; each agent of each library is a process of its own, one at a time.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

OBS, ACTION, EPISODES, LENGTH, BATCH, HIDDEN = 11, 3, 200, 500, 256, (256, 256)
UPDATES = {"td3_bc": 60, "iql": 60, "awac": 40, "cql": 6, "rebrac": 30, "bc": 200}  # of one round
TARGETS = {"td3_bc": 2.0, "iql": 2.0, "awac": 2.0, "cql": 1.0}  # times d3rlpy's speed


def columns() -> tuple[Any, ...]:
    """The same random rows for both sides: obs, action, reward, terminated, of episodes of equal length."""
    import numpy as np

    draw, rows = np.random.default_rng(0), EPISODES * LENGTH
    obs = draw.standard_normal((rows, OBS), dtype=np.float32)
    action = draw.uniform(-1, 1, (rows, ACTION)).astype(np.float32)
    terminated = np.arange(1, rows + 1) % LENGTH == 0
    return obs, action, draw.standard_normal(rows, dtype=np.float32), terminated


def ours(algo: str) -> Callable[[], object]:
    """One update of mbkit's agent, drawing its batch included."""
    import numpy as np
    import torch

    from mbkit import registry
    from mbkit.data import Columns, Dataset
    from mbkit.replay.recorded import RecordedRows

    obs, action, reward, terminated = columns()
    following = np.roll(obs, -1, 0)
    episode = np.arange(len(obs)) // LENGTH
    table = Columns(obs, action, reward, following, terminated, np.zeros_like(terminated), episode)
    data = Dataset.of(table, action_low=[-1] * ACTION, action_high=[1] * ACTION)
    entry, spec = registry.agents[algo], data.spec()
    torch.manual_seed(0)
    agent, rows = entry.target(spec, entry.config(hidden=HIDDEN), 0.99), RecordedRows(data.buffer(spec))
    if hasattr(agent, "prepare"):
        agent.prepare(rows.all())
    return lambda: agent.update(rows.sample(BATCH))


def theirs(algo: str) -> Callable[[], object]:
    """One update of d3rlpy's agent, drawing its batch included."""
    import logging

    logging.disable()
    import d3rlpy

    names = {"td3_bc": "TD3PlusBC", "iql": "IQL", "awac": "AWAC", "cql": "CQL", "rebrac": "ReBRAC", "bc": "BC"}
    config = getattr(d3rlpy.algos, f"{names[algo]}Config")
    networks = d3rlpy.models.encoders.VectorEncoderFactory(list(HIDDEN))
    factories = dict.fromkeys(("encoder_factory", "actor_encoder_factory", "critic_encoder_factory", "value_encoder_factory"), networks)
    known = {name: value for name, value in factories.items() if name in config.__dataclass_fields__}
    scaler = d3rlpy.preprocessing.StandardObservationScaler()
    agent = config(batch_size=BATCH, observation_scaler=scaler, **known).create(device="cpu")
    obs, action, reward, terminated = columns()
    data = d3rlpy.dataset.MDPDataset(obs, action, reward, terminated.astype("float32"))
    scaler.fit_with_transition_picker(data.episodes[:20], data.transition_picker)
    agent.build_with_dataset(data)
    return lambda: agent.update(data.sample_transition_batch(BATCH))


def serve(side: str, algo: str) -> None:
    """A round for every line of the standard input: CPU milliseconds of one update."""
    import torch

    torch.set_num_threads(1)
    update = {"mbkit": ours, "d3rlpy": theirs}[side](algo)
    update()
    print("ready", flush=True)
    for _ in sys.stdin:
        begin = time.process_time()
        for _ in range(UPDATES[algo]):
            update()
        print(1e3 * (time.process_time() - begin) / UPDATES[algo], flush=True)


def started(python: str, side: str, algo: str) -> "subprocess.Popen[str]":
    """The process of one side, warmed up."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    command = [python, __file__, "--serve", side, algo]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment, bufsize=1
    )
    while (line := answer(process)) != "ready":
        if not line:
            raise SystemExit(f"{side} could not start {algo}: run `{' '.join(command)}` to see why")
    return process


def answer(process: "subprocess.Popen[str]") -> str:
    """The next line that a process prints; "" where it ended."""
    return "" if process.stdout is None else process.stdout.readline().strip()


def contest(peer: str, algo: str, rounds: int) -> dict[str, list[float]]:
    """CPU milliseconds of one update in every round, by side."""
    sides = {"mbkit": started(sys.executable, "mbkit", algo), "d3rlpy": started(peer, "d3rlpy", algo)}
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, process in sides.items():
            print("go", file=process.stdin, flush=True)
            times[name].append(float(answer(process)))
    for process in sides.values():
        process.kill()
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", help="the Python that has d3rlpy")
    parser.add_argument("--agents", nargs="+", default=["td3_bc", "iql", "awac", "cql"], choices=list(UPDATES))
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--out", type=Path, help="write the times as JSON")
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve(*args.serve)
        return
    if not args.peer:
        parser.error("--peer PYTHON is missing, the interpreter that has d3rlpy 2.8.1")
    from side_by_side import table

    rows, results = [], {}
    for algo in args.agents:
        results[algo] = times = contest(args.peer, algo, args.rounds)
        ratios = sorted(there / here for here, there in zip(times["mbkit"], times["d3rlpy"], strict=True))
        here, there = (statistics.median(times[name]) for name in ("mbkit", "d3rlpy"))
        rows.append((algo, here, min(times["mbkit"]), there, min(times["d3rlpy"]), statistics.median(ratios), TARGETS.get(algo, "")))
    print(f"CPU ms an update, {args.rounds} interleaved rounds, load average {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores")
    print(table(("", "mbkit", "min", "d3rlpy", "min", "mbkit faster by", "target"), rows))
    if args.out:
        args.out.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
