"""Model rollouts beside the real mbrl-lib's: `python scripts/bench_rollout.py`.

MBPO's rollout, one step from each of 100 000 replayed states: an action of SAC's policy, a step of an ensemble of 7 (5 elites, 4 x 200,
TS1, learned reward, Hopper's termination), and storing the transitions. mbrl-lib: its own rollout function with its
ModelEnv, replay buffers and SAC. mbkit: `branch` with its Ensemble, SAC and ModelBuffer. Drawing the states is timed on both sides. Random
weights, small in the last layer, so that few of the rollouts terminate.
"""

import argparse
from pathlib import Path
from typing import Any

from bench_update import ACTION, HIDDEN, OBS, mbrl_agent, spaces, timed
from side_by_side import Run, contest, table, verdict, write

ROWS, BATCH = 100_000, 100_000  # replayed transitions, rollouts at once
MEMBERS, ELITES, WIDTH, LAYERS = 7, 5, 200, 4
TARGET = 0.45  # time over mbrl-lib's


def replayed() -> tuple[Any, ...]:
    """The same random transitions for both sides, as NumPy arrays: obs, action, next_obs, reward, terminated."""
    import numpy as np

    rng = np.random.default_rng(0)
    obs, next_obs = 0.05 * rng.standard_normal((2, ROWS, OBS), dtype=np.float32)
    obs[:, 0] += 1.25  # a hopper that stands
    action = rng.uniform(-1, 1, (ROWS, ACTION)).astype(np.float32)
    return obs, action, next_obs, rng.standard_normal(ROWS, dtype=np.float32), np.zeros(ROWS, bool)


def peer(steps: int, device: str) -> Run:
    """mbrl-lib."""
    import numpy as np
    import torch
    from mbrl.algorithms.mbpo import rollout_model_and_populate_sac_buffer
    from mbrl.env.termination_fns import hopper
    from mbrl.models import GaussianMLP, ModelEnv, OneDTransitionRewardModel
    from mbrl.planning.sac_wrapper import SACAgent
    from mbrl.util import ReplayBuffer

    silu = {"_target_": "torch.nn.SiLU"}
    net = GaussianMLP(OBS + ACTION, OBS + 1, device, LAYERS, MEMBERS, WIDTH, propagation_method="random_model", activation_fn_cfg=silu)
    with torch.no_grad():
        net.mean_and_logvar.weight.mul_(0.01)
        net.mean_and_logvar.bias[..., OBS + 1 :] = -8.0
    model = OneDTransitionRewardModel(net, normalize=True, normalize_double_precision=True, learned_rewards=True, num_elites=ELITES)
    model.set_elite(list(range(ELITES)))
    data = ReplayBuffer(ROWS, (OBS,), (ACTION,), obs_type=np.double, action_type=np.double, reward_type=np.double)  # as its MBPO makes it
    obs, action, next_obs, reward, terminated = replayed()
    data.add_batch(obs, action, next_obs, reward, terminated, terminated)
    model.update_normalizer(data.get_all())
    env = ModelEnv(spaces(), model, hopper, None, generator=torch.Generator(device).manual_seed(0))
    agent = SACAgent(mbrl_agent(device))
    stored = ReplayBuffer(4 * BATCH * steps, (OBS,), (ACTION,))  # its MBPO stores the rollouts of one epoch: four fits
    return timed(lambda: rollout_model_and_populate_sac_buffer(env, data, agent, stored, True, steps, BATCH), device)


def ours(steps: int, device: str, precision: str, mode: str) -> Run:
    """mbkit."""
    import torch

    from mbkit.accelerate import accelerated
    from mbkit.agents.actor_critic.sac import SAC, SACConfig
    from mbkit.dynamics.ensemble import Ensemble, EnsembleConfig
    from mbkit.envs import known
    from mbkit.imagination.branch import BranchCounts, branch
    from mbkit.replay.buffer import Experience, ReplayBuffer
    from mbkit.replay.model_buffer import ModelBuffer
    from mbkit.types import EnvSpec, TaskKnowledge

    spec = EnvSpec(OBS, ACTION, torch.device(device))
    cfg = EnsembleConfig(members=MEMBERS, elites=ELITES, hidden=(WIDTH,) * LAYERS, propagation="ts1", reward="learned", precision=precision)
    model = Ensemble(spec, cfg, TaskKnowledge(termination=known.termination_fn("Hopper-v5")))
    obs, action, next_obs, reward, terminated = (torch.from_numpy(x).to(device) for x in replayed())
    with torch.no_grad():
        model.network.net.weight[-1].mul_(0.01)
        model.network.net.bias[-1][..., OBS + 1 :] = -8.0
        model.network.inputs.fit(torch.cat((obs, action), -1))
        model.refresh()
    data = ReplayBuffer(ROWS, spec)
    data.extend(Experience(obs, action, reward, next_obs, terminated, terminated), column=0)
    agent, buffer = SAC(spec, SACConfig(hidden=HIDDEN)), ModelBuffer(4 * BATCH * steps, spec)

    def roll_out() -> BranchCounts:
        return branch(model, agent.sample, data.sample(BATCH).obs, steps, buffer)

    return timed(accelerated(roll_out, mode, spec.device), device)


def compare(steps: int, rounds: int, threads: int, device: str) -> dict[str, dict[str, float]]:
    """Both sides; on a GPU also a captured graph, and everywhere also bfloat16 products."""
    sides: dict[str, tuple[Any, ...]] = {
        "mbrl-lib": (peer, steps, device),
        "mbkit": (ours, steps, device, "float32", "eager"),
        "mbkit bf16": (ours, steps, device, "bfloat16", "eager"),
    }
    if device == "cuda":
        sides["mbkit graph"] = (ours, steps, device, "float32", "cudagraph")
    return contest(sides, rounds, threads)


def report(results: dict[str, dict[str, float]], steps: int, device: str, threads: int) -> None:
    """Prints the table, and whether each target is met."""
    base = results["mbrl-lib"]
    keys = ("seconds", "fastest", "slowest", "cpu_seconds")
    rows = [
        (side, r["seconds"] / base["seconds"], *(1e3 * r[key] for key in keys), r["peak_mib"], r["growth_mib"])
        for side, r in results.items()
    ]
    print(f"\n{BATCH} x {steps} model steps on {device}, {threads} threads: observation {OBS}, action {ACTION}")
    print(table(("", "/ mbrl-lib", "median ms", "min", "max", "CPU ms", "peak MiB", "growth"), rows))
    for side in list(results)[1:]:
        print(verdict(f"{side}: time / mbrl-lib", results[side]["seconds"] / base["seconds"], TARGET))
    print(verdict("peak memory / mbrl-lib", results["mbkit"]["peak_mib"] / base["peak_mib"], 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1, help="length of the rollouts")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    args = parser.parse_args()
    results = compare(args.steps, args.rounds, args.threads, args.device)
    report(results, args.steps, args.device, args.threads)
    write(args.json, {"device": args.device, "threads": args.threads, "rounds": args.rounds, "steps": args.steps, "results": results})


if __name__ == "__main__":
    main()
