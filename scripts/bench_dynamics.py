"""Time of five training epochs beside the real mbrl-lib: `python scripts/bench_dynamics.py`.

The same 10 000 transitions, batch 256, 7 members of 4x200, bootstrap, a fifth held out and evaluated after every epoch. mbrl-lib: its
replay buffer, iterators and ModelTrainer; mbkit: `Ensemble.fit`. Each round begins with new weights; making them is not timed. Both are
then scored on the same fresh transitions.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

from side_by_side import Run, apart, contest, table, verdict, write

ROWS, TEST_ROWS, EPOCHS, BATCH, HOLDOUT, LR, NOISE = 10_000, 2_000, 5, 256, 0.2, 1e-3, 0.01
MEMBERS, ELITES, HIDDEN, LAYERS = 7, 5, 200, 4
SIZES = {"cartpole": (4, 1), "halfcheetah": (18, 6)}  # observation and action dimensions


def prepare(name: str, directory: str) -> None:
    """Transitions of a smooth noisy system as mbrl-lib's `replay_buffer.npz`, for training and, in `test`, for the score."""
    import torch

    from mbkit.dynamics.mbrl.convert import write_replay
    from mbkit.replay.buffer import Experience

    torch.manual_seed(0)
    obs_dim, action_dim = SIZES[name]
    drift, push = torch.randn(obs_dim, obs_dim) / obs_dim**0.5, torch.randn(action_dim, obs_dim)
    for where, rows in ((Path(directory), ROWS), (Path(directory) / "test", TEST_ROWS)):
        obs, action = torch.randn(rows, obs_dim), torch.rand(rows, action_dim) * 2 - 1
        next_obs = obs + 0.3 * torch.tanh(obs @ drift + action @ push) + NOISE * torch.randn(rows, obs_dim)
        ended = torch.zeros(rows, dtype=torch.bool)
        write_replay(where, Experience(obs, action, torch.zeros(rows), next_obs, ended, ended))


def peer(name: str, directory: str, device: str) -> Run:
    """mbrl-lib."""
    import torch
    from mbrl.models import GaussianMLP, ModelTrainer, OneDTransitionRewardModel
    from mbrl.util import ReplayBuffer
    from mbrl.util.common import train_model_and_save_model_and_data
    from omegaconf import OmegaConf

    obs_dim, action_dim = SIZES[name]
    buffer, test = ReplayBuffer(ROWS, (obs_dim,), (action_dim,)), ReplayBuffer(TEST_ROWS, (obs_dim,), (action_dim,))
    buffer.load(directory)
    test.load(Path(directory) / "test")
    cfg = OmegaConf.create(
        {"model_batch_size": BATCH, "validation_ratio": HOLDOUT, "num_epochs_train_model": EPOCHS, "patience": EPOCHS + 1}
    )

    def run() -> dict[str, float]:
        network = GaussianMLP(
            obs_dim + action_dim, obs_dim, device, LAYERS, MEMBERS, HIDDEN, activation_fn_cfg={"_target_": "torch.nn.SiLU"}
        )
        model = OneDTransitionRewardModel(
            network, normalize=True, normalize_double_precision=True, learned_rewards=False, num_elites=ELITES
        )
        trainer = ModelTrainer(model, optim_lr=LR, weight_decay=5e-5)
        begin, busy = time.perf_counter(), time.process_time()
        train_model_and_save_model_and_data(model, trainer, cfg, buffer)
        if device == "cuda":
            torch.cuda.synchronize()
        seconds, cpu_seconds = time.perf_counter() - begin, time.process_time() - busy
        error = model.eval_score(test.get_all())[0].mean((1, 2))
        return {"seconds": seconds, "cpu_seconds": cpu_seconds, "mse": float(error[list(network.elite_models)].mean())}

    return run


def ours(name: str, directory: str, device: str) -> Run:
    """mbkit."""
    import torch

    from mbkit.dynamics.ensemble import Ensemble, EnsembleConfig
    from mbkit.dynamics.mbrl.convert import read_replay
    from mbkit.types import EnvSpec, TaskKnowledge, Transition

    spec, task = EnvSpec(*SIZES[name], torch.device(device)), TaskKnowledge(reward=lambda obs, action, next_obs: obs[:, 0])
    train, test = (
        Transition(*(column.to(device) for column in (rows.obs, rows.action, rows.reward, rows.next_obs, 1.0 - rows.terminated.float())))
        for rows in (read_replay(directory), read_replay(Path(directory) / "test"))
    )
    cfg = EnsembleConfig(
        members=MEMBERS,
        elites=ELITES,
        hidden=(HIDDEN,) * LAYERS,
        batch=BATCH,
        lr=LR,
        max_epochs=EPOCHS,
        patience=EPOCHS + 1,
        holdout=HOLDOUT,
        learn_bounds=False,
    )

    def run() -> dict[str, float]:
        model = Ensemble(spec, cfg, task)
        begin, busy = time.perf_counter(), time.process_time()
        model.fit(train)
        if device == "cuda":
            torch.cuda.synchronize()
        seconds, cpu_seconds = time.perf_counter() - begin, time.process_time() - busy
        with torch.no_grad():
            error = (model.predict(test.obs, test.action).mean - test.next_obs).square().mean((1, 2))
        return {"seconds": seconds, "cpu_seconds": cpu_seconds, "mse": float(error[model.network.elites].mean())}

    return run


def compare(name: str, rounds: int, threads: int, device: str) -> dict[str, dict[str, float]]:
    """Both sides on the transitions of one task's size."""
    with tempfile.TemporaryDirectory() as directory:
        apart(prepare, name, directory)
        sides: dict[str, tuple[Any, ...]] = {"mbrl-lib": (peer, name, directory, device), "mbkit": (ours, name, directory, device)}
        return contest(sides, rounds, threads)


def report(name: str, results: dict[str, dict[str, float]], device: str) -> None:
    """Prints the table, and whether each target is met."""
    base = results["mbrl-lib"]
    keys = ("seconds", "fastest", "slowest", "cpu_seconds", "mse", "peak_mib", "growth_mib")
    ratios = ("seconds", "cpu_seconds")
    rows = [(side, *(r[key] / base[key] for key in ratios), *(r[key] for key in keys)) for side, r in results.items()]
    print(f"\n{name} (observation, action: {SIZES[name]}) on {device}: {EPOCHS} epochs on {ROWS} transitions, batch {BATCH}")
    print(table(("", "/ mbrl-lib", "CPU / mbrl-lib", "median s", "min", "max", "CPU s", "test MSE", "peak MiB", "growth"), rows))
    print(f"test MSE of the true system: {NOISE**2:g}")
    print(verdict("time / mbrl-lib", results["mbkit"]["seconds"] / base["seconds"], 0.75))
    print(verdict("CPU time / mbrl-lib", results["mbkit"]["cpu_seconds"] / base["cpu_seconds"], 0.75))
    print(verdict("peak memory / mbrl-lib", results["mbkit"]["peak_mib"] / base["peak_mib"], 1))
    print(verdict("test MSE / mbrl-lib", results["mbkit"]["mse"] / base["mse"], 1.05))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=[*SIZES, "all"], default="halfcheetah", help="task that the dimensions are those of")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    args = parser.parse_args()
    results = {}
    for name in list(SIZES) if args.task == "all" else [args.task]:
        results[name] = compare(name, args.rounds, args.threads, args.device)
        report(name, results[name], args.device)
    write(args.out, {"device": args.device, "threads": args.threads, "rounds": args.rounds, "results": results})


if __name__ == "__main__":
    main()
