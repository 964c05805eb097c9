"""What pessimism costs: `python scripts/bench_pessimism.py`.

Rounds of model rollouts (2 000 starts, 3 steps, an ensemble of 7, Hopper's sizes) without a gate, with members' predictions asked for
anyway (by a gate that keeps all), and penalised by each measure; then SAC updates with one-step targets beside MOBILE's. CPU time of one
process each, interleaved.
"""

import argparse
from pathlib import Path

from side_by_side import Run, contest, table, verdict, write

OBS, ACTION, STARTS, HORIZON, BATCH = 11, 3, 2000, 3, 256
TARGET = 1.15  # penalised rollouts over rollouts that are asked for predictions anyway


def model():
    """An untrained ensemble with a learned reward."""
    import torch

    from mbkit.dynamics.ensemble import Ensemble, EnsembleConfig
    from mbkit.types import EnvSpec

    spec = EnvSpec(OBS, ACTION, torch.device("cpu"))
    return spec, Ensemble(spec, EnsembleConfig(propagation="ts1"))


def cpu_timed(call) -> Run:
    """One round: a call's CPU time, which a busy machine spoils less than wall-clock."""
    import time

    def run():
        began = time.process_time()
        call()
        return {"seconds": time.process_time() - began}

    return run


def rollouts(kind: str) -> Run:
    """Rounds of model rollouts."""
    import torch

    from mbkit.imagination.branch import Verdict, branch
    from mbkit.imagination.pessimism import Penalized
    from mbkit.recipes.measures import MEASURES
    from mbkit.replay.model_buffer import ModelBuffer

    spec, dynamics = model()
    buffer, obs = ModelBuffer(STARTS * HORIZON, spec), torch.randn(STARTS, OBS)
    gate = None
    if kind == "predictions":
        gate = lambda prediction, alive, step, k: Verdict(alive, alive, torch.zeros(len(alive)))  # noqa: E731
    elif kind != "plain":
        dynamics = Penalized(dynamics, MEASURES[kind], 1.0)
    return cpu_timed(lambda: branch(dynamics, lambda o: torch.rand(len(o), ACTION) * 2 - 1, obs, HORIZON, buffer, gate))


def updates(kind: str) -> Run:
    """A hundred SAC updates on a mixture."""
    import torch

    from mbkit.agents.actor_critic.sac import SAC, SACConfig
    from mbkit.imagination.bellman import BellmanInconsistency
    from mbkit.targets import one_step
    from mbkit.types import Transition

    spec, dynamics = model()
    target = BellmanInconsistency(dynamics.predict_elites, one_step, 1.0) if kind == "mobile" else one_step
    agent = SAC(spec, SACConfig(backup_entropy=False), 0.99, target)
    real = (torch.arange(BATCH) < BATCH // 20).float()
    batch = Transition(
        torch.randn(BATCH, OBS), torch.rand(BATCH, ACTION), torch.randn(BATCH), torch.randn(BATCH, OBS), torch.ones(BATCH), real
    )
    return cpu_timed(lambda: [agent.update(batch) for _ in range(20)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, default=None)
    args = parser.parse_args()
    kinds = ("plain", "predictions", "max_aleatoric", "disagreement", "distance_from_mean", "ensemble_std", "one_vs_rest")
    rolled = contest({kind: (rollouts, kind) for kind in kinds}, args.rounds, args.threads)
    base = rolled["predictions"]["seconds"]
    rows = [(kind, rolled[kind]["seconds"], rolled[kind]["seconds"] / base) for kind in kinds]
    print(table(("rollouts", "CPU seconds", "over predictions"), rows))
    for kind in kinds[2:]:
        print(verdict(f"rollouts penalised by {kind}, over rollouts with predictions", rolled[kind]["seconds"] / base, TARGET))
    learned = contest({kind: (updates, kind) for kind in ("one_step", "mobile")}, args.rounds, args.threads)
    print(table(("20 updates", "CPU seconds"), [(kind, value["seconds"]) for kind, value in learned.items()]))
    write(args.json, {"rollouts": rolled, "updates": learned})


if __name__ == "__main__":
    main()
