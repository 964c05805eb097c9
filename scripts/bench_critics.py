"""What the architectures of critics cost: `python scripts/bench_critics.py`.

Updates of SAC at Hopper's sizes, 2x256, batch 256, interleaved; CPU time, and multiplications of the critics' linear layers, over those of
`mlp`. An architecture that passes pairs (s, a) and (s', a') together sees twice the rows, which counts as twice the multiplications.
"""

import argparse
import time
from itertools import product
from statistics import median

import torch

from mbkit.agents.actor_critic.sac import SAC, SACConfig
from mbkit.networks.heads import Critics
from mbkit.types import EnvSpec, Transition

OBS, ACTION, BATCH, UPDATES = 11, 3, 256, 3


def products(critics: Critics) -> int:
    """Multiplications of one row in all linear layers of one critic, of two rows where pairs pass together."""
    rows = 2 if hasattr(critics.net, "joint") else 1
    return rows * sum(p[0].numel() for p in critics.parameters() if p.dim() == 3 and p.shape[1] > 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=16)
    args = parser.parse_args()
    torch.set_num_threads(1)
    spec, ones = EnvSpec(OBS, ACTION, torch.device("cpu")), torch.ones(BATCH)
    batch = Transition(torch.randn(BATCH, OBS), torch.rand(BATCH, ACTION) * 2 - 1, ones, torch.randn(BATCH, OBS), ones)
    forms = list(product(["mlp", "layer_norm", "batch_norm", "simba", "simba_v2"], ["mse", "c51"]))
    agents = [SAC(spec, SACConfig(critic=critic, loss=loss)) for critic, loss in forms]
    seconds: list[list[float]] = [[] for _ in forms]
    for _ in range(args.rounds):
        for agent, times in zip(agents, seconds, strict=True):
            agent.measures, began = False, time.process_time()
            for _ in range(UPDATES):
                agent.update(batch)
            times.append((time.process_time() - began) / UPDATES)
    print("| critic | loss | ms an update | time over mlp | products over mlp |\n|---|---|---|---|---|")
    for (critic, loss), agent, times in zip(forms, agents, seconds, strict=True):
        time_over, products_over = median(times) / median(seconds[0]), products(agent.critics) / products(agents[0].critics)
        print(f"| {critic} | {loss} | {1000 * median(times):.1f} | {time_over:.2f} | {products_over:.1f} |")


if __name__ == "__main__":
    main()
