"""What several seeds in one process cost: `python scripts/bench_seeds.py`.

Rounds of updates of S seeds, together and one after the other, drawn from replay buffers of 20 000 rows at Hopper's sizes (dqn: CartPole's)
with default networks. CPU time of one process each, interleaved; on a GPU, with --device cuda, seconds of captured graphs.
"""

import argparse
from pathlib import Path

from side_by_side import Run, contest, table, write

ROWS, BATCH, OBS, ACTION = 20_000, 256, 11, 3
UPDATES = 20  # of every seed in a round


def learners(name: str, seeds: int, device: str):
    """Agents, their replay buffers filled with random rows, and their random numbers."""
    import torch

    from mbkit import accelerate, registry
    from mbkit.config import compose
    from mbkit.replay.buffer import Experience, ReplayBuffer
    from mbkit.streams import Stream
    from mbkit.types import EnvSpec

    accelerate.reuse_memory()  # as a run does
    discrete = name == "dqn"
    spec = EnvSpec(4, 2, torch.device(device), True) if discrete else EnvSpec(OBS, ACTION, torch.device(device))
    agents, buffers, streams = [], [], []
    for seed in range(seeds):
        torch.manual_seed(seed)
        agents.append(registry.agents[name].target(spec, compose(name, ["agent.loss=huber"] if discrete else []).agent.config))
        action = torch.randint(2, (ROWS,)) if discrete else torch.rand(ROWS, ACTION) * 2 - 1
        obs, never = torch.randn(2, ROWS, spec.obs_dim), torch.zeros(ROWS, dtype=torch.bool)
        buffers.append(ReplayBuffer(ROWS, spec))
        buffers[-1].extend(Experience(obs[0], action, torch.randn(ROWS), obs[1], never, never), column=0)
        streams.append(Stream())
    return agents, buffers, streams


def timed(call, device: str) -> Run:
    """One round of a call: CPU time, or on a GPU seconds until it is done."""
    import time

    import torch

    def run():
        began = time.process_time() if device == "cpu" else time.perf_counter()
        call()
        if device != "cpu":
            torch.cuda.synchronize()
        return {"seconds": (time.process_time() if device == "cpu" else time.perf_counter()) - began}

    return run


def one_by_one(name: str, seeds: int, device: str) -> Run:
    """Every agent's updates after another's."""
    import torch

    from mbkit.accelerate import accelerated

    agents, buffers, _ = learners(name, seeds, device)

    def several(agent, buffer):
        def call():
            for _ in range(UPDATES):
                metrics = agent.update(buffer.sample(BATCH))
            return tuple(metrics.values())

        return accelerated(call, "eager" if device == "cpu" else "cudagraph", torch.device(device), changes=[agent])

    calls = [several(agent, buffer) for agent, buffer in zip(agents, buffers, strict=True)]
    return timed(lambda: [call() for call in calls], device)


def together(name: str, seeds: int, device: str) -> Run:
    """One update for all."""
    import torch

    from mbkit.accelerate import accelerated
    from mbkit.agents.stacked import stacked
    from mbkit.loops.seeds import StackedSources
    from mbkit.streams import drawn_from

    agents, buffers, streams = learners(name, seeds, device)
    agent, source = stacked(agents), StackedSources(buffers, streams)

    def call():
        with drawn_from(streams):
            for _ in range(UPDATES):
                metrics = agent.update(source.sample(BATCH))
        return tuple(metrics.values())

    return timed(accelerated(call, "eager" if device == "cpu" else "cudagraph", torch.device(device), changes=[agent]), device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", nargs="+", default=["sac", "td3", "ddpg", "dqn"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[3, 8])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    rows, results = [], {}
    for name in args.agents:
        for seeds in args.seeds:
            sides = {"one by one": (one_by_one, name, seeds, args.device), "together": (together, name, seeds, args.device)}
            measured = contest(sides, args.rounds, args.threads)
            results[f"{name} {seeds}"] = measured
            alone, joint = (measured[side]["seconds"] for side in sides)
            each = 1e3 / UPDATES / seeds
            rows.append((name, seeds, alone * each, joint * each, joint / alone, seeds * joint / alone))
    head = ("", "seeds", "ms an update, one by one", "together", "ratio", "in updates of one seed")
    print(table(head, rows))
    if args.out:
        write(args.out, results)


if __name__ == "__main__":
    main()
