"""Run directories of synthetic runs, with the files and metrics that real ones have."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import yaml

VIDEO = b"\x00\x00\x00\x18ftypmp42" + bytes(2000)
EVERY = 200  # environment steps between evaluations, which are also the length of an episode
LEARNED = {
    "dynamics": {"name": "ensemble", "members": 5, "hidden": [200, 200, 200], "lr": 0.001},
    "planner": {"name": "icem", "horizon": 25},
}


def make_run(
    path: Path,
    algo: str = "pets",
    env: str = "cartpole",
    seed: int = 0,
    steps: int = 3000,
    learned: bool = True,
    finished: bool = True,
    **config: Any,
) -> Path:
    """A run that learns the swing-up: evaluation every 200 steps, episodes of 200, one fit an episode."""
    rng = np.random.default_rng(seed)
    path.mkdir(parents=True)
    parts = LEARNED if learned else {"agent": {"lr": 3e-4}}
    options = {"algo": algo, "env": env, "seed": seed, "steps": steps, "gamma": 0.99, **parts, **config}
    (path / "config.yaml").write_text(yaml.safe_dump(options, sort_keys=False))
    for step in range(0, (steps if finished else steps // 2) + 1, EVERY):
        skill = 180 / (1 + math.exp(-(step - 900) / 220))
        log(path, step, {"episode/return": skill + rng.normal(0, 14), "episode/length": 200})
        if learned and step:
            error = 0.12 * math.exp(-step / 700) + 0.004
            members = {f"model/holdout_error/{m}": error * math.exp(rng.normal(0, 0.25)) for m in range(5)}
            fit = {
                "model/holdout_error": error,
                "model/holdout_mse": error**2,
                "model/loss": -4 - step / 400 + rng.normal(0, 0.3),
                "model/holdout_nll": None,
            }
            log(path, step, {**fit, **members})
            log(path, step, {"time/act_ms": 41 + rng.gamma(2, 2), "plan/score": skill * 0.12 + rng.normal(0, 0.6)})
        std = 4 + 30 * math.exp(-(((step - 900) / 400) ** 2))
        log(path, step, {"eval/return": skill + rng.normal(0, 4), "eval/return_std": std, "eval/length": 200})
    if finished:
        finish(path, algo, env, seed, steps, learned)
    return path


def log(path: Path, step: int, metrics: dict[str, Any]) -> None:
    """Append a line to the run's metrics."""
    with (path / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": step, "seconds": 0.11 * step + 2, **metrics}) + "\n")


def finish(path: Path, algo: str, env: str, seed: int, steps: int, learned: bool) -> None:
    """Write what a run leaves at its end: summary, video, and the diagnostics of a learned model."""
    summary = {"algo": algo, "env": env, "seed": seed, "steps": steps, "eval_return_mean": 178.25 + seed, "eval_return_std": 3.5}
    summary |= {"eval_episodes": 10, "best_eval_return": 181.0 + seed, "wall_seconds": 382.0, "device": "cpu, 2 threads"}
    summary |= {"versions": {"mbkit": "0.1.0", "torch": "2.13.0", "mujoco": "4.0.0"}}
    (path / "summary.json").write_text(json.dumps(summary))
    (path / "videos").mkdir()
    (path / "videos" / "step-3000.mp4").write_bytes(VIDEO)
    if not learned:
        return
    h, nominal = np.arange(1, 31), np.linspace(0.1, 0.9, 9)
    median = 0.01 * h**1.1
    horizon = {"steps": h, "median": median, "low": median * 0.5, "high": median * 2.2, "baseline": 0.12 * np.sqrt(h)}
    horizon |= {"rmse": 1.2 * median, "no_change": 0.15 * np.sqrt(h)}
    diagnostics = {
        "one_step": {"mse": 0.0043, "nll": -11.2, "per_dim": [0.002, 0.004, 0.009, 0.003], "relative": [0.02, 0.03, 0.04, 0.05]},
        "calibration": {
            "nominal": nominal.tolist(),
            "empirical": (nominal**1.25).tolist(),
            "per_dim": [(nominal ** (1 + 0.15 * d)).tolist() for d in range(4)],
        },
        "horizon": {name: values.tolist() for name, values in horizon.items()},
    }
    (path / "diagnostics.json").write_text(json.dumps(diagnostics))


def add_diagnostics(path: Path, seed: int = 0) -> Path:
    """Log the diagnostics of a learned model as it gets better; early episodes are too short for the longest horizons."""
    rng = np.random.default_rng(100 + seed)
    for step in range(200, 3001, 200):
        rough = 0.4 * math.exp(-step / 900) + 0.02
        metrics = {"diagnose/calibration_error": 0.1}
        metrics |= {f"diagnose/error_{h}": rough * h**1.2 * math.exp(rng.normal(0, 0.1)) for h in (1, 5, 15, 30) if step > 300 or h < 15}
        metrics |= {f"diagnose/epistemic_{h}": 0.4 * rough * h**0.7 * math.exp(rng.normal(0, 0.1)) for h in (1, 5, 15)}
        gap = 12 * math.exp(-step / 700) * rng.normal(1, 0.3)
        metrics |= {"diagnose/return_gap": gap - 0.5, "diagnose/return_gap_abs": abs(gap) + 1}
        log(path, step, {**metrics, "diagnose/coverage_90": 0.9 - 0.3 * math.exp(-step / 500) + rng.normal(0, 0.01)})
    return path


def add_learner(path: Path) -> Path:
    """Log what an agent that learns from model rollouts logs."""
    for step in range(100, 3001, 100):
        log(path, step, {"diagnose/q_gap": 5 - step / 500, "diagnose/q_gap_abs": 3.0})
        learner = {"critic/loss": 3 / step, "critic/q": step / 60, "actor/loss": -step / 60, "actor/entropy": 2 - step / 1500}
        log(path, step, {**learner, "alpha": math.exp(-step / 800), "updates_per_second": 310.0})
        rollouts = {"imagination/horizon": 1 + step // 1000, "imagination/rows": 400 * step, "imagination/kept": 0.97}
        log(path, step, {**rollouts, "imagination/gigabytes": 4e-5 * step})
    return path
