"""Gradient updates per second beside the real mbrl-lib and Stable-Baselines3: `python scripts/bench_update.py`.

Batch 256 drawn from 100 000 rows in each library's own replay buffer, two hidden layers of 256, the sizes of Hopper; drawing is timed
too. SAC learns its temperature everywhere; TD3 updates its policy every second time. Products: the matrix products of one SAC update
alone, member by member, a lower bound of any implementation.
"""

import argparse
import time
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

from side_by_side import Run, contest, table, verdict, write

OBS, ACTION, ROWS, BATCH, HIDDEN = 11, 3, 100_000, 256, (256, 256)
UPDATES = 60  # gradient updates of a round
AT_ONCE = 20  # updates in one captured graph, as in MBPO: 20 for each environment step
INSTALL = "Stable-Baselines3 is not installed and left out: `pip install --no-deps stable-baselines3 cloudpickle` does not change torch."


def rows() -> tuple[Any, ...]:
    """The same random transitions for all sides, as NumPy arrays: obs, action, next_obs, reward, terminated."""
    import numpy as np

    rng = np.random.default_rng(0)
    obs, next_obs = rng.standard_normal((2, ROWS, OBS), dtype=np.float32)
    action = rng.uniform(-1, 1, (ROWS, ACTION)).astype(np.float32)
    return obs, action, next_obs, rng.standard_normal(ROWS, dtype=np.float32), rng.random(ROWS) < 0.01


def spaces() -> Any:
    """An environment of which libraries only read the spaces."""
    import gymnasium
    import numpy as np

    class Spaces(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (OBS,), np.float32)
        action_space = gymnasium.spaces.Box(-1, 1, (ACTION,), np.float32)

    return Spaces()


def timed(updates: Any, device: str) -> Run:
    """One round: seconds of `UPDATES` updates, with the device idle before and after."""
    import torch

    def wait() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    def run() -> dict[str, float]:
        wait()
        begin, busy = time.perf_counter(), time.process_time()
        updates()
        wait()
        return {"seconds": time.perf_counter() - begin, "cpu_seconds": time.process_time() - busy}

    return run


def mbrl_agent(device: str) -> Any:
    """mbrl-lib's SAC."""
    import torch
    from mbrl.third_party.pytorch_sac_pranz24 import SAC
    from omegaconf import OmegaConf

    settings = {
        "gamma": 0.99,
        "tau": 0.005,
        "alpha": 0.2,
        "policy": "Gaussian",
        "target_update_interval": 1,
        "automatic_entropy_tuning": True,
        "target_entropy": -float(ACTION),
        "hidden_size": HIDDEN[0],
        "device": torch.device(device),
        "lr": 3e-4,
    }
    return SAC(OBS, spaces().action_space, OmegaConf.create(settings, flags={"allow_objects": True}))


def mbrl_sac(device: str) -> Run:
    """mbrl-lib's SAC with its own replay buffer, called as in its MBPO loop, without a logger."""
    from mbrl.util import ReplayBuffer

    obs, action, next_obs, reward, terminated = rows()
    buffer = ReplayBuffer(ROWS, (OBS,), (ACTION,))
    buffer.add_batch(obs, action, next_obs, reward, terminated, terminated & False)
    agent = mbrl_agent(device)

    def updates() -> None:
        for n in range(UPDATES):
            agent.update_parameters(buffer, BATCH, n, reverse_mask=True)

    return timed(updates, device)


def sb3(name: str, device: str) -> Run:
    """Stable-Baselines3's SAC or TD3 with its own replay buffer."""
    import stable_baselines3
    from stable_baselines3.common.logger import configure

    obs, action, next_obs, reward, terminated = rows()
    algorithm = getattr(stable_baselines3, name.upper())
    policy = {"net_arch": list(HIDDEN)}
    agent = algorithm("MlpPolicy", spaces(), 3e-4, ROWS, batch_size=BATCH, gamma=0.99, tau=0.005, policy_kwargs=policy, device=device)
    agent.set_logger(configure(None, []))
    buffer = agent.replay_buffer
    buffer.observations[:, 0], buffer.actions[:, 0], buffer.next_observations[:, 0] = obs, action, next_obs
    buffer.rewards[:, 0], buffer.dones[:, 0], buffer.full = reward, terminated, True
    return timed(lambda: agent.train(UPDATES, BATCH), device)


def ours(name: str, device: str, mode: str) -> Run:
    """mbkit: the agent of this name on batches of a `ReplayBuffer`; in mode cudagraph `AT_ONCE` updates are one graph, drawing included."""
    import torch

    from mbkit.accelerate import accelerated
    from mbkit.registry import agents
    from mbkit.replay.buffer import Experience, ReplayBuffer
    from mbkit.types import EnvSpec

    spec = EnvSpec(OBS, ACTION, torch.device(device))
    obs, action, next_obs, reward, terminated = (torch.from_numpy(x) for x in rows())
    buffer = ReplayBuffer(ROWS, spec)
    buffer.extend(Experience(obs, action, reward, next_obs, terminated, terminated), column=0)
    entry = agents[name]
    agent = entry.target(spec, entry.config())

    def several() -> tuple[torch.Tensor, ...]:
        for _ in range(AT_ONCE):
            metrics = agent.update(buffer.sample(BATCH))
        return tuple(metrics.values())

    call = accelerated(several, mode, spec.device, changes=[agent])

    def updates() -> None:
        for _ in range(UPDATES // AT_ONCE):
            call()

    return timed(updates, device)


def products(device: str) -> Run:
    """The matrix products of one SAC update without anything else, member by member."""
    import torch
    from torch.nn.functional import linear

    policy, critic = (OBS, *HIDDEN, 2 * ACTION), (OBS + ACTION, *HIDDEN, 1)
    forward = [*2 * [policy], *6 * [critic]]  # target: policy, 2 target critics; critics' loss: 2; policy's loss: policy, 2 critics
    inputs = [policy[1:], *2 * [critic[1:]], *2 * [critic]]  # of a first layer only the policy's loss needs them, for the actions
    weights = [policy, *2 * [critic]]
    x = {n: torch.randn(BATCH, n, device=device) for n in {*policy, *critic}}
    w = {(i, o): torch.randn(o, i, device=device) for sizes in (policy, critic) for i, o in pairwise(sizes)}

    @torch.no_grad()
    def updates() -> None:
        for _ in range(UPDATES):
            for sizes in forward:
                for i, o in pairwise(sizes):
                    linear(x[i], w[i, o])
            for sizes in inputs:
                for i, o in pairwise(sizes):
                    x[o] @ w[i, o]
            for sizes in weights:
                for i, o in pairwise(sizes):
                    x[o].T @ x[i]

    return timed(updates, device)


def compare(rounds: int, threads: int, device: str) -> dict[str, dict[str, float]]:
    """All sides whose library is installed."""
    names = ("sac", "td3")
    sides: dict[str, tuple[Any, ...]] = {"sac mbrl-lib": (mbrl_sac, device)}
    if find_spec("stable_baselines3"):
        sides |= {f"{name} SB3": (sb3, name, device) for name in names}
    else:
        print(INSTALL)
    sides |= {f"{name} mbkit": (ours, name, device, "eager") for name in names}
    if device == "cuda":
        sides |= {f"{name} mbkit graph": (ours, name, device, "cudagraph") for name in names}
    sides["sac products"] = (products, device)
    return contest(sides, rounds, threads)


def report(results: dict[str, dict[str, float]], device: str, threads: int, clock: str) -> None:
    """Prints the table, and whether each target is met, by a clock: "seconds" or "cpu_seconds"."""
    rows = []
    for side, r in results.items():
        reference = results.get(f"{side[:3]} mbkit", r)[clock]
        each = (1e3 * r[key] / UPDATES for key in ("seconds", "fastest", "slowest", "cpu_seconds"))
        rows.append((side, UPDATES / r[clock], r[clock] / reference, *each, r["peak_mib"], r["growth_mib"]))
    print(f"\nupdates on {device}, {threads} threads: batch {BATCH} of {ROWS} rows, hidden {HIDDEN}, observation {OBS}, action {ACTION}")
    print(table(("", "updates/s", "time / mbkit", "median ms", "min", "max", "CPU ms", "peak MiB", "growth"), rows))
    for peer in ("sac mbrl-lib", "sac SB3", "td3 SB3"):
        for side in (f"{peer[:3]} mbkit", f"{peer[:3]} mbkit graph"):
            if peer in results and side in results:
                ratio = results[peer][clock] / results[side][clock]
                print(verdict(f"{side}: updates per second / {peer}", ratio, 1.3, at_least=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--cpu-time", action="store_true", help="compare CPU time, for a machine that is busy with something else")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    args = parser.parse_args()
    results = compare(args.rounds, args.threads, args.device)
    report(results, args.device, args.threads, "cpu_seconds" if args.cpu_time else "seconds")
    write(args.json, {"device": args.device, "threads": args.threads, "rounds": args.rounds, "updates": UPDATES, "results": results})


if __name__ == "__main__":
    main()
